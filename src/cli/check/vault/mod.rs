//! `nomad-build check --vault`: whether Vault (or OpenBao) gives each task its secrets, and no other's.
//! Changes nothing, and reads no secret.
//!
//! ```text
//! Plan ─▶ gather (I/O) ─▶ Facts ─▶ lines (pure)
//! ```
//! What should be there is what `nomad/vault/setup.sh` makes.

mod ask;
mod env;
mod lines;
mod policy;
mod reach;
mod role;
mod roles;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use crate::config::Config;

pub use ask::gather;
pub use lines::lines;
use role::{Role, Task};

/// Tasks of a build's job, each with secrets of its own.
const TASKS: &[&str] = &["build", "publish", "archive"];

/// Where in Vault things are: the options of setup.sh, with its defaults.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// With --vault: path of the key-value store.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "secret",
        requires = "vault"
    )]
    pub mount: String,
    /// With --vault: path of the secrets in it.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "nomad-build",
        requires = "vault"
    )]
    pub prefix: String,
    /// With --vault: path of the auth method.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "jwt-nomad",
        requires = "vault"
    )]
    pub auth: String,
    /// With --vault: audience of the identities that Nomad makes for Vault.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "vault.io",
        requires = "vault"
    )]
    pub audience: String,
    /// With --vault: Nomad's namespace of the server's job.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        requires = "vault"
    )]
    pub server_namespace: String,
}

/// What should be there.
#[derive(Debug, Clone)]
pub struct Plan {
    places: Places,
    /// Beginning of the names of jobs and roles.
    name: String,
    /// Nomad's namespace of builds.
    namespace: String,
    profiles: Vec<String>,
}

/// A task that takes secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taker {
    /// Role by which it does, and policy of that.
    role: String,
    /// As Nomad knows it.
    task: Task,
    /// Its secrets, such as `default/build`.
    secrets: String,
    /// The only path that it may read.
    path: String,
    /// Where that path's versions are told, without their values.
    metadata: String,
}

impl Plan {
    /// What the configuration makes necessary. `namespace` is `NOMAD_NAMESPACE`, if there is one.
    pub fn new(config: &Config, places: Places, namespace: Option<String>) -> Self {
        let namespace = config.nomad.namespace.clone().or(namespace);
        Self {
            places,
            name: config.nomad.job.clone(),
            namespace: namespace.unwrap_or_else(|| "default".into()),
            profiles: config
                .profiles()
                .into_iter()
                .map(|profile| profile.name)
                .collect(),
        }
    }

    /// Profiles whose names differ in capitals alone.
    fn alike(&self) -> Vec<Vec<&str>> {
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for profile in &self.profiles {
            let names = alike.entry(profile.to_ascii_lowercase()).or_default();
            names.push(profile);
        }
        alike
            .into_values()
            .filter(|names| names.len() > 1)
            .collect()
    }

    /// Every task that takes secrets.
    fn takers(&self) -> Vec<Taker> {
        let name = &self.name;
        let mut takers = Vec::new();
        for profile in &self.profiles {
            for task in TASKS {
                let job = format!("{name}-{profile}");
                let role = format!("{job}-{task}");
                takers.push(self.taker(
                    role,
                    &self.namespace,
                    job,
                    task,
                    format!("{profile}/{task}"),
                ));
            }
        }
        let (role, namespace) = (format!("{name}-server"), &self.places.server_namespace);
        takers.push(self.taker(role, namespace, name.clone(), "server", "server".into()));
        takers
    }

    fn taker(
        &self,
        role: String,
        namespace: &str,
        job: String,
        task: &str,
        secrets: String,
    ) -> Taker {
        let Places { mount, prefix, .. } = &self.places;
        Taker {
            role,
            task: Task {
                namespace: namespace.into(),
                job,
                name: task.into(),
            },
            path: format!("{mount}/data/{prefix}/{secrets}"),
            metadata: format!("{mount}/metadata/{prefix}/{secrets}"),
            secrets,
        }
    }

    /// The command that makes all of it.
    fn setup(&self, jwks: Option<&str>) -> String {
        let jwks = jwks.unwrap_or("ADDRESS_OF_NOMAD/.well-known/jwks.json");
        let mut command = format!("nomad/vault/setup.sh --jwks {jwks}");
        let places = &self.places;
        for (option, value, default) in [
            ("name", &self.name, "nomad-build"),
            ("namespace", &self.namespace, "builds"),
            ("server-namespace", &places.server_namespace, "default"),
            ("mount", &places.mount, "secret"),
            ("prefix", &places.prefix, "nomad-build"),
            ("auth", &places.auth, "jwt-nomad"),
            ("audience", &places.audience, "vault.io"),
        ] {
            if value != default {
                command.push_str(&format!(" --{option} {value}"));
            }
        }
        format!("{command} {}", self.profiles.join(" "))
    }
}

/// Why something was not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// The token has no right to it.
    Denied,
    /// Anything else.
    Other(String),
}

type Answer<T> = Result<T, Fault>;

/// What Vault tells. Fields that were not asked for because of an earlier fault are [`Fault::Missing`].
#[derive(Debug, Clone)]
pub struct Facts {
    /// Where it is.
    address: String,
    /// How it is, or why it does not answer.
    status: Result<Status, String>,
    /// Whether the token is one; missing when there is none.
    token: Answer<()>,
    /// The key-value store.
    store: Answer<Mount>,
    /// The auth method.
    method: Answer<Mount>,
    /// Its configuration.
    config: Answer<MethodConfig>,
    /// Names of all of its roles.
    names: Answer<Vec<String>>,
    /// Those, and those that should be there.
    roles: BTreeMap<String, Answer<Role>>,
    /// Text of each policy that one of them gives.
    policies: BTreeMap<String, Answer<String>>,
    /// The newest version at each path of metadata; none when that one is deleted.
    secrets: BTreeMap<String, Answer<Option<u64>>>,
}

/// `sys/seal-status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    initialized: bool,
    sealed: bool,
    version: String,
}

/// `sys/mounts/PATH`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    options: Option<BTreeMap<String, String>>,
}

/// `auth/PATH/config`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct MethodConfig {
    jwks_url: String,
    oidc_discovery_url: String,
    default_role: String,
}

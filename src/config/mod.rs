//! What the operator decides: defaults < file < environment < flags < keys in Consul.
//!
//! `--config` or `NOMAD_BUILD_CONFIG` names a TOML file. Each of its keys has a variable, `NOMAD_BUILD_LIMITS_MEMORY_MB`
//! that of `limits.memory_mb`; the customary variables of Consul override the file, too. `--set` overrides them all.
//! What may come from Consul, and change while the program runs, [`overlay`] says.

pub mod consul;
pub mod http;
pub mod limits;
mod listen;
pub mod live;
pub mod nomad;
pub mod origin;
pub mod overlay;
pub mod principals;
mod read;
pub mod reference;
pub mod sandbox;
pub mod schema;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::git_url::GitUrl;

use read::{Place, Reader};

pub use consul::Consul;
pub use http::Http;
pub use limits::{DEFAULT_PROFILE, Limits, Overrides, Profile};
pub use listen::Listen;
pub use live::Live;
pub use nomad::Nomad;
pub use origin::Sources;
pub use principals::Principals;
pub use sandbox::{Isolation, Network, Sandbox};
/// Default of `sandbox.user`.
pub const DEFAULT_USER: &str = "nomad-build";

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where builds are kept. Default: `/var/lib/nomad-build` for root, else
    /// `$XDG_STATE_HOME/nomad-build` or `~/.local/state/nomad-build`.
    #[schemars(example = "/var/lib/nomad-build")]
    pub state_dir: PathBuf,
    /// Where builds run: `local` (on this machine) or `nomad` (as jobs of a cluster, which `NOMAD_ADDR` and its like name).
    pub backend: BackendKind,
    /// Directory of daily files for the own log of `serve`. Default: none, it goes to standard error.
    #[schemars(example = "/var/log/nomad-build")]
    pub log_dir: Option<PathBuf>,
    /// A server elsewhere, such as `https://build.example.com`, or the name of its service in Consul, as in
    /// `consul://nomad-build`, whose builds `build`, `status`, `logs` and `kill` on the command line are about. Default:
    /// none, and they are those of `backend`.
    #[schemars(example = &"https://build.example.com")]
    pub server: Option<String>,
    /// File of the token for `server`; the token itself may stand in the variable `NOMAD_BUILD_TOKEN`.
    #[schemars(example = "/home/me/.config/nomad-build/token")]
    pub token_file: Option<PathBuf>,
    /// Buildah: a name in the system's search path, or a path.
    pub buildah: String,
    /// Registries.
    pub registry: Registry,
    /// Git.
    pub git: Git,
    /// The local backend.
    pub local: Local,
    /// The backend on a Nomad cluster.
    pub nomad: Nomad,
    /// Limits of one build.
    pub limits: Limits,
    /// Profiles that a request may choose: name → what is different there from `[limits]` and from the network of
    /// `[sandbox]`. `default` is always there.
    #[schemars(extend("propertyNames" = {"examples": ["large"]}))]
    pub profiles: BTreeMap<String, Overrides>,
    /// Isolation.
    pub sandbox: Sandbox,
    /// Secrets for `RUN --mount=type=secret,id=NAME`, and for tests that name them: name → file of mode 0600. Builds
    /// have them in memory alone.
    #[schemars(extend(
        "propertyNames" = {"examples": ["npm"]},
        "additionalProperties" = {"type": "string", "examples": ["/etc/nomad-build/secrets/npm"]}
    ))]
    pub secrets: BTreeMap<String, PathBuf>,
    /// MCP.
    pub mcp: Mcp,
    /// MCP over HTTP.
    pub http: Http,
    /// What each principal may, within what all may: by `token:NAME`, `local:USER` or `ISSUER:SUBJECT`. `token:ci-*` is
    /// all that begin so, `*` everybody.
    #[schemars(extend("propertyNames" = {"examples": ["token:ann"]}))]
    pub principals: Principals,
    /// Consul, whose keys may lie over the rest: see "Consul" in docs/configuration.md.
    pub consul: Consul,
}

/// Where builds run.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum BackendKind {
    /// On this machine.
    #[default]
    Local,
    /// As jobs of a Nomad cluster, which `NOMAD_ADDR` and its like name.
    Nomad,
}

/// Registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// `host:port` of registries that speak plain HTTP.
    #[schemars(example = ["127.0.0.1:5000"])]
    pub insecure: Vec<String>,
    /// Credentials in the format of containers-auth.json(5), for pulls and pushes. Default:
    /// `$REGISTRY_AUTH_FILE`, else what Buildah and Docker keep in this user's home.
    #[schemars(example = "/etc/nomad-build/auth.json")]
    pub auth_file: Option<PathBuf>,
    /// PEM certificates to trust besides the system's.
    #[schemars(example = "/etc/nomad-build/ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// Beginnings of tags that may be pushed to, such as `registry.example.com/team/`. Empty: all.
    #[schemars(example = ["registry.example.com/team/"])]
    pub allow: Vec<String>,
}

/// Git.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Git {
    /// Whether plain HTTP is allowed.
    pub allow_http: bool,
    /// Beginnings of URLs that may be fetched. Empty: all.
    #[schemars(example = ["https://git.example.com/"])]
    pub allow: Vec<String>,
    /// Credentials, each bound to the beginning of a URL.
    pub credentials: Vec<GitCredential>,
}

/// A credential for git.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GitCredential {
    /// Beginning of the URLs it is for.
    #[schemars(example = "https://git.example.com/team/")]
    pub url: String,
    /// User name, for HTTPS.
    #[schemars(example = &"builder")]
    pub username: Option<String>,
    /// File of mode 0600 with the password or token, for HTTPS.
    #[schemars(example = "/etc/nomad-build/git-token")]
    pub password_file: Option<PathBuf>,
    /// Private key of mode 0600, for SSH.
    #[schemars(example = "/etc/nomad-build/git-key")]
    pub ssh_key: Option<PathBuf>,
    /// Known hosts, for SSH.
    #[schemars(example = "/etc/nomad-build/known_hosts")]
    pub known_hosts: Option<PathBuf>,
}

/// The local backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Local {
    /// Builds that run at the same time on this machine. Default: as many as it has processors, at least 2.
    #[schemars(example = 4)]
    pub slots: u32,
    /// Ended builds that are kept.
    pub keep_builds: u32,
    /// Days for which an ended build is kept.
    pub keep_days: u32,
    /// What the outputs of all ended builds may take on the disk, in MiB; those of the oldest builds go first.
    pub keep_outputs_mb: u64,
    /// What base images, layers and sources may take on the disk, in MiB, for each user that builds run as; and
    /// the blobs of base images, where there are several users.
    pub cache_mb: u64,
    /// Directories below which `path` may lie. Empty: all that this user can read.
    #[schemars(example = ["/home"])]
    pub paths: Vec<PathBuf>,
}

/// MCP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mcp {
    /// Longest `wait` of a tool, in seconds; more than 50 only for hosts that allow longer calls.
    pub max_wait: u32,
    /// Stands before the names of the tools, such as `nb_`, for hosts in which bare names collide. Default: nothing.
    #[schemars(example = &"nb_")]
    pub tool_prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: default_state_dir(),
            backend: BackendKind::default(),
            log_dir: None,
            server: None,
            token_file: None,
            buildah: "buildah".into(),
            registry: Registry::default(),
            git: Git::default(),
            local: Local::default(),
            nomad: Nomad::default(),
            limits: Limits::default(),
            profiles: BTreeMap::new(),
            sandbox: Sandbox::default(),
            secrets: BTreeMap::new(),
            mcp: Mcp::default(),
            http: Http::default(),
            principals: Principals::new(),
            consul: Consul::default(),
        }
    }
}

impl Default for Local {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            slots: u32::try_from(cores).unwrap_or(2).max(2),
            keep_builds: 200,
            keep_days: 14,
            keep_outputs_mb: 20_480,
            cache_mb: 20_480,
            paths: Vec::new(),
        }
    }
}

impl Default for Mcp {
    fn default() -> Self {
        Self {
            max_wait: 50,
            tool_prefix: String::new(),
        }
    }
}

fn default_state_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    if rustix::process::geteuid().is_root() {
        return "/var/lib/nomad-build".into();
    }
    std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| home().map(|home| home.join(".local/state")))
        .unwrap_or_else(|| "/var/tmp".into())
        .join("nomad-build")
}

/// What is wrong with the configuration; every fault at once.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not usable:\n{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// What is given to one call of the program, over everything that its machine has.
#[derive(Debug, Clone, Default, Args)]
pub struct Given {
    /// The configuration file. Default: NOMAD_BUILD_CONFIG, else none.
    #[arg(id = "config", long = "config", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A value of the configuration, such as limits.memory_mb=2048, over that of the file and of variables; may be
    /// given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Config {
    /// Reads file, variables and what is given.
    ///
    /// # Errors
    /// Names every fault.
    pub fn load(given: &Given) -> Result<Self, ConfigError> {
        Self::load_with_sources(given).map(|(config, _)| config)
    }

    /// As [`Config::load`], without a look at the files of secrets: for whoever does not use them, and may not read them.
    ///
    /// # Errors
    /// Names every fault of a value.
    pub fn load_values(given: &Given) -> Result<Self, ConfigError> {
        warn_of_strays();
        Self::read(given, |name| std::env::var(name).ok(), |_| Vec::new()).map(|(config, _)| config)
    }

    /// As [`Config::load`], and where each value comes from.
    ///
    /// # Errors
    /// Names every fault.
    pub fn load_with_sources(given: &Given) -> Result<(Self, Sources), ConfigError> {
        warn_of_strays();
        Self::load_from(given, |name| std::env::var(name).ok())
    }

    /// The same with given variables.
    ///
    /// # Errors
    /// Names every fault.
    pub fn load_from(
        given: &Given,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Sources), ConfigError> {
        Self::read(given, env, Self::file_faults)
    }

    fn read(
        given: &Given,
        env: impl Fn(&str) -> Option<String>,
        more_faults: impl Fn(&Self) -> Vec<String>,
    ) -> Result<(Self, Sources), ConfigError> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let named = env("NOMAD_BUILD_CONFIG").map(PathBuf::from);
        let file = given.file.as_deref().or(named.as_deref());
        let mut reader = Reader::default();
        let text;
        if let Some(file) = file {
            text = std::fs::read_to_string(file)
                .map_err(|error| ConfigError(vec![format!("{}: {error}", file.display())]))?;
            reader.file(file, &text);
        }
        let customary = consul::customary(&env);
        for (key, value, name) in customary {
            let path = ["consul", key].map(str::to_owned);
            reader.given(&path, &value, &Place::Variable(name.into()));
        }
        for path in schema::leaves() {
            let name = schema::variable(&path);
            if let Some(value) = env(&name) {
                reader.given(&path, &value, &Place::Variable(name));
            }
        }
        for text in &given.set {
            match read::assignment(text) {
                Ok((path, value)) => reader.given(&path, value, &Place::Flag),
                Err(fault) => reader.fault(Some(Place::Flag), fault),
            }
        }
        let mut config: Self = std::mem::take(&mut reader.table).try_into().unwrap_or_else(
            |error: toml::de::Error| {
                reader.fault(None, error.message().to_owned());
                Self::default()
            },
        );
        for fault in config.value_faults() {
            reader.value_fault(&fault);
        }
        if config.registry.auth_file.is_none() {
            config.registry.auth_file = default_auth_file(&env);
            let named = env("REGISTRY_AUTH_FILE").map(PathBuf::from);
            if named.is_some() && named == config.registry.auth_file {
                let path = ["registry", "auth_file"].map(str::to_owned);
                let place = Place::Variable("REGISTRY_AUTH_FILE".into());
                reader.places.insert(path.to_vec(), place);
            }
        }
        for fault in more_faults(&config) {
            reader.value_fault(&fault);
        }
        match reader.faults() {
            faults if faults.is_empty() => Ok((config, Sources::new(file, reader.places))),
            faults => Err(ConfigError(faults)),
        }
    }

    /// The file of the tokens with which this server may be called over HTTP.
    pub fn tokens_file(&self) -> PathBuf {
        (self.http.tokens.clone()).unwrap_or_else(|| self.state_dir.join("tokens"))
    }

    /// What holds for the builds of the profile `name`, if there is such a profile.
    pub fn profile(&self, name: &str) -> Option<Profile> {
        let none = Overrides::default();
        let over = match self.profiles.get(name) {
            Some(over) => over,
            None if name == DEFAULT_PROFILE => &none,
            None => return None,
        };
        Some(Profile {
            name: name.into(),
            description: over.description.clone(),
            limits: self.limits.with(over),
            network: over.network.unwrap_or(self.sandbox.network),
            secrets: match &over.secrets {
                Some(names) => names.clone(),
                None => self.secrets.keys().cloned().collect(),
            },
        })
    }

    /// Every profile, `default` first, the others by their names.
    pub fn profiles(&self) -> Vec<Profile> {
        let others = self.profiles.keys().map(String::as_str);
        std::iter::once(DEFAULT_PROFILE)
            .chain(others.filter(|name| *name != DEFAULT_PROFILE))
            .filter_map(|name| self.profile(name))
            .collect()
    }

    /// What is wrong with the values, whatever the disk holds.
    fn value_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, text: &str| {
            if !ok {
                faults.push(text.to_owned());
            }
        };
        check(
            self.state_dir.is_absolute(),
            "state_dir must be an absolute path",
        );
        check(
            !self
                .state_dir
                .to_string_lossy()
                .contains([':', ',', '"', '\n']),
            "state_dir must not contain : , or quotes: Buildah separates its options by them",
        );
        check(!self.buildah.is_empty(), "buildah must be a name or a path");
        check(
            self.buildah.starts_with('/') || !self.buildah.contains('/'),
            "buildah must be a name or an absolute path",
        );
        check(
            (1..=1024).contains(&self.local.slots),
            "local.slots must be from 1 to 1024",
        );
        check(is_account(&self.sandbox.user), ACCOUNT_RULE);
        check(
            (1..=3600).contains(&self.mcp.max_wait),
            "mcp.max_wait must be from 1 to 3600",
        );
        check(
            is_tool_prefix(&self.mcp.tool_prefix),
            "mcp.tool_prefix must be at most 24 of: letters, digits, _ -",
        );
        for (name, path) in &self.secrets {
            check(
                crate::build::validate::is_secret(name),
                &format!(
                    "secrets: {name:?} is no name (letters, digits, . _ -, at most 64, no . first)"
                ),
            );
            check(
                path.is_absolute(),
                &format!("secrets.{name} must be an absolute path"),
            );
        }
        for (index, credential) in self.git.credentials.iter().enumerate() {
            check(
                !credential.url.is_empty(),
                &format!(
                    "git.credentials[{index}].url is missing: a credential is bound to the beginning of a URL"
                ),
            );
            check(
                credential.password_file.is_some() || credential.ssh_key.is_some(),
                &format!("git.credentials[{index}] needs password_file or ssh_key"),
            );
            check(
                credential.ssh_key.is_none() || credential.known_hosts.is_some(),
                &format!("git.credentials[{index}] has ssh_key and no known_hosts"),
            );
            if let Err(fault) = GitUrl::parse_prefix(&credential.url, self.git.allow_http) {
                check(false, &format!("git.credentials[{index}].url: {fault}"));
            }
        }
        faults.extend(self.consul.faults());
        faults.extend(self.http.faults());
        let profiles: Vec<_> = self.profiles().into_iter().map(|one| one.name).collect();
        faults.extend(principals::faults(&self.principals, &profiles));
        faults.extend(self.nomad.faults());
        faults.extend(self.limits.faults());
        faults.extend(self.sandbox.faults());
        for (name, profile) in &self.profiles {
            faults.extend(profile.faults(name));
        }
        faults
    }

    /// What is wrong with the files that are named: each begins with the key.
    fn file_faults(&self) -> Vec<String> {
        let named = |key: &str, file: &Option<PathBuf>| {
            let file = file.clone()?;
            Some((key.to_owned(), file))
        };
        let secrets = self.secrets.iter();
        let mut secret: Vec<(String, PathBuf)> = secrets
            .map(|(name, path)| (format!("secrets.{name}"), path.clone()))
            .collect();
        secret.extend(named("registry.auth_file", &self.registry.auth_file));
        let mut public = Vec::from_iter(named("registry.ca_file", &self.registry.ca_file));
        for (index, one) in self.git.credentials.iter().enumerate() {
            let key = |name| format!("git.credentials[{index}].{name}");
            secret.extend(named(&key("password_file"), &one.password_file));
            secret.extend(named(&key("ssh_key"), &one.ssh_key));
            public.extend(named(&key("known_hosts"), &one.known_hosts));
        }
        for (name, issuer) in &self.http.issuers {
            public.extend(named(&format!("http.issuers.{name}.ca"), &issuer.ca));
        }
        let faults = secret.iter().filter_map(|(key, path)| {
            let problem = match std::fs::metadata(path) {
                Err(error) => error.to_string(),
                Ok(metadata) if is_private(&metadata) => return None,
                Ok(_) => "others can read it; make it mode 0600".into(),
            };
            Some(format!("{key}: {}: {problem}", path.display()))
        });
        // Who may not look into their directories may use what does not need them.
        let missing = public.iter().filter_map(|(key, path)| {
            let error = std::fs::metadata(path).err()?;
            let is_missing = error.kind() == std::io::ErrorKind::NotFound;
            is_missing.then(|| format!("{key}: {}: {error}", path.display()))
        });
        faults.chain(missing).collect()
    }
}

/// Tells of variables that look like ours and set nothing.
/// Tells, once, of variables that look as if they were this program's, and are not.
pub fn warn_of_strays() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for stray in read::strays(names) {
            tracing::warn!("{stray}");
        }
    });
}

/// What hosts take in the names of tools.
fn is_tool_prefix(prefix: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    prefix.len() <= 24 && prefix.chars().all(fits)
}

/// See [`is_account`].
pub const ACCOUNT_RULE: &str = "sandbox.user must be the beginning of account names: small letters, digits, _ and -, at most 27, a letter or _ first";

/// Whether useradd(8) takes this name with a number behind it: 32 characters, of these.
pub fn is_account(prefix: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    prefix.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && prefix.chars().all(rest)
        && prefix.len() <= 27
}

fn is_private(metadata: &std::fs::Metadata) -> bool {
    metadata.mode() & 0o077 == 0
}

/// Where Buildah, Podman and Docker keep their credentials (containers-auth.json(5)). Without XDG_RUNTIME_DIR, which
/// hosts of MCP servers seldom hand on, Buildah takes /run/user/UID for it, else /run/containers/UID.
fn default_auth_file(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let below = |name: &str, rest: &str| env(name).map(|dir| Path::new(&dir).join(rest));
    let user = rustix::process::getuid().as_raw();
    let run = |path: String| {
        let is_told = env("XDG_RUNTIME_DIR").is_some();
        (!is_told).then(|| PathBuf::from(path))
    };
    [
        env("REGISTRY_AUTH_FILE").map(PathBuf::from),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
        run(format!("/run/user/{user}/containers/auth.json")),
        run(format!("/run/containers/{user}/auth.json")),
        below("HOME", ".config/containers/auth.json"),
        below("DOCKER_CONFIG", "config.json"),
        below("HOME", ".docker/config.json"),
    ]
    .into_iter()
    .flatten()
    .find(|path| match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && !is_private(&metadata) => {
            tracing::warn!(file = %path.display(), "not used for registries: others can read it; make it mode 0600");
            false
        }
        Ok(metadata) => metadata.is_file(),
        Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let given = Given {
            file: Some(file.path().to_owned()),
            set: Vec::new(),
        };
        Config::load_from(&given, |name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
        .map(|(config, _)| config)
    }

    #[test]
    fn environment_wins_over_the_file() {
        let config = load(
            "state_dir = \"/a\"\n[registry]\ninsecure = [\"x:1\"]\n",
            &[
                ("NOMAD_BUILD_STATE_DIR", "/b"),
                ("NOMAD_BUILD_REGISTRY_INSECURE", "y:2, z:3"),
            ],
        )
        .unwrap();
        assert_eq!(config.state_dir, Path::new("/b"));
        assert_eq!(config.registry.insecure, ["y:2", "z:3"]);
    }

    #[test]
    fn unknown_keys_and_every_fault_are_named() {
        let error = load("[registry]\ninsecur = []\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("insecur") && error.contains("insecure"),
            "{error}"
        );
        let text = "state_dir = \"x\"\n[local]\nslots = 0\n[sandbox]\nuser = \"a:b\"\n";
        let error = load(text, &[]).unwrap_err().to_string();
        for name in ["state_dir", "local.slots", "sandbox.user"] {
            assert!(error.contains(name), "{error}");
        }
    }
    #[test]
    fn a_profile_is_the_limits_with_its_own_changes() {
        let config = load(
            "[limits]\nmemory_mb = 1024\n[sandbox]\nnetwork = \"none\"\n\
             [profiles.large]\ndescription = \"for C++\"\nmemory_mb = 8192\ncpus = 2\nnetwork = \"host\"\n\
             [profiles.a]\n",
            &[],
        )
        .unwrap();
        let large = config.profile("large").unwrap();
        assert_eq!(large.limits.memory_mb, Some(8192));
        assert_eq!(large.limits.cpus, Some(2.0));
        assert_eq!(large.limits.disk_mb, Limits::default().disk_mb);
        assert_eq!(
            (large.network, large.description.as_deref()),
            (Network::Host, Some("for C++"))
        );
        let default = config.profile("default").unwrap();
        assert_eq!(
            (default.limits, default.network),
            (config.limits.clone(), Network::None)
        );
        assert_eq!(config.profile("Large"), None);
        let names: Vec<_> = config.profiles().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["default", "a", "large"]);
        let changed = load("[profiles.default]\ndisk_mb = 100\n", &[]).unwrap();
        assert_eq!(changed.profile("default").unwrap().limits.disk_mb, 100);
        assert_eq!(changed.profiles().len(), 1);
    }

    #[test]
    fn every_fault_of_limits_profiles_and_networks_names_key_and_range() {
        let error = load(
            "[limits]\nprocesses = 3\ncpus = nan\ndisk_mb = 0\nfiles = 1\nfile_mb = 0\nmemory_mb = 1\n\
             [profiles.big]\nlog_mb = 0\ndescription = \"a\\nb\"\n[profiles.\"a b\"]\n\
             [sandbox]\ndeny = [\"10.1.0.0/8\", \"192.0.2.7\", \"x\", \"fd00::/8\"]\n",
            &[],
        )
        .unwrap_err();
        // Where each stands is another matter.
        let without_place = |text: &String| text.split_once(": ").map(|(_, text)| text.to_owned());
        let mut said: Vec<String> = error.0.iter().filter_map(without_place).collect();
        said.sort();
        let begins = [
            "limits.cpus must be from 0.1 to 4096",
            "limits.disk_mb must be from 64 to 1073741824",
            "limits.file_mb must be from 1 to 1073741824",
            "limits.files must be from 1000 to 10000000000",
            "limits.memory_mb must be from 128 to 1073741824",
            "limits.processes must be from 128 to 4194304",
            "profiles.big.description must be one line of at most 200 characters",
            "profiles.big.log_mb must be from 1 to 65536",
            "profiles: \"a b\" is no name",
            "sandbox.deny[0]: \"10.1.0.0/8\" is no network; write 10.0.0.0/8",
            "sandbox.deny[1]: \"192.0.2.7\" is no network; write 192.0.2.7/32",
            "sandbox.deny[2]: \"x\" is no network; write one as",
        ];
        assert_eq!(said.len(), begins.len(), "{said:#?}");
        for (text, begin) in said.iter().zip(begins) {
            assert!(text.starts_with(begin), "{text}");
        }
    }
}

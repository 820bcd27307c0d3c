//! The tasks of a build's job, as they run on a client:
//!
//! ```text
//! build (prestart) ─▶ publish (main) ─▶ archive (poststop, whatever became of the others)
//!  lease, cgroup,      image of the       end into the record, log into the registry,
//!  runner build        log; the gate      nothing left
//! ```
//! They share the allocation's directory: the packed image, and the logs that Nomad keeps of them.

pub mod archive;
pub mod build;
mod passed_on;
pub mod publish;
mod shared_log;

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backend::local::credentials;
use crate::backend::local::layout::BuildDir;
use crate::build::conclude::Outcome;
use crate::build::record::CommitOutcome;
use crate::build::validate::is_secret;
use crate::build::{BuildId, Failure, Kind, Phase, Plan};
use crate::config::Config;
use crate::log::{Event, RecordWriter};
use crate::nomad::{Client, Options};
use crate::registry::{self, Auth, ClientOptions, Reference};
use crate::runner::entry;
use crate::runner::publish::Gate;
use crate::runner::reporter::now_ms;

use super::payload::{CONTEXT_TYPE, PLAN_TYPE, Payload};
use super::store;

/// The least that `limits.memory_mb` can be.
const LEAST_MEMORY_MB: u64 = 128;

/// Where Nomad puts the payload, below the task's own directory: `dispatch_payload { file }`.
const PAYLOAD: &str = "payload";

/// What Nomad tells a task in its environment.
/// <https://developer.hashicorp.com/nomad/docs/reference/runtime-environment-settings>
struct Place {
    allocation: String,
    job: String,
    alloc_dir: PathBuf,
    task_dir: PathBuf,
    nomad: Client,
}

impl Place {
    fn of_this_task() -> io::Result<Self> {
        let env = |name: &str| {
            std::env::var(name).map_err(|_| {
                io::Error::other(format!(
                    "{name} is not set: this is no task of a Nomad job; see nomad/README.md"
                ))
            })
        };
        let options = Options::from_env(|name| std::env::var(name).ok()).map_err(io::Error::other);
        Ok(Self {
            allocation: env("NOMAD_ALLOC_ID")?,
            job: env("NOMAD_JOB_ID")?,
            alloc_dir: env("NOMAD_ALLOC_DIR")?.into(),
            task_dir: env("NOMAD_TASK_DIR")?.into(),
            nomad: Client::new(options?).map_err(io::Error::other)?,
        })
    }

    /// The build's directory, which all tasks share.
    fn dir(&self) -> BuildDir {
        BuildDir::new(self.alloc_dir.join("data/build"))
    }

    /// Where the packed image waits for publish, out of reach for the user that built it.
    fn packed(&self) -> PathBuf {
        self.alloc_dir.join("data/packed")
    }

    /// Where what is handed over waits for archive.
    fn outputs(&self) -> PathBuf {
        self.alloc_dir.join("data/outputs")
    }

    fn payload(&self) -> io::Result<Payload> {
        let path = self.task_dir.join(PAYLOAD);
        let bytes = fs::read(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Payload::decode(&bytes).map_err(io::Error::other)
    }

    /// The plan of the payload, wherever it is; the context goes to `context`.
    async fn unpack(
        &self,
        payload: Payload,
        config: &Config,
        context: Option<&Path>,
    ) -> io::Result<Plan> {
        let mut plan = payload.plan;
        if let (Some(bytes), Some(to)) = (&payload.context, context) {
            crate::runner::workdir::write_private(to, bytes)?;
        }
        if let Some(text) = &payload.artifact
            && (plan.is_none() || context.is_some())
        {
            // Beside the context, so that it is moved and not copied.
            let scratch = tempfile::tempdir_in(self.alloc_dir.join("data"))?;
            let reference = Reference::parse(text).map_err(io::Error::other)?;
            let auth = registry_auth(config)?;
            let files = registry_client(config)?
                .pull_artifact(&reference, scratch.path(), u64::MAX, &auth)
                .await
                .map_err(|error| {
                    io::Error::other(format!(
                        "the inputs of the build cannot be fetched: {error}"
                    ))
                })?;
            for file in files {
                match (file.media_type.as_str(), context) {
                    (PLAN_TYPE, _) => plan = Some(crate::runner::workdir::read_json(&file.path)?),
                    (CONTEXT_TYPE, Some(to)) => fs::rename(&file.path, to)?,
                    _ => {}
                }
            }
        }
        let plan = plan.ok_or_else(|| io::Error::other("the payload has no plan"))?;
        if plan.build_id != payload.build_id {
            return Err(io::Error::other("the plan is of another build"));
        }
        Ok(plan)
    }
}

/// What keeps a task from its work becomes the build's failure: its last word, behind line `last`.
fn refuse(last: u64, phase: Option<Phase>, error: &io::Error) -> io::Result<u8> {
    let failure = Failure::new(phase, Kind::Internal, error.to_string()).with_hint(
        "The operator must look at the configuration and the logs of the profile's job.",
    );
    let outcome = Outcome::Failed(Box::new(failure));
    let mut writer = RecordWriter::new(entry::stdout()?, last, u64::MAX);
    if let Some(phase) = phase {
        writer.event(now_ms(), Event::PhaseStarted { phase })?;
    }
    writer.event(now_ms(), Event::result(&outcome))?;
    Ok(entry::status(&outcome))
}

/// Does something unless this task is told to stop first.
async fn unless_told<T>(cancel: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    cancel.run_until_cancelled(work).await
}

/// What of the configuration holds for a plan: here the job decides the limits, not a name. What Nomad has
/// set aside for the task is the build's memory, unless the configuration says otherwise.
fn for_plan(mut config: Config, plan: &Plan) -> Config {
    config.profiles.entry(plan.profile.clone()).or_default();
    let reserved = || memory_of_the_task(|name| std::env::var(name).ok());
    config.limits.memory_mb = config.limits.memory_mb.or_else(reserved);
    if let Some(dir) = std::env::var_os("NOMAD_SECRETS_DIR") {
        let dir = PathBuf::from(dir);
        let named = plan.secrets.iter().map(String::as_str);
        for name in named
            .chain(plan.test_secrets())
            .filter(|name| is_secret(name))
        {
            // What the job's templates have brought, unless the configuration has it elsewhere.
            let path = dir.join(name);
            if !config.secrets.contains_key(name) && !is_credential(&config, name, &path) {
                config.secrets.insert(name.to_owned(), path);
            }
        }
    }
    config
}

/// Whether a file among a task's secrets is its own or one of the runner's: no build gets those, whoever names
/// them.
fn is_credential(config: &Config, name: &str, path: &Path) -> bool {
    /// What Nomad puts there of its own accord.
    const OF_NOMAD: [&str; 3] = ["nomad_", "vault_", "consul_"];
    let git = config.git.credentials.iter();
    let mut files = git.flat_map(|one| [&one.password_file, &one.ssh_key, &one.known_hosts]);
    OF_NOMAD.iter().any(|own| name.starts_with(own))
        || name == "auth.json"
        || config.registry.auth_file.as_deref() == Some(path)
        || files.any(|file| file.as_deref() == Some(path))
}

/// In MiB. The first one is there where memory may be oversubscribed (`memory_max`).
fn memory_of_the_task(env: impl Fn(&str) -> Option<String>) -> Option<u64> {
    ["NOMAD_MEMORY_MAX_LIMIT", "NOMAD_MEMORY_LIMIT"]
        .into_iter()
        .find_map(|name| env(name)?.parse().ok())
        .map(|memory: u64| memory.max(LEAST_MEMORY_MB))
}

fn registry_client(config: &Config) -> io::Result<registry::Client> {
    registry::Client::new(ClientOptions::from(&config.registry)).map_err(io::Error::other)
}

fn registry_auth(config: &Config) -> io::Result<Auth> {
    Auth::from_slice(&credentials::registry(config)?).map_err(io::Error::other)
}

/// Makes a directory that others can pass through, and not write to.
fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o711).create(path)
}

/// The commit point of a build whose record is a Nomad Variable.
struct VariableGate<'a> {
    place: &'a Place,
    id: &'a BuildId,
}

#[async_trait]
impl Gate for VariableGate<'_> {
    async fn commit(&self) -> io::Result<CommitOutcome> {
        let (place, now) = (self.place, now_ms());
        let change =
            |stored: &mut super::stored::Stored| stored.commit(&place.job, &place.allocation, now);
        store::update(&place.nomad, self.id, None, change)
            .await
            .map(|(answer, _)| answer)
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runner_needs_is_no_secret_of_a_build() {
        let config: Config = toml::from_str(
            "[registry]\nauth_file = \"/s/pull\"\n[[git.credentials]]\nurl = \"https://x/\"\npassword_file = \"/s/git-token\"\n",
        )
        .unwrap();
        let is = |name: &str| is_credential(&config, name, &Path::new("/s").join(name));
        for name in [
            "auth.json",
            "pull",
            "git-token",
            "nomad_token",
            "vault_token",
        ] {
            assert!(is(name), "{name}");
        }
        assert!(!is("npm"));
    }

    #[test]
    fn a_build_has_the_memory_of_its_task() {
        let memory = |max: Option<&str>, limit: Option<&str>| {
            memory_of_the_task(|name| {
                let value = if name.contains("MAX") { max } else { limit };
                value.map(str::to_owned)
            })
        };
        assert_eq!(memory(None, Some("1024")), Some(1024));
        assert_eq!(memory(Some("2048"), Some("1024")), Some(2048));
        assert_eq!(memory(None, Some("64")), Some(128));
        assert_eq!(memory(None, None), None);
    }
}

//! `nomad-build runner …`: the parts of a build's job.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;

use crate::backend::local::credentials::secrets_in;
use crate::backend::local::job::Job;
use crate::backend::local::layout::BuildDir;
use crate::backend::local::store::FileGate;
use crate::backend::nomad::task;
use crate::build::conclude::Outcome;
use crate::build::plan::PLAN_VERSION;
use crate::build::{Failure, Kind, Phase, Plan};
use crate::cli::check::limits;
use crate::config::{Config, Given};
use crate::log::Redactor;
use crate::registry::Auth;
use crate::runner::probe::Found;
use crate::runner::process::Bounds;
use crate::runner::workdir::{read_json, write_json};
use crate::runner::{
    Cgroup, Handoff, LogSoFar, Reporter, Settings, WorkDir, attack, collect, enclose, enter, entry,
    exit, phases, probe, publish, sweep, userns,
};

/// See [`Part`].
#[derive(Debug, Args)]
pub struct Runner {
    #[command(subcommand)]
    part: Part,
}

/// The parts.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// The whole job of a build on this machine.
    Job {
        /// Directory of the build.
        #[arg(long)]
        dir: PathBuf,
    },
    /// A task of a build's job on a Nomad cluster.
    Task {
        /// Which.
        #[command(subcommand)]
        task: Task,
        #[command(flatten)]
        given: Given,
    },
    /// Phases source, build and test.
    Build {
        /// What every part gets.
        #[command(flatten)]
        common: Common,
        /// When the build's time is over, in seconds since 1970.
        #[arg(long)]
        deadline: i64,
        /// The snapshot of the sources comes on standard input.
        #[arg(long)]
        context: bool,
        /// How far the log is.
        #[command(flatten)]
        log: LogSoFar,
        /// Directories of the build's cgroup; nothing is started before this process is in them.
        #[arg(long)]
        cgroup: Vec<PathBuf>,
        /// The directory in memory with credentials and secrets, where the build has some.
        #[arg(long)]
        private: Option<PathBuf>,
    },
    /// Phase publish; registry credentials come on standard input.
    Publish {
        /// What every part gets.
        #[command(flatten)]
        common: Common,
        /// Directory of the build, whose record is the gate.
        #[arg(long)]
        gate: PathBuf,
        /// What was tested.
        #[command(flatten)]
        handoff: Handoff,
    },
    /// Around the sandbox: its network, its lifeline.
    Enclose {
        /// Description of what is around the sandbox.
        #[arg(long)]
        spec: PathBuf,
    },
    /// A command in the user namespace of whoever starts it.
    Unshare {
        /// As the first process of a PID namespace, with mounts of its own.
        #[arg(long)]
        first: bool,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Keeps the cache of a user in order; within that user's namespace.
    Sweep {
        /// The cache.
        #[arg(long)]
        cache: PathBuf,
        /// Bytes it may have.
        #[arg(long)]
        limit: u64,
    },
    /// The probe of a host for `nomad-build check`: writes what it found, and keeps nothing.
    Probe {
        /// The operator's settings.
        #[arg(long)]
        settings: PathBuf,
        /// A directory of its own.
        #[arg(long)]
        work: PathBuf,
        /// The cache of its user, which may have the answer of an earlier probe.
        #[arg(long)]
        kept: PathBuf,
        /// Seconds that it may take.
        #[arg(long)]
        seconds: u64,
        /// Where to write what it found.
        #[arg(long)]
        answer: PathBuf,
    },
    /// Prints which limits a build that begins here could not be given, for `nomad-build check`.
    Unenforced,
    /// What the probe of a host runs inside the sandbox.
    Attack {
        /// What to try to reach.
        #[command(flatten)]
        targets: attack::Targets,
    },
    /// Copies what is handed over out of a container; within the sandbox.
    Collect {
        /// What to copy.
        #[command(flatten)]
        asked: collect::Asked,
    },
    /// The way into the sandbox.
    Enter {
        /// Description of what is in the sandbox.
        #[arg(long)]
        spec: PathBuf,
    },
}

/// The tasks of a build's job.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// The prestart task: source, build and test.
    Build,
    /// The main task: publish.
    Publish,
    /// The poststop task: the end and the log.
    Archive,
}

/// What every part gets.
#[derive(Debug, Args)]
pub struct Common {
    /// The plan.
    #[arg(long)]
    plan: PathBuf,
    /// The operator's settings.
    #[arg(long)]
    settings: PathBuf,
    /// The build's work directory.
    #[arg(long)]
    work: PathBuf,
}

impl Common {
    fn read(&self) -> anyhow::Result<(Plan, Settings, WorkDir)> {
        let plan: Plan = read_json(&self.plan)?;
        anyhow::ensure!(
            plan.v <= PLAN_VERSION,
            "the plan is of version {}, of which this program knows nothing: it is older than the server that made it",
            plan.v
        );
        Ok((plan, read_json(&self.settings)?, WorkDir::new(&self.work)))
    }
}

impl Runner {
    /// Runs the part to its end.
    ///
    /// # Errors
    /// When it could not begin.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.part {
            Part::Enclose { spec } => {
                let status = enclose::enclose(&read_json(&spec)?)?;
                Ok(ExitCode::from(status))
            }
            Part::Unshare {
                first: true,
                command,
            } => Ok(ExitCode::from(userns::run_first(&command)?)),
            Part::Unshare { command, .. } => match userns::become_in(&command)? {},
            Part::Sweep { cache, limit } => {
                sweep_cache(&cache, limit)?;
                Ok(ExitCode::SUCCESS)
            }
            Part::Probe {
                settings,
                work,
                kept,
                seconds,
                answer,
            } => {
                let settings = read_json(&settings)?;
                let time = Duration::from_secs(seconds);
                let found = runtime()?.block_on(look(&settings, &work, &kept, time))?;
                write_json(&answer, &found)?;
                Ok(ExitCode::SUCCESS)
            }
            Part::Unenforced => {
                writeln!(io::stdout(), "{}", limits::unenforced()?.join(" "))?;
                Ok(ExitCode::SUCCESS)
            }
            Part::Attack { targets } => {
                attack::attack(&targets)?;
                Ok(ExitCode::SUCCESS)
            }
            Part::Collect { asked } => {
                collect::collect(&asked)?;
                Ok(ExitCode::SUCCESS)
            }
            Part::Enter { spec } => {
                let contents: enclose::Contents = read_json(&spec)?;
                match enter::enter(&contents.inside)? {}
            }
            Part::Job { dir } => runtime()?.block_on(async {
                let job = Job::open(&dir)?;
                job.run().await?;
                Ok(ExitCode::SUCCESS)
            }),
            Part::Task { task, given } => {
                let config = Config::load(&given)?;
                let status = runtime()?.block_on(async {
                    match task {
                        Task::Build => task::build::run(config).await,
                        Task::Publish => task::publish::run(config).await,
                        Task::Archive => task::archive::run(config).await,
                    }
                })?;
                Ok(ExitCode::from(status))
            }
            Part::Build {
                common,
                deadline,
                context,
                log,
                cgroup,
                private,
            } => {
                let cgroup = Cgroup::at(cgroup);
                cgroup.await_entry()?;
                let input = Input {
                    context,
                    log,
                    private,
                };
                runtime()?.block_on(build(&common, deadline, input, &cgroup))
            }
            Part::Publish {
                common,
                gate,
                handoff,
            } => runtime()?.block_on(publish(&common, gate, &handoff)),
        }
    }
}

/// As a build would find out, within a time.
async fn look(
    settings: &Settings,
    work: &Path,
    kept: &Path,
    time: Duration,
) -> anyhow::Result<Result<Found, Failure>> {
    phases::tie();
    let bounds = Bounds {
        cancel: entry::stop_signal()?,
        deadline: Instant::now() + time,
    };
    let work = WorkDir::new(work);
    work.prepare()?;
    std::fs::create_dir_all(&settings.cache)?;
    let found = probe::look(settings, kept, &work, &bounds).await;
    anyhow::ensure!(!bounds.cancel.is_cancelled(), "it was told to stop");
    Ok(found.map_err(|failure| {
        if Instant::now() < bounds.deadline {
            return failure;
        }
        let message = format!("it did not end within {} seconds", time.as_secs());
        Failure::new(Phase::Source, Kind::SandboxUnavailable, message).with_hint(
            "Look at what keeps this machine busy, and at what Buildah waits for; then try again.",
        )
    }))
}

fn sweep_cache(cache: &Path, limit: u64) -> anyhow::Result<()> {
    // Without an answer of the probe no build has used the cache.
    if let Some(host) = probe::kept(cache) {
        let user = cache.to_owned();
        let bytes = sweep::Sweep { user, limit, host }.run()?;
        tracing::debug!(?bytes, cache = %cache.display(), "swept");
    }
    std::fs::write(cache.join("swept"), b"")?;
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

fn code(outcome: &Outcome) -> ExitCode {
    ExitCode::from(entry::status(outcome))
}

/// What the build's part gets besides.
struct Input {
    context: bool,
    log: LogSoFar,
    private: Option<PathBuf>,
}

async fn build(
    common: &Common,
    deadline: i64,
    input: Input,
    cgroup: &Cgroup,
) -> anyhow::Result<ExitCode> {
    phases::tie();
    let cancel = entry::stop_signal()?;
    let (plan, settings, work) = common.read()?;
    let work = work.with_private(input.private);
    let redactor = Redactor::new(&secrets_in(&work));
    let reporter = Reporter::new(
        entry::stdout()?,
        input.log,
        settings.limits.log_bytes,
        redactor,
    );
    let context = (input.context)
        .then(|| anyhow::Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
        .transpose()?;
    let job = phases::Job {
        plan: &plan,
        settings: &settings,
        work: &work,
        reporter: &reporter,
        bounds: Bounds {
            cancel,
            deadline: phases::deadline(deadline),
        },
        cgroup,
    };
    Ok(match phases::run_build(&job, context).await {
        phases::End::Said(outcome) => code(&outcome),
        phases::End::Again => ExitCode::from(exit::AGAIN),
    })
}

async fn publish(common: &Common, gate: PathBuf, handoff: &Handoff) -> anyhow::Result<ExitCode> {
    phases::tie();
    let cancel = entry::stop_signal()?;
    let (plan, settings, work) = common.read()?;
    let mut auth = Vec::new();
    io::stdin().take(1 << 20).read_to_end(&mut auth)?;
    let auth = Auth::from_slice(&auth);
    let secrets = auth.as_ref().map(Auth::secrets).unwrap_or_default();
    let redactor = Redactor::new(&secrets);
    let reporter = Reporter::new(
        entry::stdout()?,
        handoff.log,
        settings.limits.log_bytes,
        redactor,
    );
    let auth = match auth {
        Ok(auth) => auth,
        Err(error) => return Ok(code(&publish::refuse(&reporter, &error.into()))),
    };
    let gate = FileGate::new(BuildDir::new(gate));
    let publish = publish::Publish {
        plan: &plan,
        settings: &settings,
        work: &work,
        reporter: &reporter,
        handoff,
        auth: &auth,
        gate: &gate,
    };
    let outcome = publish.run(cancel).await;
    Ok(code(&outcome))
}

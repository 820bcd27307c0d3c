//! Where the parts of one build run on this machine: its directory, its cgroup, its user, its
//! credentials. A local job and the tasks of a Nomad job use the same.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};

use crate::build::{Failure, Kind, Plan};
use crate::config::{Config, Profile};
use crate::log::{Event, Progress};
use crate::registry::{Auth, ClientOptions};
use crate::runner::cgroup::{Held, Places};
use crate::runner::limits::{Evidence, explain};
use crate::runner::phases::{deadline, now_seconds};
use crate::runner::settings::{Limits, Settings};
use crate::runner::workdir::write_json;
use crate::runner::{LogSoFar, WorkDir, exit, outputs};

use super::layout::{BuildDir, Layout};
use super::mirror::Mirror;
use super::private::Private;
use super::program::Program;
use super::user::BuildUser;
use super::{credentials, mirror, private, reap, user};

/// Variables of the operator's environment that what talks to the network gets.
const PROXIES: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// A build whose cache was damaged begins anew so often: without its layers, without those of the shared
/// scope, then without base images.
const MAX_HEALED: u32 = 3;
/// How long the runner may go on after its own deadline before it is killed.
const OVERTIME: Duration = Duration::from_secs(60);

/// Where the records of the runner go.
pub trait Output: Send + Sync {
    /// Standard output and standard error of a part.
    ///
    /// # Errors
    /// When they cannot be opened.
    fn open(&self) -> io::Result<(Stdio, Stdio)>;

    /// What the records of the parts that have ended tell.
    ///
    /// # Errors
    /// When they cannot be read.
    fn progress(&self) -> io::Result<Progress>;

    /// Bytes of the log so far.
    ///
    /// # Errors
    /// When they cannot be told.
    fn bytes(&self) -> io::Result<u64>;

    /// Adds an event of the job itself.
    ///
    /// # Errors
    /// When it cannot be written.
    fn append(&self, event: Event) -> io::Result<()>;
}

/// Tells when somebody wants a part to stop.
#[async_trait]
pub trait StopWanted: Send {
    /// Returns when the part is to be told, at each call once more. Never returns without a reason.
    async fn wanted(&mut self);
}

/// How a part of the runner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// With this status.
    Status(i32),
    /// By a signal.
    Killed,
    /// It went on after the build's time was over, and was killed.
    Overtime,
}

impl Part {
    /// Whether it ended with one of the runner's own statuses.
    pub fn is(self, status: u8) -> bool {
        self == Self::Status(i32::from(status))
    }
}

/// See the module.
pub struct Workshop<O> {
    /// The operator's configuration.
    pub config: Config,
    /// What builds of this machine share.
    pub layout: Layout,
    /// The build's own directory.
    pub dir: BuildDir,
    /// The plan.
    pub plan: Plan,
    /// This program as it was when the job began: it may be replaced while the build runs.
    pub program: PathBuf,
    /// Where records go.
    pub output: O,
    /// Made when the build has its place.
    cgroup: Held,
    /// Where users do not share their base images.
    mirror: Option<Mirror>,
    /// Where credentials and secrets are, as long as source and build run.
    private: Option<Private>,
}

impl<O: Output> Workshop<O> {
    /// A workshop in which nothing has been done.
    ///
    /// # Errors
    /// When this program cannot find itself.
    pub fn new(config: Config, dir: BuildDir, plan: Plan, output: O) -> io::Result<Self> {
        Ok(Self {
            layout: Layout::new(&config.state_dir),
            program: std::env::current_exe()?,
            config,
            dir,
            plan,
            output,
            cgroup: Held::default(),
            mirror: None,
            private: None,
        })
    }

    /// When the build's time is over if it begins now, in seconds since 1970.
    pub fn end(&self) -> i64 {
        (now_seconds() + i64::from(self.plan.timeout)).min(self.plan.latest_end())
    }

    /// Runs source, build and test; again where something in the cache was damaged.
    ///
    /// # Errors
    /// When it could not be begun, which is the operator's matter.
    pub async fn build(
        &mut self,
        user: &BuildUser,
        end: i64,
        stop: &mut dyn StopWanted,
    ) -> io::Result<Part> {
        self.make_cgroup(user)?;
        self.mirror = self.start_mirror().await?;
        let mut work = self.prepare(user)?;
        let mut built = self.build_part(user, &work, end, stop).await?;
        for _ in 0..MAX_HEALED {
            if !built.is(exit::AGAIN) {
                break;
            }
            self.let_go_of_secrets();
            reap::remove_files(&self.program, work.root())?;
            work = self.prepare(user)?;
            built = self.build_part(user, &work, end, stop).await?;
        }
        self.mirror = None;
        self.forget_secrets()?;
        if built == Part::Killed
            && let Some(failure) = self.starved(user)?
        {
            self.fail_with(failure);
            return Ok(Part::Status(i32::from(exit::FAILED)));
        }
        Ok(built)
    }

    /// Runs publish of a built and tested image, in a process of its own.
    ///
    /// # Errors
    /// When it could not be begun.
    pub async fn publish(&self, end: i64, stop: &mut dyn StopWanted) -> io::Result<Part> {
        let tested = self.output.progress()?;
        let Some(image) = &tested.image else {
            return Err(io::Error::other("the runner passed and named no image"));
        };
        let auth = credentials::registry(&self.config)?;
        let mut command = self.publish_command(&WorkDir::new(self.dir.work()))?;
        command
            .args(["--image", &image.id])
            .args(self.log(&tested)?.arguments())
            .args(["--deadline", &end.to_string()]);
        self.part(command, Some(auth), None, end, stop).await
    }

    /// Takes what the runner has laid ready into a directory of this process's user; nothing of the build runs any
    /// more. What cannot be taken is told in the log.
    pub fn take_outputs(&self, into: &Path) {
        let ready = self.output.progress().map(|progress| progress.outputs);
        let ready = ready.unwrap_or_else(|error| {
            tracing::error!(%error, "it cannot be told what was handed over");
            Vec::new()
        });
        let from = WorkDir::new(self.dir.work()).outputs();
        for output in ready.iter().filter(|output| output.is_there()) {
            let taken = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(into)
                .and_then(|()| {
                    let (from, to) = (from.join(&output.name), into.join(&output.name));
                    outputs::hand_over(&from, output, &to)
                });
            if let Err(error) = taken {
                tracing::error!(%error, output = output.name, "an output cannot be taken");
                let mut output = output.clone();
                output.lose("it could not be taken out of the build");
                if let Err(error) = self.output.append(Event::Output { output }) {
                    tracing::error!(%error, "the log cannot be written");
                }
            }
        }
    }

    fn log(&self, progress: &Progress) -> io::Result<LogSoFar> {
        Ok(LogSoFar {
            last_line: progress.lines,
            log_bytes: self.output.bytes()?,
        })
    }

    /// A fault of the job becomes the build's failure, where the log has none.
    pub fn fail(&self, error: &io::Error) {
        self.fail_with(
            Failure::new(None, Kind::Internal, error.to_string())
                .with_hint("The operator must look at this server's configuration and logs."),
        );
    }

    fn fail_with(&self, failure: Failure) {
        let outcome = crate::build::conclude::Outcome::Failed(Box::new(failure));
        if let Err(error) = self.output.append(Event::result(&outcome)) {
            tracing::error!(%error, "the log cannot be written");
        }
    }

    /// From now on credentials and secrets are for whoever cleans up.
    pub fn let_go_of_secrets(&mut self) {
        self.private = None;
    }

    /// Neither publish nor anything else needs them any more.
    fn forget_secrets(&mut self) -> io::Result<()> {
        self.let_go_of_secrets();
        private::remove(&self.plan.build_id, &|dir| {
            reap::remove_files(&self.program, dir)
        })
    }

    /// Keeps what base images consist of within its limit.
    pub fn sweep_blobs(&self) {
        let (blobs, limit) = (self.layout.blobs(), self.config.local.cache_mb << 20);
        if blobs.exists()
            && let Err(error) = mirror::sweep(&blobs, limit)
        {
            tracing::warn!(%error, "the blobs of base images could not be swept");
        }
    }

    /// Makes the build's cgroup, and removes those that killed jobs left.
    fn make_cgroup(&mut self, user: &BuildUser) -> io::Result<()> {
        let places = Places::of_this_process();
        places.sweep();
        let limits = self.settings(user)?.limits;
        self.cgroup = Held::make(&places, &self.plan.build_id, &limits);
        write_json(&self.dir.cgroup(), &self.cgroup.cgroup().dirs())
    }

    /// What one user has fetched of base images need not be fetched for another. Without it each fetches.
    async fn start_mirror(&self) -> io::Result<Option<Mirror>> {
        if !user::is_other() {
            return Ok(None);
        }
        let auth = Auth::from_slice(&credentials::registry(&self.config)?);
        let options = ClientOptions::from(&self.config.registry);
        // The runner tells what is wrong with credentials.
        let Ok(auth) = auth else { return Ok(None) };
        let mirror = Mirror::start(options, auth, &self.layout.blobs()).await;
        Ok(mirror
            .inspect_err(|error| tracing::warn!(%error, "there is no mirror of registries"))
            .ok())
    }

    /// Why the runner was killed, where it was for want of memory.
    fn starved(&self, user: &BuildUser) -> io::Result<Option<Failure>> {
        let counted = self.cgroup.cgroup().counters();
        let killed = counted.killed.is_some_and(|count| count > 0);
        let evidence = Evidence {
            counted,
            memory_full: self.cgroup.cgroup().was_full(),
            ..Evidence::default()
        };
        let phase = self.output.progress()?.standing.phase;
        let failure = Failure::new(phase, Kind::OutOfMemory, "the runner was killed");
        let limits = self.settings(user)?.limits;
        Ok(killed.then(|| explain(failure, &evidence, &limits, &self.plan.profile)))
    }

    /// Makes the work directory with everything the runner may have.
    ///
    /// Only when all of it is there is the directory given to the user that builds run as: until
    /// then nobody else can plant a link in it.
    fn prepare(&mut self, user: &BuildUser) -> io::Result<WorkDir> {
        reap::seal(&self.layout, user)?;
        let work = WorkDir::new(self.dir.work());
        fs::DirBuilder::new().mode(0o700).create(work.root())?;
        let settings = self.settings(user)?;
        user.make_dir(&settings.cache)?;
        write_json(&self.dir.settings(), &settings)?;
        for (name, value) in [
            ("settings.json", serde_json::to_value(&settings)?),
            ("plan.json", serde_json::to_value(&self.plan)?),
        ] {
            let path = work.root().join(name);
            write_json(&path, &value)?;
            user.give(&path)?;
        }
        if let Some(ca) = &self.config.registry.ca_file {
            user.make_dir(&work.certs())?;
            credentials::give(user, &work.certs().join("ca.crt"), &fs::read(ca)?)?;
        }
        self.private = self.make_private()?;
        let private = self.private.as_ref().map(|private| private.path().into());
        let work = work.with_private(private);
        credentials::lay_out(&self.config, &self.plan, &work, user, self.mirror.as_ref())?;
        if let Some(private) = &self.private {
            user.give(private.path())?;
        }
        user.give(work.root())?;
        Ok(work)
    }

    /// A directory in memory, where there is anything to put into it.
    fn make_private(&mut self) -> io::Result<Option<Private>> {
        let needed = credentials::are_needed(&self.config, &self.plan);
        if !needed && self.mirror.is_none() {
            return Ok(None);
        }
        let remove = |dir: &Path| reap::remove_files(&self.program, dir);
        match Private::make(&self.plan.build_id, &remove) {
            Ok(private) => Ok(Some(private)),
            Err(error) if needed => Err(error),
            Err(error) => {
                tracing::warn!(%error, "there is no mirror of registries");
                self.mirror = None;
                Ok(None)
            }
        }
    }

    /// What the operator decided for builds that run as this user.
    ///
    /// # Errors
    /// When the build's profile is not there.
    pub fn settings(&self, user: &BuildUser) -> io::Result<Settings> {
        let name = &self.plan.profile;
        let profile = self.config.profile(name);
        let profile =
            profile.ok_or_else(|| io::Error::other(format!("there is no profile {name}")))?;
        Ok(settings(&self.config, &profile, &self.layout, user))
    }

    /// A part of the runner, with its inputs, by this program or its copy.
    fn runner(
        &self,
        program: &Path,
        part: &str,
        plan: &Path,
        settings: &Path,
        work: &WorkDir,
    ) -> io::Result<Command> {
        let (stdout, stderr) = self.output.open()?;
        let mut command = Command::new(program);
        command
            .args(["runner", part, "--plan"])
            .arg(plan)
            .arg("--settings")
            .arg(settings)
            .arg("--work")
            .arg(work.root())
            .stdout(stdout)
            .stderr(stderr)
            .env_clear()
            .env("PATH", crate::runner::sandbox::PATH)
            .env(reap::MARK, self.plan.build_id.as_str())
            .process_group(0);
        if let Ok(level) = std::env::var("NOMAD_BUILD_LOG") {
            command.env("NOMAD_BUILD_LOG", level);
        }
        Ok(command)
    }

    async fn build_part(
        &self,
        user: &BuildUser,
        work: &WorkDir,
        end: i64,
        stop: &mut dyn StopWanted,
    ) -> io::Result<Part> {
        let log = self.log(&self.output.progress()?)?;
        let program = Program::for_user(&self.program, user)?;
        let mut command = self.build_command(&program.path, work, end, log)?;
        user.apply(&mut command);
        let cgroup = Some(&self.cgroup);
        self.part(command, None, cgroup, end, stop).await
    }

    fn build_command(
        &self,
        program: &Path,
        work: &WorkDir,
        end: i64,
        log: LogSoFar,
    ) -> io::Result<Command> {
        let (plan, settings) = (
            work.root().join("plan.json"),
            work.root().join("settings.json"),
        );
        let mut command = self.runner(program, "build", &plan, &settings, work)?;
        command
            .args(["--deadline", &end.to_string()])
            .args(log.arguments());
        for dir in self.cgroup.cgroup().dirs() {
            command.arg("--cgroup").arg(dir);
        }
        if let Some(private) = &self.private {
            command.arg("--private").arg(private.path());
        }
        if self.dir.context().exists() {
            command
                .arg("--context")
                .stdin(File::open(self.dir.context())?);
        } else {
            command.stdin(Stdio::null());
        }
        Ok(command)
    }

    /// Publish holds the credentials: it trusts only what the user that builds run as could not
    /// have changed.
    fn publish_command(&self, work: &WorkDir) -> io::Result<Command> {
        let mut command = self.runner(
            &self.program,
            "publish",
            &self.dir.plan(),
            &self.dir.settings(),
            work,
        )?;
        for name in PROXIES {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
        command
            .arg("--gate")
            .arg(self.dir.root())
            .stdin(Stdio::piped());
        Ok(command)
    }

    /// Runs one part, in the cgroup if there is one for it; passes a wish to stop on to it.
    async fn part(
        &self,
        mut command: Command,
        input: Option<Vec<u8>>,
        cgroup: Option<&Held>,
        end: i64,
        stop: &mut dyn StopWanted,
    ) -> io::Result<Part> {
        let mut child = command.spawn()?;
        // This process's copy of the other end of a pipe would keep it open.
        drop(command);
        if let Err(error) = cgroup.map_or(Ok(()), |cgroup| cgroup.join(child.id())) {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
        if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
            pipe.write_all(&bytes)?;
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let tell = |what: Signal| {
            if let Some(pid) = pid {
                let _ = kill_process(pid, what);
            }
        };
        let mut done = tokio::task::spawn_blocking(move || child.wait());
        let last = deadline(end) + OVERTIME;
        let status = loop {
            tokio::select! {
                status = &mut done => break status.map_err(io::Error::other)??,
                () = stop.wanted() => tell(Signal::TERM),
                () = tokio::time::sleep_until(last) => {
                    tracing::error!("the runner did not end at its deadline");
                    tell(Signal::KILL);
                    let _ = (&mut done).await;
                    return Ok(Part::Overtime);
                }
            }
        };
        Ok(status.code().map_or(Part::Killed, Part::Status))
    }
}

/// What the operator decided for builds of a profile that run as this user.
pub fn settings(config: &Config, profile: &Profile, layout: &Layout, user: &BuildUser) -> Settings {
    let (limits, sandbox) = (&profile.limits, &config.sandbox);
    Settings {
        buildah: config.buildah.clone(),
        cache: layout.cache(&user.name),
        insecure: config.registry.insecure.clone(),
        ca_file: config.registry.ca_file.clone(),
        git_allow_http: config.git.allow_http,
        isolation: sandbox.isolation,
        network: profile.network,
        closed: sandbox.denied(),
        no_new_privileges: sandbox.no_new_privileges,
        limits: Limits {
            log_bytes: limits.log_mb << 20,
            context_bytes: limits.context_mb << 20,
            context_entries: limits.context_entries,
            processes: limits.processes,
            memory_bytes: limits.memory_mb.map(|size| size << 20),
            cpus: limits.cpus,
            disk_bytes: limits.disk_mb << 20,
            files: limits.files,
            file_bytes: limits.file_mb << 20,
            outputs_bytes: limits.outputs_mb << 20,
        },
        environment: PROXIES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect(),
    }
}

//! The job of one build on this machine: waits for a slot and a user, runs the runner's parts,
//! writes the end.
//!
//! It is a process of its own in its own session, so it outlives the server. Its standard input is
//! the lock that tells others it lives. It reads the record for the mark of a cancellation and
//! passes it on to the runner as SIGTERM; what the end means is decided from all the evidence.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::build::conclude::Gone;
use crate::build::{Failure, Kind, Plan, Record};
use crate::config::Config;
use crate::registry::{Auth, ClientOptions};
use crate::runner::cgroup::{Held, Places};
use crate::runner::limits::{Evidence, explain};
use crate::runner::phases::{deadline, now_seconds};
use crate::runner::reporter::now_ms;
use crate::runner::settings::{Limits, Settings};
use crate::runner::workdir::{read_json, write_json};
use crate::runner::{WorkDir, exit};

use super::conclude;
use super::layout::{BuildDir, Layout};
use super::mirror::Mirror;
use super::queue::Place;
use super::user::{BuildUser, Lease, Users};
use super::watch::DirWatch;
use super::{credentials, mirror, queue, reap, store, sweep, user};

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
/// How often the job looks when no event comes (a slot whose holder died, and a user that another state
/// directory's build gives back, tell nobody).
const TICK: Duration = Duration::from_millis(500);
/// A build whose cache was damaged begins anew so often: without its layers, without those of the shared
/// scope, then without base images.
const MAX_HEALED: u32 = 3;
/// How long the runner may go on after its own deadline before it is killed.
const OVERTIME: Duration = Duration::from_secs(60);

/// The job of the build in `dir`.
pub struct Job {
    config: Config,
    layout: Layout,
    dir: BuildDir,
    plan: Plan,
    record: Record,
    /// Made when it has its slot.
    cgroup: Held,
    /// Where users do not share their base images.
    mirror: Option<Mirror>,
    /// This program as it was when the job began: it may be replaced while the build runs.
    program: PathBuf,
}

/// How a part of the runner ended.
enum Part {
    /// With this status.
    Status(i32),
    /// By a signal.
    Killed,
    /// It went on after the build's time was over, and was killed.
    Overtime,
}

/// How the waiting ended.
enum Turn {
    /// With a slot and a user.
    Place(Place),
    /// By the mark of a cancellation.
    Cancelled,
    /// The time in the queue was over.
    TimedOut,
    /// Somebody stopped this job; whoever looks at the build next starts another.
    Stopped,
}

impl Job {
    /// Reads what the build is.
    ///
    /// # Errors
    /// When something of it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let dir = BuildDir::new(dir);
        let config: Config = read_json(&dir.config())?;
        Ok(Self {
            layout: Layout::new(&config.state_dir),
            plan: read_json(&dir.plan())?,
            record: store::read(&dir)?,
            program: std::env::current_exe()?,
            config,
            dir,
            cgroup: Held::default(),
            mirror: None,
        })
    }

    /// Runs the build to its end.
    ///
    /// # Errors
    /// When the end could not be written; whoever looks at the build next writes it then.
    pub async fn run(mut self) -> io::Result<()> {
        super::scope::enter(&self.record.id);
        let mut watch = DirWatch::new(&[self.dir.root(), &self.layout.queue()]);
        let mut terminate = signal(SignalKind::terminate())?;
        let (id, submitted) = (self.record.id.clone(), self.record.submitted);
        queue::enter(&self.layout, submitted, &id)?;
        let turn = self.wait(&mut watch, &mut terminate).await;
        queue::leave(&self.layout, submitted, &id);
        let mut place = None;
        let gone = match turn {
            Ok(Turn::Place(taken)) => {
                let place = &*place.insert(taken);
                let user = &place.lease.user;
                match self.run_as(user, &mut watch, &mut terminate).await {
                    Ok(Some(gone)) => gone,
                    // Another job has the build: nothing of it is this one's to touch.
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        tracing::error!(%error, "the job failed");
                        self.fail(&error);
                        Gone::Exited
                    }
                }
            }
            Ok(Turn::Stopped) => return Ok(()),
            Ok(Turn::Cancelled) => Gone::Exited,
            Ok(Turn::TimedOut) => Gone::QueueTimedOut,
            Err(error) => {
                self.fail(&error);
                Gone::Exited
            }
        };
        let lease = place.as_ref().map(|place| &place.lease);
        self.clean_up(lease).await;
        let written = conclude::write_end(&self.dir, gone);
        // Nobody waits for the rest, but no other build may run as this user meanwhile.
        if let Some(lease) = lease {
            let cache = self.layout.cache(&lease.user.name);
            let (config, user) = (&self.config, &lease.user);
            tokio::task::block_in_place(|| {
                sweep::sweep(&cache, config, user, &self.program);
                self.sweep_blobs();
            });
        }
        drop(place);
        queue::announce(&self.layout);
        written
    }

    async fn wait(
        &mut self,
        watch: &mut DirWatch,
        terminate: &mut tokio::signal::unix::Signal,
    ) -> io::Result<Turn> {
        let gives_up = deadline(self.plan.submitted + i64::from(self.plan.queue_timeout));
        let users = Users::open(&self.config)?;
        let mut told = None;
        loop {
            if store::read(&self.dir)?.cancel.is_some() {
                return Ok(Turn::Cancelled);
            }
            let (slots, submitted, id) = (
                self.config.local.slots,
                self.record.submitted,
                &self.record.id,
            );
            match queue::take(
                &self.layout,
                slots,
                &users,
                submitted,
                id,
                &self.plan.scopes,
            )? {
                Ok(place) => return Ok(Turn::Place(place)),
                Err(missing) if told == Some(missing) => {}
                Err(missing) => {
                    queue::tell(&self.layout, submitted, id, missing);
                    told = Some(missing);
                }
            }
            if Instant::now() >= gives_up {
                return Ok(Turn::TimedOut);
            }
            tokio::select! {
                () = watch.changed() => {}
                () = tokio::time::sleep(TICK) => {}
                () = tokio::time::sleep_until(gives_up) => {}
                _ = terminate.recv() => return Ok(Turn::Stopped),
            }
        }
    }

    async fn run_as(
        &mut self,
        user: &BuildUser,
        watch: &mut DirWatch,
        terminate: &mut tokio::signal::unix::Signal,
    ) -> io::Result<Option<Gone>> {
        let (claimed, record) = store::update(&self.dir, |record| record.claim(now_ms()))?;
        self.record = record;
        if !claimed {
            let mine = self.record.began.is_none() && self.record.end.is_none();
            return Ok(mine.then_some(Gone::Exited));
        }
        self.make_cgroup(user)?;
        self.mirror = self.start_mirror().await?;
        let end = (now_seconds() + i64::from(self.plan.timeout)).min(self.plan.latest_end());
        let mut work = self.prepare(user)?;
        let mut built = self.build_part(user, &work, end, watch, terminate).await?;
        for _ in 0..MAX_HEALED {
            if !matches!(built, Part::Status(status) if status == i32::from(exit::AGAIN)) {
                break;
            }
            reap::remove_files(&self.program, &work)?;
            work = self.prepare(user)?;
            built = self.build_part(user, &work, end, watch, terminate).await?;
        }
        self.mirror = None;
        if matches!(built, Part::Killed)
            && let Some(failure) = self.starved(user)?
        {
            self.write_failure(failure);
            return Ok(Some(Gone::Exited));
        }
        if !matches!(built, Part::Status(status) if status == i32::from(exit::PASSED))
            || self.plan.tags.is_empty()
        {
            return self.gone(&built).map(Some);
        }
        let tested = conclude::progress(&self.dir)?;
        let Some(image) = tested.image else {
            return Err(io::Error::other("the runner passed and named no image"));
        };
        let auth = credentials::registry(&self.config)?;
        let mut command = self.publish_command(&work)?;
        command
            .args(["--image", &image.id])
            .args(["--last-line", &tested.lines.to_string()])
            .args(["--deadline", &end.to_string()]);
        let published = self
            .part(command, Some(auth), None, end, watch, terminate)
            .await?;
        self.gone(&published).map(Some)
    }

    /// What the end of a part means; a runner that could not even begin is this server's fault.
    fn gone(&self, part: &Part) -> io::Result<Gone> {
        let said = [
            exit::PASSED,
            exit::FAILED,
            exit::TIMED_OUT,
            exit::INTERRUPTED,
        ];
        match part {
            Part::Status(status) if said.iter().any(|code| i32::from(*code) == *status) => {
                Ok(Gone::Exited)
            }
            Part::Status(status) => Err(io::Error::other(format!(
                "the runner ended with status {status} before it could report; see {}",
                self.dir.runner_log().display()
            ))),
            Part::Killed => Ok(Gone::Vanished),
            Part::Overtime => Ok(Gone::Overtime),
        }
    }

    /// Makes the build's cgroup, and removes those that killed jobs left.
    fn make_cgroup(&mut self, user: &BuildUser) -> io::Result<()> {
        let places = Places::of_this_process();
        places.sweep();
        self.cgroup = Held::make(&places, &self.record.id, &self.settings(user)?.limits);
        write_json(&self.dir.cgroup(), &self.cgroup.cgroup().dirs())
    }

    /// What one user has fetched of base images need not be fetched for another. Without it each fetches.
    async fn start_mirror(&self) -> io::Result<Option<Mirror>> {
        if !user::is_other() {
            return Ok(None);
        }
        let auth = Auth::from_slice(&credentials::registry(&self.config)?);
        let registry = &self.config.registry;
        let options = ClientOptions {
            insecure: registry.insecure.clone(),
            ca_file: registry.ca_file.clone(),
            ..ClientOptions::default()
        };
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
        let phase = conclude::progress(&self.dir)?.standing.phase;
        let failure = Failure::new(phase, Kind::OutOfMemory, "the runner was killed");
        let limits = self.settings(user)?.limits;
        Ok(killed.then(|| explain(failure, &evidence, &limits, &self.plan.profile)))
    }

    /// Makes the work directory with everything the runner may have.
    ///
    /// Only when all of it is there is the directory given to the user that builds run as: until
    /// then nobody else can plant a link in it.
    fn prepare(&self, user: &BuildUser) -> io::Result<WorkDir> {
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
        credentials::lay_out(&self.config, &self.plan, &work, user, self.mirror.as_ref())?;
        user.give(work.root())?;
        Ok(work)
    }

    fn settings(&self, user: &BuildUser) -> io::Result<Settings> {
        let name = &self.plan.profile;
        let profile = self.config.profile(name);
        let profile =
            profile.ok_or_else(|| io::Error::other(format!("there is no profile {name}")))?;
        let (limits, sandbox) = (profile.limits, &self.config.sandbox);
        Ok(Settings {
            buildah: self.config.buildah.clone(),
            cache: self.layout.cache(&user.name),
            insecure: self.config.registry.insecure.clone(),
            ca_file: self.config.registry.ca_file.clone(),
            git_allow_http: self.config.git.allow_http,
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
            },
            environment: PROXIES
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
                .collect(),
        })
    }

    /// A part of the runner, with its inputs.
    fn runner(
        &self,
        part: &str,
        plan: &Path,
        settings: &Path,
        work: &WorkDir,
    ) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(["runner", part, "--plan"])
            .arg(plan)
            .arg("--settings")
            .arg(settings)
            .arg("--work")
            .arg(work.root())
            .stdout(store::append(&self.dir.log())?)
            .stderr(store::append(&self.dir.runner_log())?)
            .env_clear()
            .env("PATH", crate::runner::sandbox::PATH)
            .env(reap::MARK, self.record.id.as_str())
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
        watch: &mut DirWatch,
        terminate: &mut tokio::signal::unix::Signal,
    ) -> io::Result<Part> {
        let last = conclude::progress(&self.dir)?.lines;
        let mut command = self.build_command(work, end, last)?;
        user.apply(&mut command);
        let cgroup = Some(&self.cgroup);
        self.part(command, None, cgroup, end, watch, terminate)
            .await
    }

    fn build_command(&self, work: &WorkDir, end: i64, last: u64) -> io::Result<Command> {
        let (plan, settings) = (
            work.root().join("plan.json"),
            work.root().join("settings.json"),
        );
        let mut command = self.runner("build", &plan, &settings, work)?;
        command
            .args(["--deadline", &end.to_string()])
            .args(["--last-line", &last.to_string()]);
        for dir in self.cgroup.cgroup().dirs() {
            command.arg("--cgroup").arg(dir);
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
        let mut command = self.runner("publish", &self.dir.plan(), &self.dir.settings(), work)?;
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

    /// Runs one part, in the cgroup if there is one for it; passes a stop on to it.
    async fn part(
        &self,
        mut command: Command,
        input: Option<Vec<u8>>,
        cgroup: Option<&Held>,
        end: i64,
        watch: &mut DirWatch,
        terminate: &mut tokio::signal::unix::Signal,
    ) -> io::Result<Part> {
        let mut child = command.spawn()?;
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
        let mut told = false;
        let status = loop {
            if !told && store::read(&self.dir).is_ok_and(|record| record.cancel.is_some()) {
                told = true;
                tell(Signal::TERM);
            }
            tokio::select! {
                status = &mut done => break status.map_err(io::Error::other)??,
                () = watch.changed() => {}
                () = tokio::time::sleep(TICK * 4) => {}
                _ = terminate.recv() => { told = true; tell(Signal::TERM); }
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

    /// A fault of this job becomes the build's failure, where the log has none.
    fn fail(&self, error: &io::Error) {
        self.write_failure(
            Failure::new(None, Kind::Internal, error.to_string())
                .with_hint("The operator must look at this server's configuration and logs."),
        );
    }

    fn write_failure(&self, failure: Failure) {
        use crate::log::{Event, RecordWriter};
        let outcome = crate::build::conclude::Outcome::Failed(Box::new(failure));
        let written = store::append(&self.dir.log()).and_then(|log| {
            let last = crate::log::LogReader::open(&self.dir.log())?
                .map_or(Ok(0), |mut log| log.last_number())?;
            RecordWriter::new(log, last, u64::MAX).event(now_ms(), Event::result(&outcome))
        });
        if let Err(error) = written {
            tracing::error!(%error, "the log cannot be written");
        }
    }

    fn sweep_blobs(&self) {
        let (blobs, limit) = (self.layout.blobs(), self.config.local.cache_mb << 20);
        if blobs.exists()
            && let Err(error) = mirror::sweep(&blobs, limit)
        {
            tracing::warn!(%error, "the blobs of base images could not be swept");
        }
    }

    /// Leaves nothing behind: no process, no storage, no snapshot.
    async fn clean_up(&self, lease: Option<&Lease>) {
        reap::reap(&self.record.id).await;
        if let Some(Err(error)) = lease.map(Lease::clear) {
            tracing::error!(%error, "something of the build runs on");
        }
        if let Err(error) = reap::remove_work(&self.program, &self.dir) {
            tracing::error!(%error, "the work directory cannot be removed");
        }
    }
}

//! Builds on this machine: one directory a build, one detached job each.
//!
//! Several servers may look at the same builds: whoever looks first at a build whose job is gone
//! writes its end, or starts the job that a dying server could not start any more.

pub mod accounts;
pub mod claims;
pub mod conclude;
pub mod credentials;
mod depot;
mod ended;
pub mod evict;
pub mod job;
pub mod layout;
pub mod mirror;
pub mod private;
pub mod program;
pub mod queue;
pub mod reap;
pub mod retention;
pub mod scope;
pub mod store;
pub mod sweep;
pub mod user;
pub mod watch;
pub mod workshop;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::build::conclude::Gone;
use crate::build::output::OutputStatus;
use crate::build::record::{CancelMark, CancelOutcome};
use crate::build::status::QueueStatus;
use crate::build::{BuildId, Record};
use crate::config::Live;
use crate::log::{LogReader, Progress, Query, Selection};
use crate::runner::probe;
use crate::runner::reporter::now_ms;
use crate::runner::workdir::{read_json, write_json};

use super::{
    Backend, BackendError, Changes, Dependency, Depot, Health, Standing, Submission, Submitted,
    View,
};
use depot::LocalDepot;
use ended::Ended;
use layout::{BuildDir, Layout};
use queue::{Missing, Ticket};
use user::Users;

/// How often a waiting call looks when no event comes.
const TICK: Duration = Duration::from_secs(1);
/// How often a server looks after builds whose jobs have died (the kernel tells nobody that a lock is free).
const ROUND: Duration = Duration::from_secs(5);
/// A job that dies before it begins is started again so often.
const MAX_STARTS: u32 = 3;
/// Events closer together than this are taken together.
const COALESCE: Duration = Duration::from_millis(10);

/// What a server knows of the builds that it looks after.
#[derive(Debug, Default)]
struct Seen {
    /// There is nothing to do any more.
    done: HashSet<BuildId>,
    /// Something is wrong with them, which was told.
    told: HashSet<BuildId>,
}

/// Builds on this machine.
#[derive(Debug)]
pub struct LocalBackend {
    config: Live,
    layout: Layout,
    staging: PathBuf,
    program: PathBuf,
    users: Users,
    depot: LocalDepot,
    /// Records of builds that have ended.
    ended: Ended,
    /// How far each log was read.
    followed: Mutex<HashMap<BuildId, (u64, Progress)>>,
}

impl LocalBackend {
    /// Opens the state directory; makes it when it is missing.
    ///
    /// # Errors
    /// When it cannot be used, or there is nobody for builds to run as.
    pub fn open(live: impl Into<Live>) -> io::Result<Self> {
        let live = live.into();
        let config = live.now();
        let layout = Layout::new(&config.state_dir);
        layout.prepare().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "the state directory {} cannot be used: {error}",
                    config.state_dir.display()
                ),
            )
        })?;
        let users = Users::open(&config)?;
        users.check_way(&config.state_dir)?;
        for profile in config.profiles() {
            let missing = |name: &&String| !config.secrets.contains_key(*name);
            if let Some(name) = profile.secrets.iter().find(missing) {
                return Err(io::Error::other(format!(
                    "profiles.{}.secrets: {name:?} is not in [secrets], which says where it is on this machine",
                    profile.name
                )));
            }
        }
        Ok(Self {
            depot: LocalDepot::open(layout.uploads())?,
            staging: layout.staging(),
            program: std::env::current_exe()?,
            layout,
            users,
            config: live,
            ended: Ended::default(),
            followed: Mutex::default(),
        })
    }

    /// The same with another program for the jobs: for those who embed this library.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Looks after everything that dead servers and jobs have left and will leave: nobody need ask
    /// for a build for that. Goes on until it is dropped.
    pub async fn look_after(&self) {
        let mut seen = Seen::default();
        tokio::task::block_in_place(|| {
            self.tend_all(&mut seen);
            if let Err(error) = private::sweep(&|dir| reap::remove_files(&self.program, dir)) {
                tracing::error!(%error, "credentials or secrets of dead jobs remain");
            }
            let config = self.config.now();
            retention::sweep(&self.layout, &config, &self.program, now_ms());
            sweep::sweep_idle(&self.layout, &config, &self.users, &self.program);
        });
        loop {
            tokio::time::sleep(ROUND).await;
            tokio::task::block_in_place(|| self.tend_all(&mut seen));
        }
    }

    /// Tends every build but those with which there is nothing to do any more.
    fn tend_all(&self, seen: &mut Seen) {
        let ids = self.ids().unwrap_or_else(|error| {
            tracing::error!(%error, "the builds cannot be looked after");
            HashSet::new()
        });
        seen.done.retain(|id| ids.contains(id));
        seen.told.retain(|id| ids.contains(id));
        for id in ids {
            if seen.done.contains(&id) {
                continue;
            }
            let dir = self.layout.build(&id);
            match self.tend_one(&id, &dir) {
                Ok(true) => _ = seen.done.insert(id),
                Ok(false) => _ = seen.told.remove(&id),
                // It was removed meanwhile.
                Err(_) if !dir.record().exists() => {}
                Err(error) => {
                    if seen.told.insert(id.clone()) {
                        tracing::error!(%error, build = %id, "a build cannot be looked after");
                    }
                }
            }
        }
    }

    /// Whether there is nothing to do any more.
    fn tend_one(&self, id: &BuildId, dir: &BuildDir) -> io::Result<bool> {
        if store::read(dir)?.end.is_some() {
            return retention::remove_rest(&self.program, dir, id);
        }
        self.tend(dir).map(|()| false)
    }

    fn ids(&self) -> io::Result<HashSet<BuildId>> {
        let mut ids = HashSet::new();
        for entry in fs::read_dir(self.layout.builds())? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<BuildId>().ok()));
        }
        Ok(ids)
    }

    fn dir(&self, id: &BuildId) -> Result<BuildDir, BackendError> {
        let dir = self.layout.build(id);
        if dir.record().exists() {
            Ok(dir)
        } else {
            Err(BackendError::NotFound(id.clone()))
        }
    }

    /// Starts the job with the lock in its hands.
    fn start(&self, dir: &BuildDir, lock: File) -> io::Result<()> {
        let log = store::append(&dir.runner_log())?;
        // A session of its own from the first moment: what ends this server's group or terminal must
        // not reach it. setsid(1) forks because it leads a group, and the job is nobody's child.
        let mut child = Command::new("setsid")
            .arg("--fork")
            .arg(&self.program)
            .args(["runner", "job", "--dir"])
            .arg(dir.root())
            .process_group(0)
            .stdin(lock)
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir("/")
            .spawn()?;
        let status = child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "the job cannot be started: setsid ended with {status}"
            )))
        }
    }

    fn accept(&self, submission: &Submission) -> io::Result<Submitted> {
        let record = &submission.record;
        let _guard = claims::guard(&self.layout)?;
        let now = now_ms();
        if let Some(id) = claims::holder(&self.layout, &submission.claims, now)? {
            // A retry token that came with a repetition is remembered, too.
            if store::read(&self.layout.build(&id))?.request_digest == record.request_digest {
                claims::write(&self.layout, &submission.claims, &id, now)?;
            }
            return Ok(Submitted::Held(id));
        }
        let staged = self.staging.join(format!("build-{}", record.id));
        fs::DirBuilder::new().create(&staged)?;
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o711))?;
        let dir = BuildDir::new(&staged);
        write_json(&dir.plan(), &submission.plan)?;
        write_json(&dir.request(), &submission.request)?;
        let config = (submission.config.clone()).unwrap_or_else(|| self.config.now());
        write_json(&dir.config(), &*config)?;
        if let Some(snapshot) = &submission.snapshot {
            fs::rename(snapshot.path(), dir.context())?;
        }
        store::replace(
            &dir.record(),
            &serde_json::to_vec(record).map_err(io::Error::other)?,
        )?;
        let lock = store::lock(&dir.job_lock())?;
        claims::write(&self.layout, &submission.claims, &record.id, now)?;
        queue::enter(&self.layout, &Ticket::of(record))?;
        let dir = self.layout.build(&record.id);
        sync(&staged)?;
        fs::rename(&staged, dir.root())?;
        File::open(self.layout.builds())?.sync_all()?;
        self.start(&dir, lock)?;
        Ok(Submitted::Accepted)
    }

    /// Looks after a build whose job is gone: starts it if it never began, else writes its end.
    fn tend(&self, dir: &BuildDir) -> io::Result<()> {
        let Some(lock) = store::try_lock(&dir.job_lock())? else {
            return Ok(());
        };
        let record = store::read(dir)?;
        if record.end.is_some() {
            return Ok(());
        }
        let waits = record.began.is_none() && record.cancel.is_none();
        let in_time = now_ms() / 1000 < record.submitted / 1000 + i64::from(record.queue_timeout);
        if waits && in_time && record.starts < MAX_STARTS {
            store::update(dir, |record| record.starts += 1)?;
            queue::enter(&self.layout, &Ticket::of(&record))?;
            return self.start(dir, lock);
        }
        let gone = match (waits, in_time) {
            (true, true) => Gone::NeverBegan,
            (true, false) => Gone::QueueTimedOut,
            (false, _) => Gone::Vanished,
        };
        queue::leave(&self.layout, &Ticket::of(&record));
        let (config, dir) = (self.config.now(), dir.clone());
        let (layout, users, program) = (
            self.layout.clone(),
            self.users.clone(),
            self.program.clone(),
        );
        tokio::spawn(async move {
            reap::reap(&record.id).await;
            if let Err(error) =
                tokio::task::block_in_place(|| reap::remove_work(&program, &dir, &record.id))
            {
                tracing::error!(%error, build = %record.id, "the work directory of a lost build cannot be removed");
            }
            if let Err(error) = conclude::write_end(&dir, gone) {
                tracing::error!(%error, build = %record.id, "the end of a lost build cannot be written");
            }
            drop(lock);
            tokio::task::block_in_place(|| sweep::sweep_idle(&layout, &config, &users, &program));
        });
        Ok(())
    }

    fn progress(&self, id: &BuildId, dir: &BuildDir) -> io::Result<Progress> {
        let (offset, mut progress) = self
            .with_followed(|all| all.get(id).cloned())
            .unwrap_or_default();
        let Some(log) = LogReader::open(&dir.log())? else {
            return Ok(progress);
        };
        let reached = log.tell(offset, &mut progress)?;
        self.with_followed(|all| {
            let entry = all.entry(id.clone()).or_default();
            if reached >= entry.0 {
                *entry = (reached, progress.clone());
            }
        });
        Ok(progress)
    }

    fn with_followed<R>(&self, f: impl FnOnce(&mut HashMap<BuildId, (u64, Progress)>) -> R) -> R {
        f(&mut self.followed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn view(&self, record: Record, dir: &BuildDir) -> io::Result<View> {
        if record.end.is_some() {
            self.with_followed(|all| all.remove(&record.id));
            return Ok(ended(record));
        }
        let progress = self.progress(&record.id, dir)?;
        let queue = record
            .began
            .is_none()
            .then(|| self.queue_status(&record))
            .transpose()?;
        Ok(View {
            record,
            progress,
            queue,
            log_missing: None,
        })
    }

    fn queue_status(&self, record: &Record) -> io::Result<QueueStatus> {
        let ticket = Ticket::of(record);
        let slots = self.config.now().local.slots;
        let ahead = queue::before(&self.layout, slots, &ticket)?;
        let waited = u64::try_from((now_ms() - record.submitted) / 1000).unwrap_or(0);
        let taken = |what: String| {
            format!("all {what} of this machine are taken, {ahead} builds wait before this one")
        };
        let (code, reason) = match queue::missing(&self.layout, &ticket) {
            None if ahead == 0 => ("starting", "its job is starting".to_owned()),
            Some(Missing::User) => {
                let users = format!("{} build users", self.users.count());
                (Missing::User.code(), taken(users))
            }
            Some(Missing::Layers) => {
                let reason = "the build user that has its layers is being tidied up".to_owned();
                (Missing::Layers.code(), reason)
            }
            _ => (Missing::Slot.code(), taken(format!("{slots} slots"))),
        };
        Ok(QueueStatus {
            position: u32::try_from(ahead + 1).ok(),
            code: code.into(),
            reason,
            seconds: waited,
            gives_up_in_seconds: u64::from(record.queue_timeout).saturating_sub(waited),
        })
    }

    fn look_now(&self, id: &BuildId) -> Result<View, BackendError> {
        let dir = self.dir(id)?;
        let mut record = self.ended.read(&dir)?;
        if record.end.is_none() {
            self.tend(&dir)?;
            record = self.ended.read(&dir)?;
        }
        Ok(self.view(record, &dir)?)
    }

    /// Whether the state directory can be written, and passed by those that builds run as.
    fn use_state(&self) -> io::Result<()> {
        self.layout.prepare()?;
        let probe = self.staging.join(format!(".health-{}", std::process::id()));
        let _held = store::lock(&probe)?;
        fs::remove_file(&probe)?;
        self.users.check_way(self.layout.root())
    }

    fn look_at_each(&self, ids: &[BuildId]) -> Vec<View> {
        let mut views = Vec::new();
        for id in ids {
            match self.look_now(id) {
                Ok(view) => views.push(view),
                Err(BackendError::NotFound(_)) => {}
                Err(error) => tracing::error!(%error, build = %id, "a build cannot be read"),
            }
        }
        views
    }

    /// A build that was seen at its end: it costs no more than a look whether its file is the same.
    fn look_back(&self, id: &BuildId) -> Option<View> {
        self.ended.known(id, &self.layout.build(id)).map(ended)
    }
}

/// The view of a build whose record says how it ended.
fn ended(record: Record) -> View {
    View {
        record,
        progress: Progress::default(),
        queue: None,
        log_missing: None,
    }
}

/// Brings a directory and the files in it to the disk.
fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(dir)?.sync_all()
}

#[async_trait]
impl Backend for LocalBackend {
    fn staging(&self) -> &Path {
        &self.staging
    }

    async fn submit(&self, submission: Submission) -> Result<Submitted, BackendError> {
        let submitted = tokio::task::block_in_place(|| self.accept(&submission))?;
        let (layout, config) = (self.layout.clone(), self.config.now());
        let program = self.program.clone();
        tokio::task::spawn_blocking(move || retention::sweep(&layout, &config, &program, now_ms()));
        Ok(submitted)
    }

    fn depot(&self) -> Option<&dyn Depot> {
        Some(&self.depot)
    }

    async fn owner(&self, id: &BuildId, _: Option<&str>) -> Result<String, BackendError> {
        match self.look_back(id) {
            Some(view) => Ok(view.record.principal),
            None => Ok(store::read(&self.dir(id)?)?.principal),
        }
    }

    async fn look(&self, id: &BuildId) -> Result<View, BackendError> {
        if let Some(view) = self.look_back(id) {
            return Ok(view);
        }
        tokio::task::block_in_place(|| self.look_now(id))
    }

    fn watch(&self, id: &BuildId) -> Box<dyn Changes> {
        Box::new(LocalChanges {
            watch: watch::DirWatch::new(&[self.layout.build(id).root()]),
        })
    }

    async fn read_log(&self, id: &BuildId, query: Query) -> Result<Selection, BackendError> {
        let log = self.dir(id)?.log();
        let read = move || match LogReader::open(&log)? {
            Some(log) => query.run(&log),
            None => Ok(Selection::default()),
        };
        Ok(tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)??)
    }

    fn keeps_outputs(&self) -> bool {
        true
    }

    async fn output(
        &self,
        id: &BuildId,
        output: &OutputStatus,
    ) -> Result<Option<PathBuf>, BackendError> {
        let path = self.dir(id)?.outputs().join(&output.name);
        Ok(path.is_file().then_some(path))
    }

    async fn cancel(&self, id: &BuildId, mark: CancelMark) -> Result<CancelOutcome, BackendError> {
        let dir = self.dir(id)?;
        let (outcome, _) = store::update(&dir, |record| record.request_cancel(mark))?;
        self.tend(&dir)?;
        Ok(outcome)
    }

    async fn list(&self) -> Result<Vec<View>, BackendError> {
        let ids = self.ids()?;
        self.ended.forget_but(&ids);
        let mut views = Vec::new();
        let mut others = Vec::new();
        for id in ids {
            match self.look_back(&id) {
                Some(view) => views.push(view),
                None => others.push(id),
            }
        }
        // To hand this thread's other work to another one costs more than what is read above.
        if !others.is_empty() {
            views.extend(tokio::task::block_in_place(|| self.look_at_each(&others)));
        }
        views.sort_by_key(|view| std::cmp::Reverse(view.record.submitted));
        Ok(views)
    }

    async fn request(&self, id: &BuildId) -> Result<serde_json::Value, BackendError> {
        Ok(read_json(&self.dir(id)?.request())?)
    }

    fn capacity(&self) -> String {
        format!(
            "{} builds run at the same time, others wait",
            self.config.now().local.slots
        )
    }

    async fn health(&self) -> Health {
        tokio::task::block_in_place(|| {
            let config = self.config.now();
            let buildah = &config.buildah;
            let found = probe::find(buildah).map(drop);
            let missing = || format!("{buildah} is not there");
            let users = Users::open(&config).map(drop);
            Health::of([
                (Dependency::StateDirectory, Standing::of(self.use_state())),
                (Dependency::Buildah, Standing::of(found.ok_or_else(missing))),
                (Dependency::Users, Standing::of(users)),
            ])
        })
    }
}

struct LocalChanges {
    watch: watch::DirWatch,
}

#[async_trait]
impl Changes for LocalChanges {
    async fn next(&mut self, until: Instant) {
        let soon = Instant::now() + COALESCE;
        let tick = if self.watch.is_watching() {
            TICK
        } else {
            TICK / 4
        };
        tokio::select! {
            () = self.watch.changed() => tokio::time::sleep_until(soon.min(until)).await,
            () = tokio::time::sleep_until((Instant::now() + tick).min(until)) => {}
        }
    }
}

//! The job of one build on this machine: waits for a slot and a user, runs the runner's parts,
//! writes the end.
//!
//! It is a process of its own in its own session, so it outlives the server. Its standard input is
//! the lock that tells others it lives. It reads the record for the mark of a cancellation and
//! passes it on to the runner as SIGTERM; what the end means is decided from all the evidence.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::build::Record;
use crate::build::conclude::Gone;
use crate::config::Config;
use crate::log::{Event, LogReader, Progress, RecordWriter};
use crate::runner::exit;
use crate::runner::phases::deadline;
use crate::runner::reporter::now_ms;
use crate::runner::workdir::read_json;

use super::conclude;
use super::layout::BuildDir;
use super::queue::{Missing, Place, Ticket};
use super::user::{BuildUser, Lease, Users};
use super::watch::DirWatch;
use super::workshop::{Output, Part, StopWanted, Workshop};
use super::{queue, reap, store, sweep, user};

/// How often the job looks when no event comes (a slot whose holder died, and a user that another state
/// directory's build gives back, tell nobody).
const TICK: Duration = Duration::from_millis(500);
/// The job of the build in `dir`.
pub struct Job {
    workshop: Workshop<Files>,
    record: Record,
}

/// The log of a build is a file in its directory.
struct Files(BuildDir);

impl Output for Files {
    fn open(&self) -> io::Result<(Stdio, Stdio)> {
        Ok((
            store::append(&self.0.log())?.into(),
            store::append(&self.0.runner_log())?.into(),
        ))
    }

    fn progress(&self) -> io::Result<Progress> {
        conclude::progress(&self.0)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(LogReader::open(&self.0.log())?.map_or(0, |log| log.len()))
    }

    fn append(&self, event: Event) -> io::Result<()> {
        let log = store::append(&self.0.log())?;
        let last = LogReader::open(&self.0.log())?.map_or(0, |log| log.last_number());
        RecordWriter::new(log, last, u64::MAX).event(now_ms(), event)
    }
}

/// The mark of a cancellation, or SIGTERM.
struct Marked<'a> {
    dir: &'a BuildDir,
    watch: &'a mut DirWatch,
    terminate: &'a mut Signal,
    told: bool,
}

#[async_trait]
impl StopWanted for Marked<'_> {
    async fn wanted(&mut self) {
        loop {
            if !self.told && store::read(self.dir).is_ok_and(|record| record.cancel.is_some()) {
                self.told = true;
                return;
            }
            tokio::select! {
                () = self.watch.changed() => {}
                () = tokio::time::sleep(TICK * 4) => {}
                _ = self.terminate.recv() => {
                    self.told = true;
                    return;
                }
            }
        }
    }
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
        let plan = read_json(&dir.plan())?;
        let output = Files(dir.clone());
        Ok(Self {
            record: store::read(&dir)?,
            workshop: Workshop::new(config, dir, plan, output)?,
        })
    }

    /// Runs the build to its end.
    ///
    /// # Errors
    /// When the end could not be written; whoever looks at the build next writes it then.
    pub async fn run(mut self) -> io::Result<()> {
        super::scope::enter(&self.record.id);
        let mut watch = DirWatch::new(&[self.workshop.dir.root(), &self.workshop.layout.queue()]);
        let mut terminate = signal(SignalKind::terminate())?;
        let ticket = Ticket::of(&self.record);
        queue::enter(&self.workshop.layout, &ticket)?;
        let turn = self.wait(&ticket, &mut watch, &mut terminate).await;
        queue::leave(&self.workshop.layout, &ticket);
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
                        self.workshop.fail(&error);
                        Gone::Exited
                    }
                }
            }
            Ok(Turn::Stopped) => return Ok(()),
            Ok(Turn::Cancelled) => Gone::Exited,
            Ok(Turn::TimedOut) => Gone::QueueTimedOut,
            Err(error) => {
                self.workshop.fail(&error);
                Gone::Exited
            }
        };
        let lease = place.as_ref().map(|place| &place.lease);
        self.stop_all(lease).await;
        let outputs = self.workshop.dir.outputs();
        tokio::task::block_in_place(|| self.workshop.take_outputs(&outputs));
        self.remove_work();
        // Before anybody is told, who may want what the build has left with its user.
        if let Some(lease) = lease {
            lease.ends();
        }
        let written = conclude::write_end(&self.workshop.dir, gone);
        // Nobody waits for the rest, but no other build may run as this user meanwhile.
        if let Some(lease) = lease {
            let cache = self.workshop.layout.cache(&lease.user.name);
            let (config, user) = (&self.workshop.config, &lease.user);
            tokio::task::block_in_place(|| {
                sweep::sweep(&cache, config, user, &self.workshop.program);
                self.workshop.sweep_blobs();
            });
        }
        drop(place);
        queue::announce(&self.workshop.layout);
        written
    }

    async fn wait(
        &mut self,
        ticket: &Ticket,
        watch: &mut DirWatch,
        terminate: &mut Signal,
    ) -> io::Result<Turn> {
        let gives_up =
            deadline(self.workshop.plan.submitted + i64::from(self.workshop.plan.queue_timeout));
        let users = Users::open(&self.workshop.config)?;
        let (mut told, mut patience_ends) = (None, gives_up.checked_sub(user::ENDING));
        loop {
            if store::read(&self.workshop.dir)?.cancel.is_some() {
                return Ok(Turn::Cancelled);
            }
            let slots = self.workshop.config.local.slots;
            let scopes = &self.workshop.plan.scopes;
            let is_patient = patience_ends.is_some_and(|end| Instant::now() < end);
            let layout = &self.workshop.layout;
            match queue::take(layout, slots, &users, ticket, scopes, is_patient)? {
                Ok(place) => return Ok(Turn::Place(place)),
                Err(missing) if told == Some(missing) => {}
                Err(missing) => {
                    queue::tell(layout, ticket, missing);
                    told = Some(missing);
                    if missing == Missing::Layers {
                        patience_ends = patience_ends.min(Some(Instant::now() + user::ENDING));
                    }
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
        terminate: &mut Signal,
    ) -> io::Result<Option<Gone>> {
        let workshop = &mut self.workshop;
        let dir = workshop.dir.clone();
        let (claimed, record) = store::update(&dir, |record| record.claim(now_ms()))?;
        self.record = record;
        if !claimed {
            let mine = self.record.began.is_none() && self.record.end.is_none();
            return Ok(mine.then_some(Gone::Exited));
        }
        let mut stop = Marked {
            dir: &dir,
            watch,
            terminate,
            told: false,
        };
        let end = workshop.end();
        let built = workshop.build(user, end, &mut stop).await?;
        if !built.is(exit::PASSED) || workshop.plan.tags.is_empty() {
            return self.gone(built).map(Some);
        }
        let published = workshop.publish(end, &mut stop).await?;
        self.gone(published).map(Some)
    }

    /// What the end of a part means; a runner that could not even begin is this server's fault.
    fn gone(&self, part: Part) -> io::Result<Gone> {
        let said = [
            exit::PASSED,
            exit::FAILED,
            exit::TIMED_OUT,
            exit::INTERRUPTED,
        ];
        match part {
            Part::Status(_) if said.iter().any(|code| part.is(*code)) => Ok(Gone::Exited),
            Part::Status(status) => Err(io::Error::other(format!(
                "the runner ended with status {status} before it could report; see {}",
                self.workshop.dir.runner_log().display()
            ))),
            Part::Killed => Ok(Gone::Vanished),
            Part::Overtime => Ok(Gone::Overtime),
        }
    }

    /// Nothing of the build runs on.
    async fn stop_all(&mut self, lease: Option<&Lease>) {
        reap::reap(&self.record.id).await;
        self.workshop.let_go_of_secrets();
        if let Some(Err(error)) = lease.map(Lease::clear) {
            tracing::error!(%error, "something of the build runs on");
        }
    }

    /// Leaves nothing behind: no storage, no snapshot.
    fn remove_work(&self) {
        let (program, dir) = (&self.workshop.program, &self.workshop.dir);
        if let Err(error) = reap::remove_work(program, dir, &self.record.id) {
            tracing::error!(%error, "the work directory cannot be removed");
        }
    }
}

//! What a case needs of the place where builds run, and how it waits.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use nomad_build::backend::{Backend, Submitted, View};
use nomad_build::build::record::{CancelMark, CancelOutcome};
use nomad_build::build::{BuildId, Final, Phase, Plan, State};
use nomad_build::log::{Line, Query, Start};

use crate::order::{Order, now_ms};

/// Longest for anything that must come; a loaded machine may need some of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a case decides about its place.
pub struct Knobs {
    /// Builds that run at the same time.
    pub slots: u32,
    /// Ended builds that are kept.
    pub keep_builds: u32,
    /// Registries that speak plain HTTP.
    pub insecure: Vec<String>,
    /// Limit of a log, in MiB; none: as it is otherwise.
    pub log_mb: Option<u64>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            slots: 2,
            keep_builds: 200,
            insecure: Vec::new(),
            log_mb: None,
        }
    }
}

/// Which of a build's processes is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The outermost: what waits for a slot and starts the runner.
    Job,
    /// What executes the phases.
    Runner,
    /// Everything that belongs to the build.
    All,
}

/// A place where builds run. Dropping it ends whatever still runs there.
pub trait Lab: Sized + Send + Sync {
    /// A server over the place.
    type Server: Backend + 'static;

    /// Code of the reason why a build waits where all places are taken, and a word of it.
    const BUSY: (&'static str, &'static str);

    /// A place without a build.
    fn new(knobs: Knobs) -> Self;

    /// Another server over the same state; dropping it is its death.
    fn server(&self) -> Self::Server;

    /// The plan of a build as it is stored.
    fn plan(&self, id: &BuildId) -> Plan;

    /// Sends SIGKILL; panics when there is no such process.
    fn kill(&self, id: &BuildId, victim: Victim);

    /// Asks the job to stop as a stranger does, who leaves no mark.
    fn terminate(&self, id: &BuildId);

    /// Keeps the job from telling its runner anything, until [`Lab::thaw`].
    fn freeze(&self, id: &BuildId);

    /// See [`Lab::freeze`].
    fn thaw(&self, id: &BuildId);

    /// Starts the job once more, as a scheduler may do by mistake; returns when that has ended.
    async fn run_again(&self, id: &BuildId);

    /// Whatever is left of a build besides its record and log; must be empty after its end.
    fn remains(&self, id: &BuildId) -> Vec<String>;

    /// Snapshots that nobody needs any more.
    fn staged(&self) -> Vec<String>;

    /// What the place says about a build, for a test that fails.
    fn explain(&self, id: &BuildId) -> String;
}

/// A lab with one server and the busybox image's context.
pub struct Bench<L: Lab> {
    pub lab: L,
    pub server: L::Server,
}

impl<L: Lab> Bench<L> {
    pub fn new(knobs: Knobs) -> Self {
        let lab = L::new(knobs);
        let server = lab.server();
        Self { lab, server }
    }

    /// Two slots, no registry.
    pub fn plain() -> Self {
        Self::new(Knobs::default())
    }

    /// One slot.
    pub fn narrow() -> Self {
        Self::new(Knobs {
            slots: 1,
            ..Knobs::default()
        })
    }

    /// Speaks plain HTTP to these registries.
    pub fn with_registries(hosts: &[String]) -> Self {
        Self::new(Knobs {
            insecure: hosts.to_vec(),
            ..Knobs::default()
        })
    }

    /// Waits until nothing is missing: a server that has just begun does not know all builds.
    pub async fn is_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.server.health().await;
            if health.faults().next().is_none() {
                return;
            }
            assert!(Instant::now() < deadline, "{health:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Submits; must be accepted.
    pub async fn submit(&self, order: Order) -> BuildId {
        let id = order.id.clone();
        let answer = submit(&self.server, order).await;
        assert_eq!(answer, Submitted::Accepted);
        id
    }

    /// Submits and waits for the phase `build` to print `line`.
    pub async fn submit_until_it_says(&self, order: Order, line: &str) -> BuildId {
        let id = self.submit(order).await;
        self.until_it_says(&id, line).await;
        id
    }

    pub async fn until_it_says(&self, id: &BuildId, line: &str) {
        self.until(id, &format!("{line:?} in its log"), |view| {
            view.progress.last_line.as_deref() == Some(line)
        })
        .await;
    }

    /// Looks until `condition` holds; a build that ends without fulfilling it fails the test.
    pub async fn until(&self, id: &BuildId, what: &str, condition: impl Fn(&View) -> bool) -> View {
        self.until_at(&self.server, id, what, condition).await
    }

    /// The same through another server.
    pub async fn until_at(
        &self,
        server: &L::Server,
        id: &BuildId,
        what: &str,
        condition: impl Fn(&View) -> bool,
    ) -> View {
        let deadline = Instant::now() + PATIENCE;
        let mut changes = server.watch(id);
        loop {
            let view = server.look(id).await.unwrap();
            if condition(&view) {
                return view;
            }
            let over = view.record.end.is_some();
            assert!(
                !over && Instant::now() < deadline,
                "waited for {what}: {view:#?}\n{}",
                self.lab.explain(id)
            );
            changes.next(deadline).await;
        }
    }

    /// Waits until a phase has ended and returns at the very moment.
    pub async fn until_phase_ended(&self, id: &BuildId, phase: Phase) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.server.look(id).await.unwrap();
            let ended = |list: &[(Phase, f64)]| list.iter().any(|(ended, _)| *ended == phase);
            match &view.record.end {
                None if ended(&view.progress.phase_seconds) => return,
                // It was faster than this test; the cancel comes after the end then.
                Some(end) if ended(&end.phase_seconds) => return,
                end => assert!(
                    end.is_none() && Instant::now() < deadline,
                    "waited for the end of {phase:?}: {view:#?}\n{}",
                    self.lab.explain(id)
                ),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for a phase; one that is over before anybody can see it counts, too.
    pub async fn until_phase(&self, id: &BuildId, phase: Phase) -> View {
        self.until(id, &format!("the phase {phase:?}"), |view| {
            let ended = view.record.end.as_ref().map(|end| end.phase);
            ended.unwrap_or(view.progress.standing.phase) == Some(phase)
        })
        .await
    }

    /// Waits for the end. Nothing may be left then.
    pub async fn end(&self, id: &BuildId) -> Final {
        let view = self
            .until(id, "its end", |view| view.record.end.is_some())
            .await;
        let end = view.record.end.clone().unwrap();
        let remains = self.lab.remains(id);
        assert!(
            remains.is_empty(),
            "{remains:#?}\n{view:#?}\n{}",
            self.lab.explain(id)
        );
        assert_eq!(view.state(), end.state);
        end
    }

    /// Waits for the end, which must be this one.
    pub async fn ends_as(&self, id: &BuildId, state: State) -> Final {
        let end = self.end(id).await;
        assert_eq!(end.state, state, "{end:#?}\n{}", self.lab.explain(id));
        end
    }

    pub async fn cancel(&self, id: &BuildId) -> CancelOutcome {
        self.server.cancel(id, mark("tester")).await.unwrap()
    }

    /// All lines of the log; those of a build that has ended may take a moment to come.
    pub async fn log(&self, id: &BuildId) -> Vec<(u64, Line)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.server.look(id).await.unwrap();
            let wanted = view.record.end.map_or(0, |end| end.log_lines);
            let read = self
                .server
                .read_log(id, query(Start::After(0), 1_000_000))
                .await;
            let selection = read.unwrap();
            assert!(!selection.more, "the log is longer than one read");
            let lines = selection.into_lines();
            let last = lines.last().map_or(0, |(number, _)| *number);
            if last >= wanted || view.log_missing.is_some() || Instant::now() >= deadline {
                return lines;
            }
        }
    }
}

pub async fn submit(server: &impl Backend, order: Order) -> Submitted {
    let submission = order.submission(server.staging());
    server.submit(submission).await.unwrap()
}

pub fn mark(by: &str) -> CancelMark {
    CancelMark {
        by: by.into(),
        reason: Some(format!("{by} said so")),
        at: now_ms(),
    }
}

pub fn query(start: Start, lines: usize) -> Query {
    Query::new(start, lines, usize::MAX)
}

/// A mark is there, and its build became `cancelled` by it.
pub fn assert_cancelled_by(view: &View, by: &str) {
    let marked = view.record.cancel.as_ref().map(|mark| mark.by.as_str());
    assert_eq!(marked, Some(by));
    let end = view.record.end.as_ref().unwrap();
    assert_eq!((end.state, &end.failure), (State::Cancelled, &None));
}

/// What a build has in memory of credentials and secrets.
pub fn private_of(id: &BuildId) -> Vec<String> {
    let uid = rustix::process::geteuid().as_raw();
    let places = [
        "/run/nomad-build-private".to_owned(),
        format!("/run/user/{uid}/nomad-build"),
        format!("/dev/shm/nomad-build-{uid}"),
    ];
    let paths = places
        .iter()
        .flat_map(|place| ["", ".lock"].map(|end| PathBuf::from(place).join(format!("{id}{end}"))));
    paths
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}

//! Where builds run. The service knows this trait only; the local machine and a Nomad cluster
//! implement it, and both pass the same suite of contract tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::build::output::OutputStatus;
use crate::build::record::{CancelMark, CancelOutcome};
use crate::build::state::State;
use crate::build::status::QueueStatus;
use crate::build::{BuildId, Plan, Record};
use crate::config::Config;
use crate::log::{Progress, Query, Selection};

mod ending;
mod health;
pub mod local;
pub mod nomad;
mod staged;
pub mod uploads;

pub use health::{Dependency, Health, Standing};
pub use staged::Staged;
pub use uploads::Depot;

/// Why a backend could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no such build.
    #[error("there is no build {0}")]
    NotFound(BuildId),
    /// It does not answer, or its storage does not.
    #[error("{0}")]
    Unavailable(String),
}

impl From<std::io::Error> for BackendError {
    fn from(error: std::io::Error) -> Self {
        BackendError::Unavailable(error.to_string())
    }
}

/// A build to be accepted.
#[derive(Debug)]
pub struct Submission {
    /// Its record.
    pub record: Record,
    /// Its plan.
    pub plan: Plan,
    /// The request as it was decoded, for `like`.
    pub request: serde_json::Value,
    /// The snapshot of its sources, in [`Backend::staging`].
    pub snapshot: Option<Staged>,
    /// What makes a repetition known.
    pub claims: Vec<Claim>,
    /// The configuration under which it was taken, which stays the build's own; `None`: the one that holds now.
    pub config: Option<Arc<Config>>,
}

/// A name that one build holds for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// A digest, safe as a file name.
    pub name: String,
    /// Milliseconds for which it holds.
    pub lasts: i64,
    /// It holds only as long as its build is unfinished.
    pub unfinished_only: bool,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It was accepted, durably.
    Accepted,
    /// Another build holds one of the claims.
    Held(BuildId),
}

/// A build as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its record.
    pub record: Record,
    /// What its log tells; not read for builds that have ended.
    pub progress: Progress,
    /// Why it waits, while it does.
    pub queue: Option<QueueStatus>,
    /// What of its log is lost, and why.
    pub log_missing: Option<String>,
}

impl View {
    /// Its state.
    pub fn state(&self) -> State {
        match self.record.state() {
            State::Queued if self.progress.standing.phase.is_some() => State::Running,
            state => state,
        }
    }
}

/// How it goes between a server and where its builds run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vitals {
    /// Requests so far, by how they went.
    pub requests: Vec<(&'static str, u64)>,
    /// How long ago news were heard of last; `None` where nothing tells any.
    pub silence: Option<Duration>,
}

/// Tells when something about a build may have changed.
#[async_trait]
pub trait Changes: Send {
    /// Returns after a change since the last call, at `until`, or for no reason.
    async fn next(&mut self, until: Instant);
}

/// Where builds run.
#[async_trait]
pub trait Backend: Send + Sync {
    /// A directory for snapshots that are about to be submitted.
    fn staging(&self) -> &Path;

    /// Accepts a build. When it returns, the build survives everything but the loss of the disk.
    async fn submit(&self, submission: Submission) -> Result<Submitted, BackendError>;

    /// A build as it is now. Whoever looks first at a build whose runner is gone writes its end.
    async fn look(&self, id: &BuildId) -> Result<View, BackendError>;

    /// Who asked for a build. Where it is another than `expected`, the answer takes what it takes when
    /// there is no such build: it cannot be told by the clock that there is one.
    async fn owner(&self, id: &BuildId, expected: Option<&str>) -> Result<String, BackendError>;

    /// Begins to watch a build: look at it after this, and no change is missed.
    fn watch(&self, id: &BuildId) -> Box<dyn Changes>;

    /// Lines of the log.
    async fn read_log(&self, id: &BuildId, query: Query) -> Result<Selection, BackendError>;

    /// Whether there is a place for outputs.
    fn keeps_outputs(&self) -> bool;

    /// Where on this machine the bytes of an output are, which nobody changes; fetched where they are elsewhere. `None`:
    /// they are not there any more.
    async fn output(
        &self,
        id: &BuildId,
        output: &OutputStatus,
    ) -> Result<Option<PathBuf>, BackendError>;

    /// Asks for the end; the runner ends at a safe point.
    async fn cancel(&self, id: &BuildId, mark: CancelMark) -> Result<CancelOutcome, BackendError>;

    /// All builds, newest first. Those that another server accepts, or whose state another changes, are there a moment later.
    async fn list(&self) -> Result<Vec<View>, BackendError>;

    /// The request of a build as it was decoded.
    async fn request(&self, id: &BuildId) -> Result<serde_json::Value, BackendError>;

    /// Where builds run and how many at the same time, in words.
    fn capacity(&self) -> String;

    /// Whether builds can be accepted, and what is missing. Within five seconds, as checks want it.
    async fn health(&self) -> Health;

    /// Where uploads are kept; `None`: none are taken.
    fn depot(&self) -> Option<&dyn Depot>;

    /// How it goes.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }
}

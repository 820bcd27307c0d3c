//! The durable, shared record of a build, and every change that may be made to it.
//!
//! A backend stores it with check-and-set (a file under a lock, a Nomad Variable): it reads,
//! calls one of the functions here, and writes only if nobody wrote in between. So the rules of
//! who comes first live here, once, for all backends.

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::inputs::Inputs;
use super::output::OutputStatus;
use super::status::{ImageStatus, Resources, SourceStatus, StepStatus, TestStatus};
use super::{BuildId, Phase, State};

/// Version of the record's format.
pub const RECORD_VERSION: u32 = 1;

/// What is known of a build, apart from its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub v: u32,
    /// The build.
    pub id: BuildId,
    /// Who asked.
    pub principal: String,
    /// The caller's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Profile it runs in.
    pub profile: String,
    /// Digest of the request and the source, by which repeats are known.
    pub request_digest: String,
    /// Source as it was asked for.
    pub source: SourceStatus,
    /// Tags that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Tests that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<String>,
    /// Seconds the build may take from its start.
    pub timeout: u32,
    /// Seconds it may wait for capacity.
    pub queue_timeout: u32,
    /// Milliseconds since 1970.
    pub submitted: i64,
    /// How often a job was started that then did not begin.
    #[serde(default)]
    pub starts: u32,
    /// When a runner began, in milliseconds since 1970: the claim of "run once".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
    /// Somebody asked for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelMark>,
    /// When publish passed its commit point (before the first tag), in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<i64>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Final>,
}

/// Who asked for the end of a build, why and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelMark {
    /// The principal, or `unknown`.
    pub by: String,
    /// Its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// How a build ended. Written once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// A final state.
    pub state: State,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Last phase that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Last step that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// The source as it was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// What it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
    /// The image and what became of its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageStatus>,
    /// Results of the tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestStatus>,
    /// What was handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputStatus>,
    /// Seconds each phase took, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase_seconds: Vec<(Phase, f64)>,
    /// Lines of the log.
    pub log_lines: u64,
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Answer to a request for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The mark was set now.
    Marked,
    /// A mark was there already; it stays.
    AlreadyMarked,
    /// Publish has passed its commit point; it finishes.
    Committed,
    /// It has ended.
    Ended,
}

/// Answer to publish asking for its commit point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Go on to the tags.
    Granted,
    /// Marked for cancellation, ended, or committed by another: no tag may be written.
    Refused,
}

impl Record {
    /// Asks for the end. Changes the record only when it answers [`CancelOutcome::Marked`].
    pub fn request_cancel(&mut self, mark: CancelMark) -> CancelOutcome {
        if self.end.is_some() {
            CancelOutcome::Ended
        } else if self.commit.is_some() {
            CancelOutcome::Committed
        } else if self.cancel.is_some() {
            CancelOutcome::AlreadyMarked
        } else {
            self.cancel = Some(mark);
            CancelOutcome::Marked
        }
    }

    /// Claims the build for one runner; `false` when it is begun, marked or ended.
    pub fn claim(&mut self, now: i64) -> bool {
        if self.began.is_some() || self.cancel.is_some() || self.end.is_some() {
            return false;
        }
        self.began = Some(now);
        true
    }

    /// Passes the commit point, unless somebody asked for the end before.
    pub fn request_commit(&mut self, now: i64) -> CommitOutcome {
        if self.cancel.is_some() || self.end.is_some() || self.commit.is_some() {
            return CommitOutcome::Refused;
        }
        self.commit = Some(now);
        CommitOutcome::Granted
    }

    /// Writes the end, once; `false` when it is written already.
    pub fn finish(&mut self, end: Final) -> bool {
        if self.end.is_some() || !end.state.is_final() {
            return false;
        }
        self.end = Some(end);
        true
    }

    /// The state as far as the record alone tells it.
    pub fn state(&self) -> State {
        match (&self.end, self.began) {
            (Some(end), _) => end.state,
            (None, Some(_)) => State::Running,
            (None, None) => State::Queued,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{end, record};
    use super::*;
    use proptest::prelude::*;

    fn mark() -> CancelMark {
        CancelMark {
            by: "local".into(),
            reason: None,
            at: 5,
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Change {
        Cancel,
        Claim,
        Commit,
        Finish(State),
    }

    proptest! {
        #[test]
        fn cancelled_never_commits_and_the_end_is_written_once(list in prop::collection::vec(
            prop_oneof![Just(Change::Cancel), Just(Change::Claim), Just(Change::Commit),
                Just(Change::Finish(State::Lost)), Just(Change::Finish(State::Succeeded)), Just(Change::Finish(State::Running))], 0..12)) {
            let mut record = record();
            for change in list {
                let before = record.clone();
                match change {
                    Change::Cancel => { record.request_cancel(mark()); }
                    Change::Claim => { record.claim(1); }
                    Change::Commit => {
                        if record.request_commit(2) == CommitOutcome::Granted {
                            prop_assert!(before.cancel.is_none() && before.end.is_none());
                        }
                    }
                    Change::Finish(state) => { record.finish(end(state)); }
                }
                prop_assert!(!(record.cancel.is_some() && record.commit.is_some()));
                if before.end.is_some() { prop_assert_eq!(&before, &record); }
            }
        }
    }
}

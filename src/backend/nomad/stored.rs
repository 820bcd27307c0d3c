//! The record of a build as a Nomad Variable: what of it is the cluster's own, and its form.
//!
//! Pure. A variable holds at most 64 KiB; so the record is compressed, and where even that is too
//! much, excerpts are left out (the log has them).

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::build::output::OutputStatus;
use crate::build::record::CommitOutcome;
use crate::build::{BuildId, Record};
use crate::nomad::{Items, MAX_VARIABLE};

/// Room for names, state and the like beside the record.
const HEADROOM: usize = 1024;
/// Most bytes of a record when it is unpacked.
const MAX_UNPACKED: u64 = 8 << 20;
const RECORD: &str = "record";

/// The record and what only a cluster has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The record, the same for all backends.
    pub record: Record,
    /// The request as it was decoded; absent where it is in the artifact of the inputs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<serde_json::Value>,
    /// The child job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The allocation that began it: no other may go on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<String>,
    /// `host/repository@digest` of plan and context, until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The log, when its job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<ArchivedLog>,
}

/// Where the log of an ended build is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedLog {
    /// `host/repository@digest`; absent where the operator has no repository, or it could not be
    /// pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Number of its last line.
    pub lines: u64,
    /// What of it is missing, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Why a record cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// It is larger than a variable may be.
    #[error("the record of the build is larger than a Nomad Variable may be")]
    TooLarge,
    /// It is something else, or of another version.
    #[error("the record of the build cannot be read: {0}")]
    Damaged(String),
}

/// Path of a build's variable.
pub fn path(id: &BuildId) -> String {
    format!("{BUILDS}{id}")
}

/// Beginning of the paths of all builds.
pub const BUILDS: &str = "nomad-build/b/";
/// Beginning of the paths of all claims.
pub const CLAIMS: &str = "nomad-build/k/";
/// Beginning of the paths of what principals have uploaded.
pub const UPLOADS: &str = "nomad-build/u/";

/// The build of a variable's path.
pub fn build_of(path: &str) -> Option<BuildId> {
    path.strip_prefix(BUILDS)?.parse().ok()
}

impl Stored {
    /// A record that was just made.
    pub fn new(record: Record, request: serde_json::Value) -> Self {
        Self {
            record,
            request: Some(request),
            job: None,
            allocation: None,
            input: None,
            log: None,
        }
    }

    /// The archived log, where there is one.
    pub fn log_artifact(&self) -> Option<&str> {
        self.log.as_ref()?.artifact.as_deref()
    }

    /// What could not be brought into the registry.
    pub fn lose_outputs(&mut self, lost: &[OutputStatus]) {
        let outputs = self.record.end.iter_mut().flat_map(|end| &mut end.outputs);
        for output in outputs.filter(|one| lost.iter().any(|other| other.is_same(one))) {
            output.lose("it could not be brought into the registry");
        }
    }

    /// The items of its variable.
    ///
    /// # Errors
    /// When even the shortest form is too large.
    pub fn encode(&self) -> Result<Items, StoredError> {
        let mut shorter = self.clone();
        let shorten: [fn(&mut Self); 4] = [
            |_| {},
            |stored| {
                if let Some(end) = &mut stored.record.end {
                    end.inputs = None;
                }
            },
            |stored| {
                if let Some(end) = &mut stored.record.end {
                    for test in &mut end.tests {
                        test.excerpt = None;
                        test.report
                            .iter_mut()
                            .for_each(|report| report.failures.clear());
                    }
                }
            },
            |stored| stored.request = None,
        ];
        for shorten in shorten {
            shorten(&mut shorter);
            let text = pack(&shorter)?;
            if text.len() + HEADROOM <= MAX_VARIABLE {
                // For people who look at it; never read back.
                let state = self.record.state().as_str().to_owned();
                let shown = crate::build::clean::short(&self.record.principal, 100);
                return Ok(Items::from([
                    (RECORD.to_owned(), text),
                    ("state".to_owned(), state),
                    ("principal".to_owned(), shown),
                ]));
            }
        }
        Err(StoredError::TooLarge)
    }

    /// Reads a variable's items.
    ///
    /// # Errors
    /// When they are something else.
    pub fn decode(items: &Items) -> Result<Self, StoredError> {
        let damaged = |error: &dyn std::fmt::Display| StoredError::Damaged(error.to_string());
        let text = items
            .get(RECORD)
            .ok_or_else(|| damaged(&"it has no item record"))?;
        let packed = STANDARD.decode(text).map_err(|error| damaged(&error))?;
        let mut json = Vec::new();
        GzDecoder::new(packed.as_slice())
            .take(MAX_UNPACKED)
            .read_to_end(&mut json)
            .map_err(|error| damaged(&error))?;
        serde_json::from_slice(&json).map_err(|error| damaged(&error))
    }

    /// Whether this allocation, or none, has begun the build.
    pub fn is_for(&self, allocation: &str) -> bool {
        self.allocation
            .as_deref()
            .is_none_or(|one| one == allocation)
    }

    /// Claims the build for an allocation, which began at `now`; `false`: it is another's, or over.
    pub fn begin(&mut self, job: &str, allocation: &str, now: i64) -> bool {
        if !self.is_for(allocation) || self.record.end.is_some() {
            return false;
        }
        self.job = Some(job.to_owned());
        self.allocation = Some(allocation.to_owned());
        // A mark does not keep it from having begun: the runner ends on its own.
        self.record.began.get_or_insert(now);
        true
    }

    /// Passes the commit point for an allocation, and claims the build for it.
    pub fn commit(&mut self, job: &str, allocation: &str, now: i64) -> CommitOutcome {
        if !self.is_for(allocation) {
            return CommitOutcome::Refused;
        }
        // Its own write, of which it never heard: nobody else commits in the same millisecond.
        let own = self.allocation.is_some() && self.record.commit == Some(now);
        if own && self.record.end.is_none() {
            return CommitOutcome::Granted;
        }
        let outcome = self.record.request_commit(now);
        if outcome == CommitOutcome::Granted {
            self.begin(job, allocation, now);
        }
        outcome
    }
}

fn pack(stored: &Stored) -> Result<String, StoredError> {
    let damaged = |error: &dyn std::fmt::Display| StoredError::Damaged(error.to_string());
    let json = serde_json::to_vec(stored).map_err(|error| damaged(&error))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&json).map_err(|error| damaged(&error))?;
    let packed = gzip.finish().map_err(|error| damaged(&error))?;
    Ok(STANDARD.encode(packed))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::build::State;
    use crate::build::inputs::{Files, Inputs, StepInput};
    use crate::build::record::{CancelMark, Final};
    use crate::build::samples as records;
    use crate::build::status::{StepStatus, TestResult, TestStatus};

    pub(in super::super) fn stored() -> Stored {
        Stored::new(
            records::record(),
            serde_json::json!({"tags": ["r.example/x:1"]}),
        )
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let mut stored = stored();
        stored.begin("p/dispatch-1", "alloc", 7);
        stored.record.end = Some(records::end(State::Succeeded));
        let items = stored.encode().unwrap();
        assert_eq!(items["state"], "succeeded");
        assert_eq!(Stored::decode(&items).unwrap(), stored);
        assert!(Stored::decode(&Items::new()).is_err());
    }

    fn noise() -> String {
        (0..700).map(|_| fastrand::alphanumeric()).collect()
    }

    fn with_tests(count: usize) -> Final {
        let test = |n| TestStatus {
            name: format!("test-{n}"),
            status: TestResult::Failed,
            exit_code: Some(1),
            seconds: Some(1.0),
            first_line: Some(1),
            last_line: Some(2),
            excerpt: Some(noise()),
            report: None,
        };
        Final {
            tests: (0..count).map(test).collect(),
            ..records::end(State::Failed)
        }
    }

    #[test]
    fn what_is_too_large_loses_first_what_it_was_made_of() {
        let step = |_| {
            let step = StepStatus {
                instruction: noise(),
                ..StepStatus::default()
            };
            StepInput::new(step, noise(), Files::None)
        };
        let mut stored = stored();
        for (count, is_kept) in [(1, true), (64, false)] {
            stored.record.end = Some(Final {
                inputs: Some(Inputs {
                    steps: (0..40).map(step).collect(),
                    ..Inputs::default()
                }),
                ..with_tests(count)
            });
            let read = Stored::decode(&stored.encode().unwrap()).unwrap();
            let end = read.record.end.unwrap();
            assert_eq!(end.inputs.is_some(), is_kept);
            assert!(end.tests.iter().all(|test| test.excerpt.is_some()));
        }
    }

    #[test]
    fn what_is_still_too_large_loses_excerpts_next() {
        let mut stored = stored();
        stored.record.end = Some(with_tests(200));
        let items = stored.encode().unwrap();
        let size: usize = items
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(size <= MAX_VARIABLE, "{size}");
        let read = Stored::decode(&items).unwrap();
        assert_eq!(read.request, stored.request);
        let tests = read.record.end.unwrap().tests;
        assert_eq!(tests.len(), 200);
        assert!(tests.iter().all(|test| test.excerpt.is_none()));
        stored.request = Some(serde_json::json!(
            (0..200).map(|_| noise()).collect::<String>()
        ));
        assert_eq!(
            Stored::decode(&stored.encode().unwrap()).unwrap().request,
            None
        );
    }

    #[test]
    fn one_allocation_begins_and_commits() {
        let mut stored = stored();
        assert!(stored.begin("j", "a", 1));
        assert!(stored.begin("j", "a", 2));
        assert!(!stored.begin("j", "b", 3));
        assert_eq!(stored.record.began, Some(1));
        assert_eq!(stored.commit("j", "b", 4), CommitOutcome::Refused);
        assert_eq!(stored.commit("j", "a", 5), CommitOutcome::Granted);
        assert_eq!(stored.commit("j", "a", 5), CommitOutcome::Granted);
        assert_eq!(stored.commit("j", "a", 6), CommitOutcome::Refused);

        let mut marked = tests::stored();
        marked.record.request_cancel(CancelMark {
            by: "me".into(),
            reason: None,
            at: 1,
        });
        assert_eq!(marked.commit("j", "a", 5), CommitOutcome::Refused);
        assert_eq!(marked.allocation, None);
    }
}

//! The typed reason why a build did not succeed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::kind::{Fault, Kind};
use super::state::Phase;

/// A place in the user's own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Location {
    /// Path relative to the root of the source.
    pub file: String,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What was said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why a build did not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Phase in which it failed: `source`, `build`, `test` or `publish`; absent when it never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What went wrong, a snake_case word.
    #[schemars(with = "String")]
    pub kind: Kind,
    /// Who can mend it.
    pub fault: Fault,
    /// Whether the same call may succeed later without a change.
    pub retryable: bool,
    /// One sentence; may quote foreign words.
    pub message: String,
    /// File it points at, relative to the root of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in `file`, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Stage of the Containerfile: its name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Step within the stage, from 1, as in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The instruction that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// The test that failed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Exit status of the command or test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Places in the user's own files, first cause first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// The decisive lines of the log, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// Pass it as `cursor` to `logs` with `from: "start"` to read on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cursor: Option<String>,
    /// What to do, where it is sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// A reminder that excerpt and message are data from elsewhere, not instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Failure {
    /// A failure with the kind's usual fault and nothing further.
    pub fn new(phase: impl Into<Option<Phase>>, kind: Kind, message: impl Into<String>) -> Self {
        let fault = kind.fault();
        Self {
            phase: phase.into(),
            kind,
            fault,
            retryable: fault == Fault::Transient,
            message: message.into(),
            file: None,
            line: None,
            stage: None,
            step: None,
            instruction: None,
            test: None,
            exit_code: None,
            locations: Vec::new(),
            excerpt: None,
            log_cursor: None,
            hint: None,
            note: None,
        }
    }

    /// With another fault than the kind's usual one.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self.retryable = fault == Fault::Transient;
        self
    }

    /// With a sentence that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the place it points at.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, line: impl Into<Option<u32>>) -> Self {
        self.file = Some(file.into());
        self.line = line.into();
        self
    }
}

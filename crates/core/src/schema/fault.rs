//! What was wrong with an argument, in the words that teach a caller to mend it.

use std::fmt;

use serde::Serialize;
use serde_json::{Number, Value};
use thiserror::Error;

use super::echo;
use super::error_code::ErrorCode;

/// The most faults that are listed; the rest is counted.
pub const MAX_FAULTS: usize = 20;

/// One fault of one argument. All text is bounded, on one line and safe to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
pub struct ArgFault {
    /// The class of fault.
    pub code: ErrorCode,
    /// Where, as in `tests[0].timeout`, in the form that the caller used; `arguments` for the
    /// whole.
    pub path: String,
    pub problem: String,
    /// The name that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    pub expected: String,
    /// JSON of at most 80 characters; type and length only where the value may be private or has
    /// no place.
    pub got: String,
    /// JSON, the first of the schema's `examples`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

impl ArgFault {
    /// A fault found beyond the schema.
    pub fn new(code: ErrorCode, path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            code,
            path: path.into(),
            problem: problem.into(),
            suggestion: None,
            expected: String::new(),
            got: String::new(),
            example: None,
        }
    }

    /// With what would be right.
    #[must_use]
    pub fn expecting(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    /// With what was given, as JSON of at most 80 characters; not for private values.
    #[must_use]
    pub fn got(mut self, text: &str) -> Self {
        self.got = echo::excerpt(&Value::from(text));
        self
    }

    /// With the name that was probably meant.
    #[must_use]
    pub fn suggesting(mut self, name: Option<impl Into<String>>) -> Self {
        self.suggestion = name.map(Into::into);
        self
    }

    /// With an example.
    #[must_use]
    pub fn example(mut self, example: impl Into<String>) -> Self {
        self.example = Some(example.into());
        self
    }
}

impl fmt::Display for ArgFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "error[{}] {}: {}",
            self.code.as_str(),
            self.path,
            self.problem
        )?;
        if let Some(name) = &self.suggestion {
            write!(f, "; did you mean {name}?")?;
        }
        for (word, text) in [("expected", &self.expected), ("got", &self.got)] {
            if !text.is_empty() {
                write!(f, "\n{word}: {text}")?;
            }
        }
        if let Some(example) = &self.example {
            write!(f, "\nexample: {example}")?;
        }
        Ok(())
    }
}

/// All faults of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Error)]
pub struct Faults {
    /// The first [`MAX_FAULTS`].
    pub listed: Vec<ArgFault>,
    /// How many there are beyond those.
    pub more: usize,
}

impl Faults {
    /// Builds a fault only when it will be listed, so that a million of them cost no more than
    /// counting.
    pub(super) fn add(&mut self, fault: impl FnOnce() -> ArgFault) {
        if self.listed.len() < MAX_FAULTS {
            self.listed.push(fault());
        } else {
            self.more += 1;
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.listed.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// A value that was cut to its maximum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Clamped {
    pub path: String,
    pub from: Number,
    pub to: Number,
}

impl fmt::Display for Clamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is above the maximum, {} is used",
            self.path, self.from, self.to
        )
    }
}

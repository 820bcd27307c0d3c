//! What a caller is told when a call cannot be carried out.

use std::fmt;

use crate::backend::BackendError;
use crate::schema::error_code::ErrorCode;
use crate::schema::{ArgFault, Faults};

/// Why a call was refused; every fault at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolError {
    faults: Vec<ArgFault>,
    more: usize,
    /// Seconds to wait before calling again, for `limit_reached`.
    pub retry_after: Option<u32>,
    /// What the caller can run to mend it.
    pub remedy: Option<Remedy>,
}

/// How a directory that the server cannot read comes to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// A line for a shell where the directory is.
    pub command: String,
    /// What `source.context` takes afterwards.
    pub context: String,
    /// For so many seconds the line is good, once.
    pub seconds: u32,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            context,
            seconds,
        } = self;
        write!(
            f,
            "Upload the directory, by this line in a shell where it is (good once, for {seconds} s). In a git repository it packs the files that git does not ignore, tracked or not, but no submodules; elsewhere, and in a directory that git ignores, everything but .git. .containerignore and .dockerignore hold only when it is built; who has nomad-build and a token there can leave out what they name by nomad-build build --server.\n{command}\nThen call build again with \"context\": \"{context}\" in place of path in source; keep the rest of source (subdir, files) and your other arguments."
        )
    }
}

impl ToolError {
    /// One fault.
    pub fn one(fault: ArgFault) -> Self {
        Self {
            faults: vec![fault],
            more: 0,
            retry_after: None,
            remedy: None,
        }
    }

    /// Several.
    pub fn all(faults: Vec<ArgFault>) -> Self {
        let more = faults.len().saturating_sub(crate::schema::MAX_FAULTS);
        let faults = faults.into_iter().take(crate::schema::MAX_FAULTS).collect();
        Self {
            faults,
            more,
            retry_after: None,
            remedy: None,
        }
    }

    /// An argument names something that is not there.
    pub fn not_found(path: &str, problem: &str, got: &str) -> Self {
        Self::one(ArgFault::new(ErrorCode::NotFound, path, problem).got(got))
    }

    /// A fault of this server; the text is for its operator.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::one(ArgFault::new(
            ErrorCode::Internal,
            "server",
            error.to_string(),
        ))
    }

    /// With what would be right.
    #[must_use]
    pub fn expecting(self, expected: &str) -> Self {
        self.map(|fault| fault.expecting(expected))
    }

    /// With the name that was probably meant.
    #[must_use]
    pub fn suggesting(self, name: Option<String>) -> Self {
        self.map(|fault| fault.suggesting(name.clone()))
    }

    /// With further faults.
    #[must_use]
    pub fn and(mut self, more: Vec<ArgFault>) -> Self {
        self.faults.extend(more);
        self
    }

    fn map(mut self, f: impl Fn(ArgFault) -> ArgFault) -> Self {
        self.faults = self.faults.into_iter().map(f).collect();
        self
    }

    /// The class of the first fault.
    pub fn code(&self) -> ErrorCode {
        self.faults
            .first()
            .map_or(ErrorCode::Internal, |fault| fault.code)
    }

    /// The faults, for machines.
    pub fn faults(&self) -> &[ArgFault] {
        &self.faults
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}",
            Faults {
                listed: self.faults.clone(),
                more: self.more
            }
        )?;
        if let Some(seconds) = self.retry_after {
            write!(f, "\nTry again in {seconds} s.")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n{remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ToolError {}

impl From<Faults> for ToolError {
    fn from(faults: Faults) -> Self {
        Self {
            faults: faults.listed,
            more: faults.more,
            retry_after: None,
            remedy: None,
        }
    }
}

impl From<BackendError> for ToolError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NotFound(id) => {
                Self::not_found("build_id", "there is no such build", id.as_str())
            }
            BackendError::Unavailable(text) => Self {
                retry_after: Some(10),
                ..Self::one(ArgFault::new(
                    ErrorCode::BackendUnavailable,
                    "backend",
                    text,
                ))
            },
        }
    }
}

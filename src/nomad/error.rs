//! What can go wrong between this program and Nomad.

use std::time::Duration;

use reqwest::StatusCode;

use crate::wire::{self, TokenFault};

/// Longest text of an error that is kept, in characters.
const MAX_TEXT: usize = 300;

/// Why Nomad did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NomadError {
    /// No connection, or it broke before the answer was whole.
    #[error("Nomad at {address} cannot be reached: {why}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the system says.
        why: String,
        /// The request certainly did not arrive.
        unsent: bool,
    },
    /// No answer in time.
    #[error("Nomad at {address} did not answer in time")]
    Timeout {
        /// Where it is.
        address: String,
    },
    /// 401 or 403: the token is missing, unknown, expired, or lacks a capability.
    #[error("Nomad refuses to {what}: {text}")]
    Denied {
        /// What was asked.
        what: String,
        /// Nomad's words.
        text: String,
    },
    /// 404.
    #[error("Nomad has nothing there ({what}): {text}")]
    NotFound {
        /// What was asked.
        what: String,
        /// Nomad's words.
        text: String,
    },
    /// 429: too many connections from this address, or too many requests.
    #[error("Nomad is too busy to {what}")]
    Busy {
        /// What was asked.
        what: String,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// 5xx; most of Nomad's own refusals are 500 with a text, too.
    #[error("Nomad could not {what}: {text} ({status})")]
    Server {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Nomad's words.
        text: String,
    },
    /// Any other refusal.
    #[error("Nomad rejects to {what}: {text} ({status})")]
    Rejected {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Nomad's words.
        text: String,
    },
    /// It answered something else than its API says.
    #[error("Nomad's answer to {what} cannot be understood: {problem}")]
    Protocol {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// This program's own configuration.
    #[error("{0}")]
    Setup(String),
}

impl From<TokenFault> for NomadError {
    fn from(fault: TokenFault) -> Self {
        match fault {
            // It is being renewed.
            TokenFault::Empty(path) => Self::Unreachable {
                address: path.display().to_string(),
                why: "the token file is empty".into(),
                unsent: true,
            },
            fault => Self::Setup(fault.to_string()),
        }
    }
}

impl NomadError {
    /// From an answer that is no success.
    pub(super) fn from_answer(
        what: &str,
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let text = words(body);
        let what = what.to_owned();
        match status.as_u16() {
            401 | 403 => Self::Denied { what, text },
            404 => Self::NotFound { what, text },
            429 => Self::Busy { what, retry_after },
            // The Task API and forwarded requests give a refusal of rights as 500.
            500 if text.contains("Permission denied") => Self::Denied { what, text },
            status @ 500.. => Self::Server { what, status, text },
            status => Self::Rejected { what, status, text },
        }
    }

    pub(super) fn from_transport(address: &str, error: &reqwest::Error) -> Self {
        let address = address.to_owned();
        if error.is_timeout() && !error.is_connect() {
            return Self::Timeout { address };
        }
        Self::Unreachable {
            address,
            why: words(wire::cause(error).as_bytes()),
            unsent: error.is_connect(),
        }
    }

    pub(super) fn protocol(what: &str, problem: impl std::fmt::Display) -> Self {
        Self::Protocol {
            what: what.to_owned(),
            problem: words(problem.to_string().as_bytes()),
        }
    }

    /// Whether the same may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Busy { .. } => true,
            Self::Server { status, text, .. } => *status != 500 || is_about_the_cluster(text),
            _ => false,
        }
    }

    /// Whether Nomad certainly did nothing, and the same may succeed a little later.
    pub fn is_undone(&self) -> bool {
        match self {
            Self::Unreachable { unsent, .. } => *unsent,
            Self::Busy { .. } => true,
            Self::Server { text, .. } => text.contains("No cluster leader"),
            _ => false,
        }
    }

    /// Whether it is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether a right is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }
}

/// A 500 that is about servers and their connections, not about the request.
fn is_about_the_cluster(text: &str) -> bool {
    const SIGNS: &[&str] = &[
        "No cluster leader",
        "No path to region",
        "rpc error: EOF",
        "rpc error: eventually failed",
        "leadership lost",
        "connection refused",
        "connection reset",
        "i/o timeout",
        "raft is already shutdown",
        "failed to get conn",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// Text of foreign origin, on one line and short.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    crate::build::clean::short(text.trim(), MAX_TEXT)
}

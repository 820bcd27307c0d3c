//! What can go wrong between this program and Consul.

use reqwest::StatusCode;

use crate::build::clean::short;
use crate::wire::{self, TokenFault};

/// Longest text of an error that is kept, in characters.
const MAX_TEXT: usize = 300;

/// Why Consul did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsulError {
    /// No connection, or it broke before the answer was whole.
    #[error("Consul at {address} cannot be reached: {why}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the system says.
        why: String,
    },
    /// No answer in time.
    #[error("Consul at {address} did not answer in time")]
    Timeout {
        /// Where it is.
        address: String,
    },
    /// The token is missing or unknown, or lacks a right.
    #[error("Consul refuses to {what}: {text}")]
    Denied {
        /// What was asked.
        what: String,
        /// Consul's words, or what it left out.
        text: String,
    },
    /// Any other refusal, as of a cluster without a leader.
    #[error("Consul could not {what}: {text} ({status})")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Consul's words.
        text: String,
    },
    /// Its answer is larger than any that is taken.
    #[error("Consul's answer to {what} is larger than {most} bytes")]
    TooLarge {
        /// What was asked.
        what: String,
        /// How large it may be.
        most: usize,
    },
    /// It answered something else than its API says.
    #[error("Consul's answer to {what} cannot be understood: {problem}")]
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

impl From<TokenFault> for ConsulError {
    fn from(fault: TokenFault) -> Self {
        Self::Setup(fault.to_string())
    }
}

impl ConsulError {
    /// From an answer that is no success.
    pub(super) fn from_answer(what: &str, status: StatusCode, body: &[u8]) -> Self {
        let (what, text) = (what.to_owned(), words(&String::from_utf8_lossy(body)));
        match status.as_u16() {
            401 | 403 => Self::Denied { what, text },
            status => Self::Refused { what, status, text },
        }
    }

    pub(super) fn from_transport(address: &str, error: &reqwest::Error) -> Self {
        let address = address.to_owned();
        if error.is_timeout() && !error.is_connect() {
            return Self::Timeout { address };
        }
        let why = words(&wire::cause(error));
        Self::Unreachable { address, why }
    }

    pub(super) fn no_token(what: String) -> Self {
        Self::Denied {
            what,
            text: "there is no token, and without one it shows nothing".into(),
        }
    }

    pub(super) fn protocol(what: &str, problem: impl std::fmt::Display) -> Self {
        Self::Protocol {
            what: what.to_owned(),
            problem: words(&problem.to_string()),
        }
    }
}

/// Text of foreign origin, on one line and short.
fn words(text: &str) -> String {
    short(text.trim(), MAX_TEXT)
}

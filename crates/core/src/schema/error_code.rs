//! The closed set of words for what can be wrong with a call.

use serde::{Deserialize, Serialize};

/// Why a call was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// An argument is malformed.
    #[default]
    InvalidArgument,
    /// There is no such build, line or upload.
    NotFound,
    /// The operator does not allow it.
    NotAllowed,
    /// The server cannot read that path.
    PathNotReachable,
    /// The retry token belongs to another request.
    KeyReused,
    /// Too much at once; the text says when to come back.
    LimitReached,
    /// What builds are run on does not answer.
    BackendUnavailable,
    /// A fault of this server.
    Internal,
}

impl ErrorCode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidArgument => "invalid_argument",
            ErrorCode::NotFound => "not_found",
            ErrorCode::NotAllowed => "not_allowed",
            ErrorCode::PathNotReachable => "path_not_reachable",
            ErrorCode::KeyReused => "key_reused",
            ErrorCode::LimitReached => "limit_reached",
            ErrorCode::BackendUnavailable => "backend_unavailable",
            ErrorCode::Internal => "internal",
        }
    }
}

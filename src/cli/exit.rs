//! Exit statuses of the commands that call tools.
//!
//! | status | |
//! |---|---|
//! | 0 | it is as it was asked for: the build succeeded, or was accepted, or has been told to end |
//! | 1 | the build did not succeed, or what it made could not be saved |
//! | 2 | the call was wrong or refused, or there is no server |
//! | 3 | the server does not answer any more; a build goes on |
//! | 4 | Ctrl-C left a build that was looked at, a second one a build that is ending |
//! | 130 | Ctrl-C ended the build |

use std::process::ExitCode;

use crate::build::State;
use crate::build::status::BuildStatus;
use crate::client::Away;

/// A build that did not succeed, or whose outputs could not be saved.
pub const FAILED: u8 = 1;
/// The call was wrong or refused, or there is no server.
pub const REFUSED: u8 = 2;
/// The server does not answer any more; a build goes on.
pub const AWAY: u8 = 3;
/// A build was left to itself.
pub const LEFT: u8 = 4;
/// Ctrl-C ended the build: 128 and SIGINT.
pub const INTERRUPTED: u8 = 130;

/// What a command means that could not do its work.
pub fn of_error(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.is::<Away>() { AWAY } else { REFUSED })
}

/// What a build means for whoever asked how it is.
pub fn of(status: &BuildStatus) -> ExitCode {
    match status.state() {
        Some(State::Succeeded | State::Queued | State::Running) => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}

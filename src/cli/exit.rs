//! Exit statuses of the commands that call tools.
//!
//! | status | |
//! |---|---|
//! | 0 | it is as it was asked for: the build succeeded, or was accepted, or has been told to end |
//! | 1 | the build did not succeed |
//! | 2 | the call was wrong or refused, or there is no server |
//! | 3 | the server does not answer any more; the build goes on |
//! | 4 | a second Ctrl-C left the build to itself; it goes on |
//! | 130 | Ctrl-C ended the build |

use std::process::ExitCode;

use crate::build::State;
use crate::build::status::BuildStatus;

/// A build that did not succeed.
pub const FAILED: u8 = 1;
/// The call was wrong or refused, or there is no server: what `main` answers to an error.
pub const REFUSED: u8 = 2;
/// The server does not answer any more; the build goes on.
pub const AWAY: u8 = 3;
/// The build was left to itself; it goes on.
pub const LEFT: u8 = 4;
/// Ctrl-C ended the build: 128 and SIGINT.
pub const INTERRUPTED: u8 = 130;

/// What a build means for whoever asked how it is.
pub fn of(status: &BuildStatus) -> ExitCode {
    match status.state() {
        Some(State::Succeeded | State::Queued | State::Running) => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}

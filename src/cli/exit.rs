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

/// A build that did not succeed.
pub const FAILED: u8 = 1;
/// The call was refused.
pub const REFUSED: u8 = 2;
/// The server does not answer any more; the build goes on.
pub const AWAY: u8 = 3;
/// The build was left to itself; it goes on.
pub const LEFT: u8 = 4;
/// Ctrl-C ended the build: 128 and SIGINT.
pub const INTERRUPTED: u8 = 130;

/// What a state means for a caller who waited for the end.
pub fn of_state(state: &str) -> ExitCode {
    let good = [State::Succeeded, State::Queued, State::Running];
    match good.iter().any(|good| good.as_str() == state) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    }
}

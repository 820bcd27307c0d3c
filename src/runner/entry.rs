//! What every process of the runner does at its beginning and its end.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::build::conclude::Outcome;

use super::exit;

/// Standard output, without the lock and the buffer of the standard library.
///
/// # Errors
/// When it is closed.
pub fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Fires when this process is told to stop.
///
/// # Errors
/// When signals cannot be handled.
pub fn stop_signal() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let token = token.clone();
        tokio::spawn(async move {
            signals.recv().await;
            token.cancel();
        });
    }
    Ok(token)
}

/// The exit status that says the same as a result.
pub fn status(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Passed => exit::PASSED,
        Outcome::Failed(_) => exit::FAILED,
        Outcome::TimedOut(_) => exit::TIMED_OUT,
        Outcome::Interrupted => exit::INTERRUPTED,
    }
}

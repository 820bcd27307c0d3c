//! When a request is made again.

use std::time::Duration;

use super::NomadError;

/// How often a request is made at most.
const ATTEMPTS: u32 = 5;
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What a request may be repeated after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Any transient fault: it reads, or twice is the same as once.
    Always,
    /// Only when it certainly had no effect.
    IfUndone,
    /// Nothing: the caller has its own way to go on.
    Never,
}

/// The attempts one request has left.
#[derive(Debug)]
pub(super) struct Attempts {
    repeat: Repeat,
    left: u32,
    pause: Duration,
}

impl Attempts {
    pub(super) fn new(repeat: Repeat, backoff: Duration) -> Self {
        Self {
            repeat,
            left: ATTEMPTS - 1,
            pause: backoff,
        }
    }

    /// Waits for the next attempt, or gives the error back.
    pub(super) async fn after(&mut self, error: NomadError) -> Result<(), NomadError> {
        let again = match self.repeat {
            Repeat::Always => error.is_transient(),
            Repeat::IfUndone => error.is_undone(),
            Repeat::Never => false,
        };
        if !again || self.left == 0 {
            return Err(error);
        }
        let asked = match error {
            NomadError::Busy { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        // Jitter: those that failed together must not come back together.
        let jittered = self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::time::sleep(asked.max(jittered).min(MAX_PAUSE)).await;
        self.left -= 1;
        self.pause = self.pause.saturating_mul(2);
        Ok(())
    }
}

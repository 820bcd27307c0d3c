//! When to make a request again.

use std::time::Duration;

use super::error::RegistryError;

/// How often an operation is tried at most, the first time included.
const ATTEMPTS: u32 = 4;

/// The attempts that one operation has left.
pub(super) struct Retries {
    left: u32,
    pause: Duration,
}

impl Retries {
    /// `backoff` is the first pause; each further one is twice as long.
    pub(super) fn new(backoff: Duration) -> Self {
        Self {
            left: ATTEMPTS - 1,
            pause: backoff,
        }
    }

    /// Waits for the next attempt, or gives the error back if there is none to be made.
    pub(super) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.left == 0 || !error.transient() {
            return Err(error);
        }
        let asked = match error {
            RegistryError::TooManyRequests { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        // Jitter, so that builds which failed together don't come back together.
        let jitter = 0.5 + fastrand::f64() / 2.0;
        tokio::time::sleep(asked.saturating_add(self.pause.mul_f64(jitter))).await;
        self.left -= 1;
        self.pause = self.pause.saturating_mul(2);
        Ok(())
    }
}

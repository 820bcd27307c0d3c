//! How much a client asks, how it is answered, and when the event stream was heard of last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::NomadError;

/// Counts since the client was made; its copies count together.
#[derive(Debug, Default)]
pub struct Traffic {
    answered: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    heard: Mutex<Option<Instant>>,
}

impl Traffic {
    /// Requests by how they went: `answered`, `refused` by Nomad, `failed` on the way or in it.
    pub fn requests(&self) -> [(&'static str, u64); 3] {
        [
            ("answered", self.answered.load(Ordering::Relaxed)),
            ("refused", self.refused.load(Ordering::Relaxed)),
            ("failed", self.failed.load(Ordering::Relaxed)),
        ]
    }

    /// How long ago the event stream said something; `None` before it ever did. A heartbeat comes every
    /// ten seconds (`event_stream.go`).
    pub fn silence(&self) -> Option<Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map(|heard| heard.elapsed())
    }

    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn count<T>(&self, result: Result<T, NomadError>) -> Result<T, NomadError> {
        let counter = match &result {
            Ok(_) => &self.answered,
            Err(error) if error.is_transient() => &self.failed,
            Err(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }
}

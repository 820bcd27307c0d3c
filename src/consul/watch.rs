//! Keeps a configuration as the keys below a prefix say.
//!
//! ```text
//!  index 0 ─▶ ask ─┬─ answer ─▶ overlay, index := its own (0 when that is an older one: Consul has begun anew)
//!     ▲            │               └─▶ ask again: answers when something has changed, or after a while
//!     └── pause ◀──┴─ error: what is known goes on to hold
//! ```

use std::time::Duration;

use crate::config::Live;

use super::{Client, ConsulError, Keys};

/// How long a query blocks when nothing changes.
const BLOCK: Duration = Duration::from_secs(60);
/// Longest for the first answer: nothing is served before it.
const FIRST: Duration = Duration::from_secs(3);
/// Pause after an answer: what changes all the time must not keep two programs busy.
const BREATH: Duration = Duration::from_millis(100);
/// First and longest pause after an error.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// See the module.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    prefix: String,
    live: Live,
    /// Of the last answer; 0: the next one is to come at once.
    index: u64,
    pause: Duration,
    /// What the log was told last to be wrong.
    told: Option<String>,
}

impl Watch {
    /// Of the keys below a prefix, which ends with a slash.
    pub fn new(client: Client, prefix: String, live: Live) -> Self {
        Self {
            client,
            prefix,
            live,
            index: 0,
            pause: PAUSES.0,
            told: None,
        }
    }

    /// Takes what is there now, if it comes soon; then watches in the background, for as long as the program runs.
    pub async fn begin(mut self) {
        let first = tokio::time::timeout(FIRST, self.turn());
        let pause = match first.await {
            Ok(pause) => pause,
            Err(_) => self.fail(&ConsulError::Timeout {
                address: self.client.address().to_owned(),
            }),
        };
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            loop {
                let pause = self.turn().await;
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Asks once; returns how long to pause.
    pub(super) async fn turn(&mut self) -> Duration {
        let asked = self.client.keys(&self.prefix, self.index, BLOCK).await;
        match asked {
            Ok(keys) => {
                self.take(&keys);
                BREATH
            }
            Err(error) => self.fail(&error),
        }
    }

    fn take(&mut self, keys: &Keys) {
        self.pause = PAUSES.0;
        let same = keys.index == self.index && self.told.is_none();
        self.index = match keys.index < self.index {
            // It would block until the old index is reached again.
            true => 0,
            false => keys.index,
        };
        if same {
            return;
        }
        let (index, keys_read) = (keys.index, keys.pairs.len());
        match self.live.overlay(index, &keys.pairs) {
            Ok(()) => {
                self.told = None;
                tracing::info!(index, keys = keys_read, "the configuration in Consul holds");
            }
            Err(faults) => {
                let faults = faults.join("; ");
                self.tell(&faults, |faults| {
                    tracing::error!(index, faults, "the configuration in Consul is refused as a whole; the last valid one holds");
                });
            }
        }
    }

    fn fail(&mut self, error: &ConsulError) -> Duration {
        // Whoever answers next may be another one.
        self.index = 0;
        let why = error.to_string();
        self.tell(&why, |why| {
            tracing::warn!(
                why,
                "the configuration in Consul cannot be read; what is known of it holds"
            );
        });
        self.live.unread(why);
        // Those that failed together must not come back together.
        let pause = self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.pause = (self.pause * 2).min(PAUSES.1);
        pause
    }

    /// Once, however often it is so.
    fn tell(&mut self, what: &str, tell: impl FnOnce(&str)) {
        if self.told.as_deref() != Some(what) {
            tell(what);
            self.told = Some(what.to_owned());
        }
    }
}

//! The whole output of one task, from an offset to its very end.
//!
//! ```text
//! not begun ─▶ follow=true … ─▶ the task is dead ─▶ follow=false from where it stands ─▶ end
//! ```
//! A stream that follows never ends at the end of its task; so somebody else, who sees the
//! allocation, says when that is.

use std::time::Duration;

use tokio::sync::watch;

use super::logs::{Chunk, LogStream, Position, Stream};
use super::{Client, NomadError};

/// Pause before a task that has not begun is asked for again; its beginning is told much earlier.
const NOT_YET: Duration = Duration::from_millis(250);
/// Pause after a stream that ended too early.
const AGAIN: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    allocation: String,
    task: String,
    stream: Stream,
    /// Bytes that were given out.
    offset: u64,
    /// Fires when the task is dead.
    dead: watch::Receiver<bool>,
    open: Option<LogStream>,
    /// The last reading has begun.
    last: bool,
    /// Older output than the first that was read is gone.
    headless: bool,
}

impl Follower {
    /// Follows from `offset` on. `dead` becomes true when the task has ended.
    pub fn new(
        client: Client,
        allocation: &str,
        task: &str,
        stream: Stream,
        offset: u64,
        dead: watch::Receiver<bool>,
    ) -> Self {
        Self {
            client,
            allocation: allocation.to_owned(),
            task: task.to_owned(),
            stream,
            offset,
            dead,
            open: None,
            last: false,
            headless: false,
        }
    }

    /// Bytes that were given out, from the beginning.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the beginning was gone already (the client keeps but so many files).
    pub fn is_headless(&self) -> bool {
        self.headless
    }

    /// The next piece; `None`: the task has ended and this was all.
    ///
    /// # Errors
    /// When the client cannot be asked, or keeps nothing of the task any more.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, NomadError> {
        loop {
            if !self.last && *self.dead.borrow() {
                self.last = true;
                self.open = None;
            }
            if self.open.is_none() && !self.reopen().await? {
                return Ok(None);
            }
            let Some(stream) = &mut self.open else {
                continue;
            };
            let next = tokio::select! {
                biased;
                next = stream.next_chunk() => next,
                changed = self.dead.changed(), if !self.last => {
                    // Nobody watches the task any more: what is there is all that can be had.
                    if changed.is_err() {
                        self.last = true;
                        self.open = None;
                    }
                    continue;
                }
            };
            match next {
                Ok(Some(chunk)) if chunk.data.is_empty() => {}
                Ok(Some(chunk)) => return Ok(Some(self.take(chunk))),
                Ok(None) if self.last => return Ok(None),
                Err(error) if !error.is_transient() => return Err(error),
                Ok(None) | Err(_) => {
                    self.open = None;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn take(&mut self, chunk: Chunk) -> Vec<u8> {
        if self.offset == 0 && chunk.file.is_some_and(|file| file > 0) {
            self.headless = true;
        }
        self.offset += chunk.data.len() as u64;
        chunk.data
    }

    /// Opens the stream; `false`: the task has ended without having begun.
    async fn reopen(&mut self) -> Result<bool, NomadError> {
        let position = Position {
            offset: self.offset,
            follow: !self.last,
        };
        let opened = self
            .client
            .logs(&self.allocation, &self.task, self.stream, position);
        match opened.await {
            Ok(stream) => {
                self.open = Some(stream);
                Ok(true)
            }
            Err(error) if !is_not_started(&error) => Err(error),
            Err(_) if self.last => Ok(false),
            Err(_) => {
                tokio::select! {
                    () = tokio::time::sleep(NOT_YET) => {}
                    changed = self.dead.changed() => self.last = changed.is_err(),
                }
                Ok(true)
            }
        }
    }
}

/// `client/fs_endpoint.go`: "task %q not started yet. No logs available".
fn is_not_started(error: &NomadError) -> bool {
    matches!(error, NomadError::NotFound { text, .. } if text.contains("not started yet"))
}

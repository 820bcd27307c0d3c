//! Output of tasks, as clients keep it (<https://developer.hashicorp.com/nomad/api-docs/client#stream-logs>).
//!
//! Frames are JSON values without anything between them. Their `Offset` is not to be relied on;
//! bytes are counted here.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Response;
use serde::Deserialize;

use super::client::Call;
use super::frames::Values;
use super::retry::Repeat;
use super::{Client, NomadError};

/// While it follows, Nomad sends an empty frame each second.
const SILENCE: Duration = Duration::from_secs(30);

/// Longest for a client to begin; one that hangs must not hold up who reads of others.
const OPENED: Duration = Duration::from_secs(10);

/// Which output of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the customary words")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// From where, and whether to wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Bytes from the beginning of the oldest file that is still there.
    pub offset: u64,
    /// It goes on after the end of what is there; even after the end of the task.
    pub follow: bool,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The bytes.
    pub data: Vec<u8>,
    /// Number of the file it is from: a first one above 0 means that older ones are gone.
    pub file: Option<u64>,
}

/// A frame on the wire (`client/structs/structs.go` and `command/agent/fs_endpoint.go`).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Frame {
    data: Option<String>,
    file: Option<String>,
}

/// Output as it comes.
#[derive(Debug)]
pub struct LogStream {
    client: Client,
    what: String,
    response: Response,
    values: Values,
}

impl Client {
    /// Opens the output of a task.
    ///
    /// # Errors
    /// [`NomadError::NotFound`] when the task has not begun, or its allocation is gone.
    pub async fn logs(
        &self,
        allocation: &str,
        task: &str,
        stream: Stream,
        position: Position,
    ) -> Result<LogStream, NomadError> {
        let what = format!("read the output of the task {task} of {allocation}");
        let (offset, follow) = (position.offset.to_string(), position.follow.to_string());
        let call = Call {
            query: &[
                ("task", task),
                ("type", stream.as_str()),
                ("follow", follow.as_str()),
                ("offset", offset.as_str()),
                ("origin", "start"),
            ],
            // Whoever reads a log goes on where it stood.
            repeat: Repeat::Never,
            ..Call::get(&what, ["client", "fs", "logs", allocation])
        };
        let opened = tokio::time::timeout(OPENED, self.open(&call)).await;
        let response = opened.map_err(|_| self.too_late())??;
        Ok(LogStream {
            client: self.clone(),
            what,
            response,
            values: Values::default(),
        })
    }
}

impl LogStream {
    /// The next piece; `None`: no more comes.
    ///
    /// Cancel-safe: a frame that has not come whole is still there at the next call.
    ///
    /// # Errors
    /// When the connection broke, or Nomad says so in the middle of the stream.
    pub async fn next_chunk(&mut self) -> Result<Option<Chunk>, NomadError> {
        loop {
            let next = self.values.next::<Frame>();
            match next.map_err(|error| NomadError::protocol(&self.what, error))? {
                // A heartbeat, or an event of a file (its removal, its truncation).
                Some(Frame { data: None, .. }) => continue,
                Some(frame) => {
                    let data = STANDARD.decode(frame.data.unwrap_or_default());
                    let data = data.map_err(|error| NomadError::protocol(&self.what, error))?;
                    return Ok(Some(Chunk {
                        data,
                        file: frame.file.as_deref().and_then(number),
                    }));
                }
                None => {}
            }
            let chunk = self.client.next_bytes(&mut self.response, SILENCE);
            match chunk.await? {
                Some(bytes) => self.values.push(&bytes),
                None if self.values.is_torn() => {
                    return Err(NomadError::protocol(
                        &self.what,
                        "it ended in the middle of a frame",
                    ));
                }
                None => return Ok(None),
            }
        }
    }
}

/// Number of a log file: `alloc/logs/build.stdout.3` is 3.
fn number(file: &str) -> Option<u64> {
    file.rsplit('.').next()?.parse().ok()
}

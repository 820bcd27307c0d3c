//! The event stream (<https://developer.hashicorp.com/nomad/api-docs/events>).
//!
//! The first frame of a stream that may be read is a heartbeat (`{}`); from Nomad 1.11.2 on a
//! token without the right gets a 200 and the end instead. Boundary events may repeat after a
//! reconnection, and gaps are silent: who resumes lists what there is and merges by `ModifyIndex`.

use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;

use super::client::Call;
use super::frames::Values;
use super::retry::Repeat;
use super::types::{Allocation, Evaluation, Job, Node};
use super::{Client, NomadError};

const WHAT: &str = "read the event stream";
/// Nomad sends a heartbeat every 30 s (`command/agent/event_endpoint.go`); after three missed ones nobody
/// is there.
const SILENCE: Duration = Duration::from_secs(95);

/// What events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Nomad's own words")]
pub enum Topic {
    Job,
    Allocation,
    Evaluation,
    Node,
}

impl Topic {
    fn as_str(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::Allocation => "Allocation",
            Self::Evaluation => "Evaluation",
            Self::Node => "Node",
        }
    }
}

/// Events of one Raft index; a heartbeat has none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// The index.
    #[serde(rename = "Index")]
    pub index: u64,
    /// The events.
    #[serde(rename = "Events", deserialize_with = "known")]
    pub events: Vec<Event>,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Event {
    /// What it is about, such as `Allocation`.
    pub topic: String,
    /// What happened, such as `AllocationUpdated`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Id of what it is about.
    pub key: String,
    /// Raft index.
    pub index: u64,
    /// How that stands now.
    pub payload: Payload,
}

/// What an event is about, as it stands now. An allocation comes without its job.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[expect(missing_docs, reason = "Nomad's own words")]
pub struct Payload {
    pub job: Option<Job>,
    pub allocation: Option<Allocation>,
    pub evaluation: Option<Evaluation>,
    pub node: Option<Node>,
}

/// Events that can be read; one that cannot is left out, as if it were of another topic.
fn known<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Event>, D::Error> {
    let raw: Option<Vec<serde_json::Value>> = Deserialize::deserialize(from)?;
    let events = raw.unwrap_or_default().into_iter();
    Ok(events
        .filter_map(|event| {
            serde_json::from_value(event)
                .inspect_err(|error| tracing::warn!(%error, "an event of Nomad cannot be read"))
                .ok()
        })
        .collect())
}

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    response: Response,
    values: Values,
}

impl Client {
    /// Opens the event stream behind `index`, and waits for its first heartbeat: it can be read.
    ///
    /// # Errors
    /// [`NomadError::Denied`] where the token lacks `read-job`, however Nomad says so.
    pub async fn events(&self, topics: &[Topic], index: u64) -> Result<EventStream, NomadError> {
        let index = index.to_string();
        let mut query = vec![("index", index.as_str())];
        query.extend(topics.iter().map(|topic| ("topic", topic.as_str())));
        let call = Call {
            query: &query,
            // Whoever follows the stream has to know of every interruption.
            repeat: Repeat::Never,
            ..Call::get(WHAT, ["event", "stream"])
        };
        let response = self.open(&call).await?;
        let mut stream = EventStream {
            client: self.clone(),
            response,
            values: Values::default(),
        };
        match stream.next_frame().await? {
            Some(_) => Ok(stream),
            None => Err(NomadError::Denied {
                what: WHAT.into(),
                text: "it ended before its first heartbeat, which is Nomad's way to say that the token lacks read-job".into(),
            }),
        }
    }
}

impl EventStream {
    /// The next frame, a heartbeat included; `None`: the stream has ended.
    ///
    /// Cancel-safe: a frame that has not come whole is still there at the next call.
    ///
    /// # Errors
    /// When the connection broke, or nothing came for longer than three heartbeats take.
    pub async fn next_frame(&mut self) -> Result<Option<Frame>, NomadError> {
        loop {
            let next = self.values.next::<Frame>();
            if let Some(frame) = next.map_err(|error| NomadError::protocol(WHAT, error))? {
                self.client.traffic.heard();
                return Ok(Some(frame));
            }
            let chunk = self.client.next_bytes(&mut self.response, SILENCE);
            match chunk.await? {
                Some(bytes) => self.values.push(&bytes),
                None if self.values.is_torn() => {
                    return Err(NomadError::protocol(
                        WHAT,
                        "it ended in the middle of a frame",
                    ));
                }
                None => return Ok(None),
            }
        }
    }
}

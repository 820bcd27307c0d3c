//! A thin typed client of Nomad's HTTP API (<https://developer.hashicorp.com/nomad/api-docs>).
//!
//! It knows jobs, allocations, evaluations, nodes, variables, logs and the event stream, and
//! nothing of builds. Facts about Nomad are from its sources, v1.10.5 to v1.11.3.
//!
//! Errors are typed ([`NomadError`]); what is safe to repeat is repeated, with backoff and jitter,
//! nothing else is. Answers are bounded in size and time. No token is in a `Debug` or an error.

mod client;
mod error;
mod events;
mod follow;
mod frames;
mod jobs;
mod logs;
mod options;
mod retry;
mod traffic;
mod types;
mod variables;

#[cfg(test)]
mod tests;

pub use crate::wire::Token;
pub use client::{Client, Indexed};
pub use error::NomadError;
pub use events::{Event, EventStream, Frame, Payload, Topic};
pub use follow::Follower;
pub use jobs::{Dispatch, MAX_PAYLOAD};
pub use logs::{Chunk, LogStream, Position, Stream};
pub use options::{Address, Options, OptionsError, Tls};
pub use traffic::Traffic;
pub use types::{
    AgentSelf, AllocMetric, AllocStatus, Allocated, Allocation, Constraint, Dispatched, Evaluation,
    Job, JobStub, Node, NodeResources, Parameterized, Policy, Resources, Task, TaskEvent,
    TaskGroup, TaskState,
};
pub use variables::{Items, MAX_VARIABLE, Variable, VariableStub, Written};

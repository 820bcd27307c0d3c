//! The domain: ids, requests, plans, states, failures, the durable record.
//!
//! Pure: no I/O, no clock, no randomness of its own (both are passed in), and no
//! knowledge of MCP, HTTP, Nomad or Buildah.
//!
//! ```text
//! BuildRequest ── validate ──▶ Plan ──▶ (runner) ──▶ events ──▶ apply ──▶ State
//!                                └─▶ Record: acceptance, cancel mark, claim, final state
//! ```

pub mod classify;
pub mod clean;
pub mod conclude;
pub mod digest;
pub mod failure;
pub mod git_ref;
pub mod git_url;
pub mod id;
pub mod inputs;
pub mod kind;
pub mod named_context;
pub mod output;
pub mod plan;
pub mod record;
pub mod reference;
pub mod request;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod scope;
pub mod state;
pub mod status;
pub mod validate;

pub use failure::{Failure, Fault, Kind, Location};
pub use id::BuildId;
pub use plan::{Plan, PlanSource, PlanTest};
pub use record::{CancelMark, Final, Record};
pub use request::{BuildRequest, SourceRequest, TestRequest};
pub use state::{Event, Phase, State};

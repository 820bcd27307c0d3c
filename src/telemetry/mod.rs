//! Spans of requests and calls: they name the lines of the log, and go to an OpenTelemetry collector where the
//! program was built with the feature `otel` and the environment names one.
//!
//! A collector is told names and attributes that are set here and by [`note`]: methods, paths, tools, outcomes, ids
//! of builds; no headers, no arguments, no lines of any log.

mod parent;

#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod otlp;

use tracing_subscriber::{Layer, Registry};

#[cfg(not(feature = "otel"))]
pub use none::{Export, begin, end, fail, name, note, request};
#[cfg(feature = "otel")]
pub use otlp::{Export, begin, end, fail, name, note, request};
pub use parent::Parent;

/// Something that hears of spans and events.
pub type Hearer = Box<dyn Layer<Registry> + Send + Sync>;

/// The id of the caller's trace, or a new one.
fn trace_id(parent: Option<&Parent>) -> String {
    // Ids need not be secret, only different.
    let id = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
    format!("{id:032x}")
}

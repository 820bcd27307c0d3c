//! The log of a build: framed, numbered records.
//!
//! The runner writes one JSON object a line (NDJSON): a line of output, or an event. Foreign
//! output reaches the log only inside a record, so it cannot forge one. Lines are numbered from 1
//! through all phases; an event carries the number of the line before it.
//!
//! ```text
//! process output ─▶ LineSplitter ─▶ Redactor ─▶ RecordWriter ─▶ BackgroundWriter ─▶ log.ndjson
//!
//! log.ndjson ─▶ LogReader ─┬─▶ walk ─┬─▶ select ─▶ lean
//!                          ├─▶ search┘
//!                          └─▶ Fold ─▶ Progress
//! ```

mod background;
mod fold;
mod frame;
mod lean;
pub mod lines;
pub mod pattern;
mod prefilter;
pub mod progress;
pub mod reader;
pub mod record;
pub mod redact;
mod scan;
mod search;
pub mod select;
mod walk;
pub mod writer;

pub use background::BackgroundWriter;
pub use fold::Fold;
pub use lean::Row;
pub use pattern::Pattern;
pub use prefilter::Prefilter;
pub use progress::Progress;
pub use reader::LogReader;
pub use record::{Event, Line, LogRecord, Origin, ResultWord};
pub use redact::Redactor;
pub use select::{Query, Selection, Start};
pub use writer::RecordWriter;

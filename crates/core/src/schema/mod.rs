//! The contract of a tool's arguments: JSON Schemas that every host takes, and the decoder that
//! they drive.
//!
//! A Rust type is the only source. [`tool_schema`] makes its schema with the decoder's [`mark`]s
//! in it, [`published`] takes the marks out, [`decode`] reads what a caller sent by the same
//! schema.
//!
//! Invariants:
//! - What [`decode`] returns is valid against the published schema, and decodes to itself.
//! - All faults are found in one pass; time and memory are linear in the input, and what is echoed
//!   is bounded, cleaned of control, bidi and invisible characters, and never holds a value marked
//!   private.
//! - Every keyword that [`check_rules`] lets through is one that [`decode`] enforces or that
//!   asserts nothing.
//!
//! Pure: no I/O. Needs serde_json's `preserve_order`, on which the order of keys rests.

mod decode;
mod echo;
pub mod error_code;
mod fault;
mod generate;
mod lenient;
pub mod mark;
mod node;
mod rules;
mod scalar;
mod spot;
mod strict;
pub mod suggest;

pub use decode::{Decoded, decode};
pub use fault::{ArgFault, Clamped, Faults, MAX_FAULTS};
pub use generate::{output_schema, published, tool_schema};
pub use lenient::{MAX_DEPTH, MAX_JSON_TEXT};
pub use rules::{Violation, check_input_rules, check_rules};
pub use strict::strict;
pub use suggest::Synonyms;

#[cfg(test)]
mod tests;

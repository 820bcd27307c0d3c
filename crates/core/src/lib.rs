//! What a build is, what went wrong with it, and its log.
//!
//! A crate of its own, so that it can be compiled for speed where what is above is compiled for size: each line of a
//! build's output passes through it. A generic function is compiled where it is called, so what costs something for each
//! line is none.
//!
//! ```text
//! journal → diagnosis → {log, containerfile} → build → schema
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )
)]

pub mod build;
pub mod containerfile;
pub mod diagnosis;
pub mod journal;
pub mod log;
pub mod schema;

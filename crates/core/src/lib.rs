//! What a build is, what went wrong with it, and its log. Nothing here knows the systems around it.
//!
//! A crate of its own because it is compiled for speed: each line of a build's output passes through it. What is above is
//! compiled for size (`[profile.release]` of the workspace), so what is done for each line is no generic function, which
//! would be compiled where it is called.
//!
//! ```text
//! log, diagnosis → containerfile → build → schema
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
pub mod log;
pub mod schema;

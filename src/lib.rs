//! A build server for coding agents: source → build → test → publish, over MCP.
//!
//! Dependencies point down this chain only; `tests/architecture.rs` fails when an import breaks it:
//!
//! ```text
//! app → {cli → client, http} → mcp → service → backend → {nomad, runner} → {registry, git, context, consul → config}
//!                                                                → {journal → diagnosis → log, containerfile, build, schema, telemetry, wire}
//! ```
//!
//! `journal`, `log`, `diagnosis`, `containerfile`, `build` and `schema` are the crate `nomad-build-core`.
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

pub mod app;
pub mod assembly;
pub mod backend;
pub mod cli;
pub mod client;
pub mod config;
pub mod consul;
pub mod context;
pub mod git;
pub mod http;
pub mod mcp;
pub mod nomad;
pub mod registry;
pub mod runner;
pub mod service;
pub mod telemetry;
pub mod wire;

pub use nomad_build_core::{build, containerfile, diagnosis, journal, log, schema};

//! What the public conformance suite of MCP asks for, served by this program's own HTTP stack: what is not
//! declared by the server of builds is tried out here.
//!
//! `conformance_fixture sessions|streams|plain`, for tests alone: with sessions, or without, where each answer
//! is a stream or only those that something comes before. It says on standard error where it listens.
//!
//! After `conformance/src/bin/server.rs` of modelcontextprotocol/rust-sdk (Apache-2.0).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    deprecated,
    reason = "sampling, roots and logging are part of what is asked for"
)]

mod asks;
mod inputs;
mod prompts;
mod resources;
mod server;
mod tasks;
mod tools;

use nomad_build::config::{Http, Listen};
use nomad_build::http::access::Authentication;
use nomad_build::http::listen::Listener;
use nomad_build::http::stack::{Routes, Stack};
use nomad_build::service::Principal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use server::Fixture;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,rmcp=warn"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let (sessions, plain) = match std::env::args().nth(1).as_deref() {
        Some("sessions") => (true, false),
        Some("streams") => (false, false),
        Some("plain") => (false, true),
        _ => anyhow::bail!("conformance_fixture sessions|streams|plain"),
    };
    let config = Http {
        sessions,
        ..Http::default()
    };
    let listener = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse()?), None).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ending = CancellationToken::new();
    let told = ending.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        told.cancel();
    });
    tracing::info!(address = %listener.place()?, tls = false, "serving the fixture");
    let fixture = Fixture::default();
    let stack = Stack::new(&config, ending);
    let routes = Routes {
        agents: stack.streamable(move || fixture.clone(), plain),
        ..Routes::default()
    };
    let authentication = Authentication::None(Principal("conformance".into()));
    stack.serve(listener, authentication, routes).await;
    Ok(())
}

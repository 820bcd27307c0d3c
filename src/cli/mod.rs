//! The command line: one file a subcommand.

pub mod build;
pub mod check;
pub mod completions;
pub mod config;
pub mod exit;
mod follow;
pub mod kill;
pub mod logs;
mod outputs;
mod reach;
pub mod runner;
pub mod schema;
pub mod serve;
pub mod setup;
mod show;
pub mod status;
pub mod token;

use std::io;

use clap::{Parser, Subcommand};

/// A container build server for coding agents.
#[derive(Debug, Parser)]
#[command(name = "nomad-build", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "each says itself what it does, to people as well"
)]
pub enum Command {
    Serve(serve::Serve),
    Build(Box<build::Build>),
    Status(status::Status),
    Logs(logs::Logs),
    Kill(kill::Kill),
    Schema(schema::Schema),
    Token(token::MakeToken),
    Check(check::Check),
    Config(config::ShowConfig),
    Setup(setup::Setup),
    Completions(completions::Completions),
    Man(completions::Man),
    /// Parts of a build's job; started by the server, not by people.
    #[command(hide = true)]
    Runner(runner::Runner),
}

/// Asks others over the network, in this thread, until they have answered.
///
/// # Errors
/// When the kernel gives nothing to wait with.
pub(crate) fn block_on<T>(asking: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(asking))
}

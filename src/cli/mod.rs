//! The command line: one file a subcommand.

pub mod build;
pub mod check;
pub mod config;
pub mod runner;
pub mod schema;
pub mod serve;
pub mod setup;
pub mod token;

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
pub enum Command {
    /// Serve MCP over standard input and output, or over HTTP.
    Serve(serve::Serve),
    /// Build a directory on a server, test the image and push it.
    Build(build::Build),
    /// Print the tools with their JSON schemas.
    Schema(schema::Schema),
    /// Make a token for a server over HTTP.
    Token(token::MakeToken),
    /// Tell what builds need on this machine, and what mends it.
    Check(check::Check),
    /// Print the configuration, and where each value comes from.
    Config(config::ShowConfig),
    /// Make the accounts that builds run as when the server is root.
    Setup(setup::Setup),
    /// Parts of a build's job; started by the server, not by people.
    #[command(hide = true)]
    Runner(runner::Runner),
}

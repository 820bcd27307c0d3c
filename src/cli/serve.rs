//! `nomad-build serve`.

use std::path::PathBuf;

use clap::Args;

use crate::config::{BackendKind, Given, Listen};

/// Serve MCP: over standard input and output, or over HTTP.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where builds run. Default: what the configuration says (backend), else on this machine.
    #[arg(long, value_enum)]
    pub backend: Option<BackendKind>,
    /// Serve over HTTP at this address, such as 127.0.0.1:8080, or at a socket, such as unix:/run/nomad-build/mcp.sock, which is for its owner alone. Default: what the configuration says (http.listen), else over standard input and output.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<Listen>,
    /// Serve over standard input and output, whatever the configuration says.
    #[arg(long, conflicts_with_all = ["http", "no_auth"])]
    pub stdio: bool,
    /// Let everybody in who reaches the address, without a token. Only on loopback.
    #[arg(long)]
    pub no_auth: bool,
    /// Write this server's own log to daily files in a directory instead of standard error.
    #[arg(long)]
    pub log_dir: Option<PathBuf>,
    /// What lies over the configuration.
    #[command(flatten)]
    pub given: Given,
}

//! `nomad-build serve`.

use std::path::PathBuf;

use clap::Args;

use crate::assembly::Place;
use crate::config::Given;
use crate::http::listen;

/// Serve MCP: over standard input and output, or over HTTP.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where builds run.
    #[arg(long, env = "NOMAD_BUILD_BACKEND", value_enum, default_value_t)]
    pub backend: Place,
    /// Serve over HTTP at this address, such as 127.0.0.1:8080, or at a socket, such as unix:/run/nomad-build/mcp.sock, which is for its owner alone.
    #[arg(long, env = "NOMAD_BUILD_HTTP", value_name = "ADDRESS")]
    pub http: Option<listen::Place>,
    /// Let everybody in who reaches the address, without a token. Only on loopback.
    #[arg(long, requires = "http")]
    pub no_auth: bool,
    /// Write this server's own log to daily files in a directory instead of standard error.
    #[arg(long, env = "NOMAD_BUILD_LOG_DIR")]
    pub log_dir: Option<PathBuf>,
    /// What lies over the configuration.
    #[command(flatten)]
    pub given: Given,
}

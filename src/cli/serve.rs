//! `nomad-build serve`.

use clap::Args;

/// Serve MCP over standard input and output.
#[derive(Debug, Args)]
pub struct Serve {
    /// Write this server's own log to daily files in a directory instead of standard error.
    #[arg(long, env = "NOMAD_BUILD_LOG_DIR")]
    pub log_dir: Option<std::path::PathBuf>,
}

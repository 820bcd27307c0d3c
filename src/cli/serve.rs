//! `nomad-build serve`.

use clap::{Args, ValueEnum};

/// Where builds run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// On this machine.
    #[default]
    Local,
    /// As jobs of a Nomad cluster, which `NOMAD_ADDR` and its like name.
    Nomad,
}

/// Serve MCP over standard input and output.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where builds run.
    #[arg(long, env = "NOMAD_BUILD_BACKEND", value_enum, default_value_t)]
    pub backend: Place,
    /// Write this server's own log to daily files in a directory instead of standard error.
    #[arg(long, env = "NOMAD_BUILD_LOG_DIR")]
    pub log_dir: Option<std::path::PathBuf>,
}

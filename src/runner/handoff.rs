//! What publish must know of the parts before it; the job takes it from the log.

use clap::Args;

/// The tested image, and where the log stands.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Handoff {
    /// Digest of the tested image's configuration.
    #[arg(long)]
    pub image: String,
    /// Number of the log's last line.
    #[arg(long)]
    pub last_line: u64,
    /// When the build's time is over, in seconds since 1970.
    #[arg(long)]
    pub deadline: i64,
}

//! What publish must know of the parts before it; the job takes it from the log.

use clap::Args;

/// How far the log is when a part of the runner goes on with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct LogSoFar {
    /// Number of the log's last line.
    #[arg(long, default_value_t = 0)]
    pub last_line: u64,
    /// Bytes of the log, which count towards its limit.
    #[arg(long, default_value_t = 0)]
    pub log_bytes: u64,
}

impl LogSoFar {
    /// As arguments.
    pub fn arguments(self) -> [String; 4] {
        let words = ["--last-line", "--log-bytes"].map(String::from);
        let [line, bytes] = [self.last_line, self.log_bytes].map(|number| number.to_string());
        let [last_line, log_bytes] = words;
        [last_line, line, log_bytes, bytes]
    }
}

/// The tested image, and where the log stands.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Handoff {
    /// Digest of the tested image's configuration.
    #[arg(long)]
    pub image: String,
    /// How far the log is.
    #[command(flatten)]
    pub log: LogSoFar,
    /// When the build's time is over, in seconds since 1970.
    #[arg(long)]
    pub deadline: i64,
}

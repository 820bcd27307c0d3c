//! What `runner build` hands to `runner publish`, through a file in the work directory.

use serde::{Deserialize, Serialize};

/// The tested image, and where the log stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// Digest of the tested image's configuration.
    pub image_id: String,
    /// Number of the last line.
    pub last_line: u64,
    /// When the build's time is over, in seconds since 1970.
    pub deadline: i64,
}

/// Its name in the work directory.
pub const HANDOFF: &str = "handoff.json";

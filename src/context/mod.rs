//! Build contexts: a directory or a list of files becomes a deterministic tar stream
//! ([`snapshot_dir`], [`snapshot_files`]), and such a stream becomes a directory again ([`unpack`]);
//! [`overlay_files`] writes files into a checked-out tree.
//!
//! ```text
//! directory ─▶ control (Containerfile, ignore file) ─▶ walk ─▶ tree + given files ─▶ tar + digest
//! ```
//!
//! Invariants
//! - Every directory is entered by descriptor, one name at a time, without following a symbolic
//!   link, so a tree that changes underneath cannot lead out of its root.
//! - Nothing is read from or written to the outside of the given directory.
//! - The same tree gives the same bytes: sorted, no owners, whole seconds.
//! - All faults of a tree are reported at once, at most [`MAX_FAULTS`] of them by name.
//!
//! Blocking: call it from a thread that may block.

mod archive;
mod beneath;
mod control;
mod error;
mod extent;
mod fingerprint;
mod glob;
mod ignorefile;
mod links;
mod measure;
mod overlay;
mod path;
mod snapshot;
mod state;
mod unpack;
mod walk;

#[cfg(test)]
mod tests;

pub use archive::Decoded;
pub use control::{ControlFiles, control_files, directory_below, read_file};
pub use error::{Fault, FaultKind, Faults, Heavy, MAX_FAULTS, SnapshotError};
pub use extent::Extent;
pub use fingerprint::Fingerprints;
pub use glob::GlobFault;
pub use ignorefile::IgnoreFault;
pub(crate) use links::leaves_by_text;
pub use measure::{Excess, MeasureError, measure};
pub use overlay::{OverlayError, OverlayFault, OverlayObstacle, overlay_files};
pub use path::{FileFault, PathFault, check_files};
pub(crate) use path::{MAX_DEPTH, MAX_PATH};
pub use snapshot::{Snapshot, check_dir, snapshot_dir, snapshot_files, snapshot_whole};
#[cfg(test)]
pub(crate) use state::next_tick;
pub use state::state;
pub use unpack::{EntryFault, UnpackError, Unpacked, unpack};

/// A file that the caller of a build gave as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextFile {
    /// Relative to the root of the context; see [`check_files`].
    pub path: String,
    /// What stands in it.
    pub text: String,
    /// Mode 0755 instead of 0644.
    pub executable: bool,
}

impl ContextFile {
    fn mode(&self) -> u32 {
        if self.executable { 0o755 } else { 0o644 }
    }
}

/// How big a context may be, on either side of the tar stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Contents of all regular files together, in bytes.
    pub bytes: u64,
    /// Files, links and directories together.
    pub entries: u64,
}

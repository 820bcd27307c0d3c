//! The runner: executes one plan inside its job, on this machine or on a cluster.
//!
//! ```text
//! runner build    source ─▶ build ─▶ test ─▶ pack      foreign code, no publish credentials
//! runner publish  blobs ─▶ commit point ─▶ tags        publish credentials, no foreign code
//! runner enclose  around the sandbox                   (network, lifeline)
//! runner enter    the way into the sandbox             (PID 1 of the build's namespaces)
//! ```
//! Everything it says goes to stdout as records (`crate::log`); its exit status is the gate
//! between the parts.

pub mod attack;
pub mod build;
pub mod cache;
pub mod cgroup;
pub mod collect;
pub mod container;
pub mod core_dumps;
pub mod enclose;
pub mod enter;
pub mod entry;
pub mod fingerprint;
pub mod handed;
pub mod handoff;
pub mod images;
mod inputs;
pub mod kept;
mod leftovers;
pub mod limits;
pub mod lock;
pub mod mirrored;
pub mod network;
pub mod outputs;
pub mod phases;
mod printed;
pub mod probe;
pub mod process;
pub mod proven;
pub mod publish;
pub mod reporter;
pub mod runtime;
pub mod sandbox;
pub mod seccomp;
mod seen;
pub mod settings;
pub mod source;
pub mod store;
pub mod subid;
pub mod sweep;
pub mod test;
pub mod trial;
pub mod usage;
pub mod userns;
pub mod workdir;

pub use cgroup::Cgroup;
pub use handoff::{Handoff, LogSoFar};
pub use reporter::Reporter;
pub use settings::Settings;
pub use workdir::WorkDir;

/// Exit statuses of the runner.
pub mod exit {
    /// Every phase ended well.
    pub const PASSED: u8 = 0;
    /// A phase failed; the `result` record says why.
    pub const FAILED: u8 = 10;
    /// The build's time was over.
    pub const TIMED_OUT: u8 = 11;
    /// It was told to stop.
    pub const INTERRUPTED: u8 = 12;
    /// What earlier builds left was damaged and is discarded: the same again will succeed.
    pub const AGAIN: u8 = 13;
}

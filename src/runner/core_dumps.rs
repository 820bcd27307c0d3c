//! No process of this program, and none that it starts, leaves its memory in a core dump: there are
//! credentials in it.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes that a core dump may have. No dump is as small; and where dumps go to a program, which no other
/// limit keeps them from, the kernel takes a limit of exactly one byte for "none" (fs/coredump.c).
pub const LIMIT: u64 = 1;

/// Forbids core dumps to this process and all that it starts, for good.
///
/// # Errors
/// When the kernel refuses.
pub fn forbid() -> io::Result<()> {
    // A limit that is lower already cannot be raised.
    let limit = getrlimit(Resource::Core)
        .maximum
        .map_or(LIMIT, |hard| hard.min(LIMIT));
    let both = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    Ok(setrlimit(Resource::Core, both)?)
}

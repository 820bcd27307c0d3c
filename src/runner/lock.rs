//! Files that are locked with flock(2): held by a process and those it hands the file to, and free
//! the moment the last of them is gone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Opens a file to be locked; makes it when it is missing.
///
/// # Errors
/// When it cannot be opened.
pub fn lock_file(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Locks a file for this process and those it hands the file to; waits.
///
/// # Errors
/// When it cannot be opened or locked.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = lock_file(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// The same as [`lock`] without waiting; `None` when somebody else holds it.
///
/// # Errors
/// When it cannot be opened.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    attempt(path, FlockOperation::NonBlockingLockExclusive)
}

/// Holds a file together with others, without waiting; `None` when somebody has it for itself.
///
/// # Errors
/// When it cannot be opened.
pub fn try_share(path: &Path) -> io::Result<Option<File>> {
    attempt(path, FlockOperation::NonBlockingLockShared)
}

fn attempt(path: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    let file = lock_file(path)?;
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a locked file is still the one at its path: what it stood for may have been removed
/// between opening and locking.
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

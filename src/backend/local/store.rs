//! Files with check-and-set: the record of a build, and locks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::build::Record;
use crate::build::record::CommitOutcome;
use crate::runner::publish::Gate;
use crate::runner::reporter::now_ms;
use crate::runner::workdir::read_json;
use async_trait::async_trait;

pub use crate::runner::lock::{lock, lock_file, try_lock};

use super::layout::BuildDir;

/// Opens a file for appending, for its owner only; makes it when it is missing.
///
/// # Errors
/// When it cannot be opened.
pub fn append(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Writes a file as a whole: whoever reads it sees the old or the new one. Only one may write it at
/// the same time, so what a killed writer left half done is taken by the next.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

/// Reads the record.
///
/// # Errors
/// When it is missing or damaged.
pub fn read(dir: &BuildDir) -> io::Result<Record> {
    read_json(&dir.record())
}

/// Changes the record: nobody else can write between reading and writing.
///
/// # Errors
/// When it cannot be read or written; then it is as before.
pub fn update<T>(dir: &BuildDir, change: impl FnOnce(&mut Record) -> T) -> io::Result<(T, Record)> {
    let _lock = lock(&dir.record_lock())?;
    let before = read(dir)?;
    let mut after = before.clone();
    let answer = change(&mut after);
    if after != before {
        replace(
            &dir.record(),
            &serde_json::to_vec(&after).map_err(io::Error::other)?,
        )?;
    }
    Ok((answer, after))
}

/// The commit point of a build whose record is a file.
#[derive(Debug)]
pub struct FileGate {
    dir: BuildDir,
}

impl FileGate {
    /// The gate of the build in `dir`.
    pub fn new(dir: BuildDir) -> Self {
        Self { dir }
    }
}

#[async_trait]
impl Gate for FileGate {
    async fn commit(&self) -> io::Result<CommitOutcome> {
        update(&self.dir, |record| record.request_commit(now_ms())).map(|(answer, _)| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_left_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        fs::write(dir.path().join("record.new"), "half of a rec").unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

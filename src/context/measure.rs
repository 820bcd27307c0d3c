//! How much a tree on disk holds, against the limits of a source.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, statat};
use rustix::io::Errno;
use thiserror::Error;

use super::Limits;
use super::beneath::open_directory;
use super::path::{MAX_DEPTH, MAX_PATH};

/// What a source has too much of; the sentence goes on from "the source has …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Excess {
    /// Allowed bytes.
    #[error("more than {} (limits.context_mb)", mebibytes(*.0))]
    Bytes(u64),
    /// Allowed entries.
    #[error("more than {0} files and directories (limits.context_entries)")]
    Entries(u64),
    #[error("paths of more than {MAX_PATH} bytes or {MAX_DEPTH} directories")]
    Path,
}

impl Limits {
    /// Whether so much is allowed.
    pub fn check(self, bytes: u64, entries: u64) -> Result<(), Excess> {
        if bytes > self.bytes {
            return Err(Excess::Bytes(self.bytes));
        }
        if entries > self.entries {
            return Err(Excess::Entries(self.entries));
        }
        Ok(())
    }
}

/// Why a tree could not be measured to its end.
#[derive(Debug, Error)]
pub enum MeasureError {
    #[error("the source has {0}")]
    TooBig(#[from] Excess),
    #[error("the source cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Counts all that is below `root`, which may grow meanwhile, and stops at the first limit. Blocks.
pub fn measure(root: &Path, limits: Limits) -> Result<(), MeasureError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(io::Error::from)?;
    let mut sum = Sum {
        limits,
        bytes: 0,
        entries: 0,
    };
    sum.directory(root.as_fd(), 0)
}

struct Sum {
    limits: Limits,
    bytes: u64,
    entries: u64,
}

impl Sum {
    fn directory(&mut self, fd: BorrowedFd<'_>, depth: usize) -> Result<(), MeasureError> {
        for entry in Dir::read_from(fd).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match self.entry(fd, name, depth) {
                // What has just been removed does not count.
                Err(MeasureError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        depth: usize,
    ) -> Result<(), MeasureError> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            self.bytes = self.bytes.saturating_add(size);
        }
        self.entries += 1;
        self.limits.check(self.bytes, self.entries)?;
        if depth >= MAX_DEPTH {
            return Err(Excess::Path.into());
        }
        if kind != FileType::Directory {
            return Ok(());
        }
        match open_directory(parent, name) {
            Ok(fd) => self.directory(fd.as_fd(), depth + 1),
            // It was another thing a moment ago.
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    match (bytes >> 20, bytes % (1 << 20)) {
        (whole, 0) if whole > 0 => format!("{whole} MiB"),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn found(root: &Path, bytes: u64, entries: u64) -> Option<Excess> {
        match measure(root, Limits { bytes, entries }) {
            Ok(()) => None,
            Err(MeasureError::TooBig(excess)) => Some(excess),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn files_count_with_their_size_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/x"), [0; 100]).unwrap();
        fs::write(dir.path().join("outside"), [0; 1000]).unwrap();
        fs::hard_link(root.join("a/b/x"), root.join("y")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("l")).unwrap();
        std::os::unix::fs::symlink("..", root.join("m")).unwrap();
        assert_eq!(found(&root, 200, 6), None);
        assert_eq!(found(&root, 199, 6), Some(Excess::Bytes(199)));
        assert_eq!(found(&root, 200, 5), Some(Excess::Entries(5)));
        assert!(
            measure(
                &dir.path().join("none"),
                Limits {
                    bytes: 1,
                    entries: 1
                }
            )
            .is_err()
        );
    }

    #[test]
    fn depth_ends_where_that_of_a_snapshot_ends() {
        let dir = tempfile::tempdir().unwrap();
        let deepest = dir.path().join("d/".repeat(MAX_DEPTH - 1));
        fs::create_dir_all(&deepest).unwrap();
        fs::write(deepest.join("x"), "").unwrap();
        assert_eq!(found(dir.path(), 10, 1000), None);
        fs::create_dir(deepest.join("d")).unwrap();
        assert_eq!(found(dir.path(), 10, 1000), None);
        fs::write(deepest.join("d/x"), "").unwrap();
        assert_eq!(found(dir.path(), 10, 1000), Some(Excess::Path));
    }

    #[test]
    fn limits_are_named_as_the_operator_knows_them() {
        let text = |excess: Excess| excess.to_string();
        assert_eq!(
            text(Excess::Bytes(2 << 30)),
            "more than 2048 MiB (limits.context_mb)"
        );
        assert_eq!(
            text(Excess::Bytes(1000)),
            "more than 1000 bytes (limits.context_mb)"
        );
        assert_eq!(
            text(Excess::Entries(7)),
            "more than 7 files and directories (limits.context_entries)"
        );
    }
}

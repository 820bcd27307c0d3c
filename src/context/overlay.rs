//! Writes given files into a tree from elsewhere, which may be full of traps.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, openat, statat, unlinkat};
use rustix::io::Errno;
use thiserror::Error;

use super::ContextFile;
use super::beneath::{Beneath, Blocked, Obstacle};
use super::error::MAX_FAULTS;
use super::path::{FileFault, check_files, show};

/// Why not all given files were written. The tree may hold some of them.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// The tree cannot be opened.
    #[error("{}: {source}", show(path))]
    Root { path: PathBuf, source: io::Error },
    /// All bad paths; nothing was written.
    #[error("{}", named(.0))]
    Paths(Vec<FileFault>),
    /// All files that could not be written.
    #[error("{}", named(.0))]
    Files(Vec<OverlayFault>),
}

/// One a line, as many as are named of a tree.
fn named(faults: &[impl std::fmt::Display]) -> String {
    let mut lines: Vec<String> = faults
        .iter()
        .take(MAX_FAULTS)
        .map(ToString::to_string)
        .collect();
    if let more @ 1.. = faults.len() - lines.len() {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// A file that could not be written.
#[derive(Debug, Error)]
#[error("{}: {obstacle}", show(Path::new(path)))]
pub struct OverlayFault {
    /// As given.
    pub path: String,
    pub obstacle: OverlayObstacle,
}

/// What was in its way.
#[derive(Debug, Error)]
pub enum OverlayObstacle {
    #[error("{} is a symbolic link; give the file at the place that it leads to", show(.0))]
    Symlink(PathBuf),
    #[error("{} is not a directory", show(.0))]
    NotADirectory(PathBuf),
    #[error("it is a directory; give a path below it")]
    Directory,
    #[error("it cannot be written ({0})")]
    Io(#[source] io::Error),
}

/// Writes `files` below `dest`. A link in the way of a parent is an error; a file or link at the
/// very place is replaced, never written through. Blocks.
pub fn overlay_files(dest: &Path, files: &[ContextFile]) -> Result<(), OverlayError> {
    let faults = check_files(files);
    if !faults.is_empty() {
        return Err(OverlayError::Paths(faults));
    }
    let mut tree = Beneath::open(dest).map_err(|source| OverlayError::Root {
        path: dest.to_owned(),
        source,
    })?;
    let faults: Vec<OverlayFault> = files
        .iter()
        .filter_map(|file| {
            let obstacle = write(&mut tree, file).err()?;
            Some(OverlayFault {
                path: file.path.clone(),
                obstacle,
            })
        })
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(OverlayError::Files(faults))
    }
}

fn write(tree: &mut Beneath, file: &ContextFile) -> Result<(), OverlayObstacle> {
    let path = Path::new(&file.path);
    let (parent, name) = tree
        .parent_of(path, true)
        .map_err(|Blocked { at, obstacle }| match obstacle {
            Obstacle::Symlink => OverlayObstacle::Symlink(at),
            Obstacle::NotADirectory => OverlayObstacle::NotADirectory(at),
            Obstacle::System(errno) => OverlayObstacle::Io(errno.into()),
        })?;
    let mut written = create_new(parent, Path::new(name))?;
    written
        .write_all(file.text.as_bytes())
        .map_err(OverlayObstacle::Io)?;
    fchmod(&written, Mode::from_raw_mode(file.mode())).map_err(|errno| errno.into())
}

/// A new, empty file in place of whatever file or link was there.
pub(super) fn create_new(parent: BorrowedFd<'_>, name: &Path) -> Result<File, OverlayObstacle> {
    clear(parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Removes the file or link `name`, if there is one.
pub(super) fn clear(parent: BorrowedFd<'_>, name: &Path) -> Result<(), OverlayObstacle> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Err(OverlayObstacle::Directory)
        }
        Ok(_) => Ok(unlinkat(parent, name, AtFlags::empty())?),
    }
}

impl From<Errno> for OverlayObstacle {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

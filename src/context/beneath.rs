//! Directories below one root, opened by descriptor and never through a symbolic link.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, statat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Walks below a root. It keeps the descriptors of the last directory and its parents, so that
/// paths taken in order cost one `openat` each.
#[derive(Debug)]
pub(super) struct Beneath {
    root: OwnedFd,
    stack: Vec<(OsString, OwnedFd)>,
    created: u64,
}

/// What stands in the way of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Symlink,
    NotADirectory,
    System(Errno),
}

/// The component that could not be entered, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    pub at: PathBuf,
    pub obstacle: Obstacle,
}

impl Beneath {
    /// The root itself may be reached through links: its caller chose it.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(root, flags, Mode::empty())?,
            stack: Vec::new(),
            created: 0,
        })
    }

    /// The root itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// How many directories were created on the way.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// The directory that holds `path`, and the last name of `path`.
    pub fn parent_of<'p>(
        &mut self,
        path: &'p Path,
        create: bool,
    ) -> Result<(BorrowedFd<'_>, &'p OsStr), Blocked> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok((self.directory(parent, create)?, name)),
            _ => Err(invalid(path)),
        }
    }

    /// Opens the directory `path`, which is relative to the root (empty: the root).
    pub fn directory(&mut self, path: &Path, create: bool) -> Result<BorrowedFd<'_>, Blocked> {
        let names = path
            .components()
            .map(|component| match component {
                Component::Normal(name) => Ok(name),
                _ => Err(invalid(path)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let shared = self
            .stack
            .iter()
            .zip(&names)
            .take_while(|((have, _), want)| have == *want)
            .count();
        self.stack.truncate(shared);
        for (depth, name) in names.iter().enumerate().skip(shared) {
            let (fd, created) = enter(self.top(), name, create).map_err(|obstacle| Blocked {
                at: names.iter().take(depth + 1).collect(),
                obstacle,
            })?;
            self.created += u64::from(created);
            self.stack.push(((*name).to_owned(), fd));
        }
        Ok(self.top())
    }

    fn top(&self) -> BorrowedFd<'_> {
        self.stack
            .last()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }
}

fn invalid(path: &Path) -> Blocked {
    Blocked {
        at: path.to_owned(),
        obstacle: Obstacle::System(Errno::INVAL),
    }
}

/// Opens the directory `name` in `parent`; the flag says that it had to be created.
fn enter(parent: BorrowedFd<'_>, name: &OsStr, create: bool) -> Result<(OwnedFd, bool), Obstacle> {
    let mut created = false;
    let opened = match open_directory(parent, name) {
        Err(Errno::NOENT) if create => {
            mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(Obstacle::System)?;
            created = true;
            open_directory(parent, name)
        }
        other => other,
    };
    match opened {
        Ok(fd) => Ok((fd, created)),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            Err(match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    Obstacle::Symlink
                }
                Ok(_) => Obstacle::NotADirectory,
                Err(errno) => Obstacle::System(errno),
            })
        }
        Err(errno) => Err(Obstacle::System(errno)),
    }
}

/// Opens the directory `name` in `parent` for reading, no link followed.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, DIRECTORY, Mode::empty())
}

/// Opens the file `name` in `parent` for reading, no link followed, never waiting for a writer.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

//! Extracts an uploaded context. The archive is a stranger's: nothing in it is trusted.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, linkat, statat,
    symlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType, PaxExtensions};
use thiserror::Error;

use super::Limits;
use super::beneath::{Beneath, Blocked, Obstacle};
use super::measure::Excess;
use super::overlay::{OverlayObstacle, clear, create_new};
use super::path::{MAX_DEPTH, MAX_PATH, show};
use super::snapshot::GIVEN_MTIME;

/// Biggest block of pax records before an entry, in bytes.
const MAX_PAX: u64 = 64 * 1024;

/// Why an archive was not extracted. The directory may hold a part of it.
#[derive(Debug, Error)]
pub enum UnpackError {
    #[error("the directory cannot be extracted to: {0}")]
    Destination(#[source] io::Error),
    #[error("the directory to extract to is not empty")]
    NotEmpty,
    #[error("not a whole tar archive: {0}")]
    Archive(#[source] io::Error),
    #[error("the source has {0}")]
    TooBig(#[from] Excess),
    #[error("{path}: {fault}")]
    Entry {
        /// As in the archive, fit for a message.
        path: String,
        fault: EntryFault,
    },
}

/// What is wrong with one entry.
#[derive(Debug, Error)]
pub enum EntryFault {
    #[error("the name is absolute, has a `..` or a NUL, or is too long")]
    Name,
    #[error("entries of type {0:?} are not taken; only files, directories and links")]
    Type(char),
    #[error("lies behind {}, which is no directory in the archive", show(.0))]
    Parent(PathBuf),
    #[error("is a directory, and stands in the archive a second time as something else")]
    Directory,
    #[error("is a hard link to something that is not an earlier file of the archive")]
    HardLink,
    #[error("has a link target that is empty, too long or holds a NUL")]
    Target,
    #[error("has extended headers that cannot be honoured")]
    Extension,
    #[error("is not whole: the archive ends within it")]
    CutOff,
    #[error("cannot be written ({0})")]
    Io(#[source] io::Error),
}

/// What was extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, links and directories, those in between included.
    pub entries: u64,
    /// Contents in bytes, those of hard links counted for each name.
    pub bytes: u64,
}

/// Extracts `tar` into the existing empty directory `dest`, as the current user. Blocks.
///
/// Links are made as they are, wherever they lead, but nothing is written through one. Of the mode
/// the lower nine bits are kept; directories stay usable for their owner. Reads up to the end mark
/// of the archive, not to the end of the stream; an archive without one was cut off.
pub fn unpack(tar: impl Read, dest: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let mut listing = std::fs::read_dir(dest).map_err(UnpackError::Destination)?;
    if listing.next().is_some() {
        return Err(UnpackError::NotEmpty);
    }
    let mut target = Target {
        tree: Beneath::open(dest).map_err(UnpackError::Destination)?,
        directories: Vec::new(),
        limits,
        done: Unpacked {
            entries: 0,
            bytes: 0,
        },
    };
    let mut tar = Watched {
        inner: tar,
        at_end: false,
    };
    let mut archive = Archive::new(&mut tar);
    let mut names = Names::default();
    // Every entry may bring a long name, a long target and pax records of its own.
    let mut headers_left = limits.entries.saturating_mul(4).saturating_add(4);
    let entries = archive.entries().map_err(UnpackError::Archive)?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        headers_left = headers_left
            .checked_sub(1)
            .ok_or(Excess::Entries(limits.entries))?;
        if names.take_extension(&mut entry)? {
            continue;
        }
        target.extract(&mut entry, std::mem::take(&mut names))?;
    }
    if tar.at_end {
        return Err(UnpackError::Archive(io::ErrorKind::UnexpectedEof.into()));
    }
    target.finish()
}

/// Knows whether its end was reached.
struct Watched<R> {
    inner: R,
    at_end: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at_end |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

/// What extension headers say about the next entry.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Names {
    /// True when `entry` was such a header.
    fn take_extension<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool, UnpackError> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.path = Some(read(entry, MAX_PATH as u64 + 2)?),
            EntryType::GNULongLink => self.target = Some(read(entry, MAX_PATH as u64 + 2)?),
            EntryType::XHeader => self.take_pax(&read(entry, MAX_PAX)?)?,
            // Defaults for all entries: comments and the like, and names in none that is sane.
            EntryType::XGlobalHeader => drop(read(entry, MAX_PAX)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_pax(&mut self, records: &[u8]) -> Result<(), UnpackError> {
        let unfit = || fault(Path::new("pax header"), EntryFault::Extension);
        for record in PaxExtensions::new(records) {
            let record = record.map_err(|_| unfit())?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_owned()),
                b"linkpath" => self.target = Some(value.to_owned()),
                b"size" => {
                    let size = record.value().ok().and_then(|size| size.parse().ok());
                    self.size = Some(size.ok_or_else(unfit)?);
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(unfit()),
                _ => {}
            }
        }
        Ok(())
    }
}

struct Target {
    tree: Beneath,
    /// Their times are set last, because each file in them changes it.
    directories: Vec<(PathBuf, Timestamps)>,
    limits: Limits,
    done: Unpacked,
}

impl Target {
    fn extract<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        names: Names,
    ) -> Result<(), UnpackError> {
        let raw = match &names.path {
            Some(path) => path.clone(),
            None => entry.header().path_bytes().into_owned(),
        };
        let shown = PathBuf::from(OsStr::from_bytes(&raw));
        self.done.bytes = self.done.bytes.saturating_add(entry.size());
        self.check()?;
        self.place(entry, &raw, &names)
            .map_err(|kind| fault(&shown, kind))?;
        Ok(self.check()?)
    }

    fn check(&self) -> Result<(), Excess> {
        let entries = self.done.entries + self.tree.created();
        self.limits.check(self.done.bytes, entries)
    }

    fn place<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        raw: &[u8],
        names: &Names,
    ) -> Result<(), EntryFault> {
        let header = entry.header();
        let kind = header.entry_type();
        let mode = header.mode().map_err(EntryFault::Io)? & 0o777;
        let times = timestamps(header.mtime().unwrap_or(0));
        let size = entry.size();
        // Readers that disagree on the size see different archives.
        if names.size.is_some_and(|said| said != size) {
            return Err(EntryFault::Extension);
        }
        let link = match &names.target {
            Some(target) => Some(target.clone()),
            None => header.link_name_bytes().map(|name| name.into_owned()),
        };
        let Some(path) = relative(raw)? else {
            return Ok(());
        };
        // Old archives mark a directory by the slash at its end only.
        let directory = kind.is_dir() || (kind.is_file() && raw.ends_with(b"/"));
        if directory {
            return self.directory(path, mode, times);
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let (parent, name) = self.parent_of(&path)?;
                let mut file = create_new(parent, Path::new(name))?;
                copy_exactly(entry, &mut file, size)?;
                fchmod(&file, Mode::from_raw_mode(mode)).map_err(system)?;
                futimens(&file, &times).map_err(system)?;
            }
            EntryType::Symlink => {
                let target = checked_target(link)?;
                let (parent, name) = self.parent_of(&path)?;
                clear(parent, Path::new(name))?;
                symlinkat(target, parent, name).map_err(system)?;
                utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(system)?;
            }
            EntryType::Link => self.hard_link(&path, link)?,
            other => return Err(EntryFault::Type(char::from(other.as_byte()))),
        }
        self.done.entries += 1;
        Ok(())
    }

    /// The directory that holds `path`, made if need be, and the last name of `path`.
    fn parent_of<'p>(&mut self, path: &'p Path) -> Result<(BorrowedFd<'_>, &'p OsStr), EntryFault> {
        let before = self.tree.created();
        self.tree.parent_of(path, true)?;
        let created = usize::try_from(self.tree.created() - before).unwrap_or(usize::MAX);
        // The archive says nothing of them: the same archive must still give the same tree.
        let unsaid = path.ancestors().skip(1).take(created);
        let unsaid = unsaid.map(|dir| (dir.to_owned(), timestamps(GIVEN_MTIME)));
        self.directories.extend(unsaid);
        Ok(self.tree.parent_of(path, false)?)
    }

    fn directory(&mut self, path: PathBuf, mode: u32, times: Timestamps) -> Result<(), EntryFault> {
        let before = self.tree.created();
        let fd = self.tree.directory(&path, true)?;
        fchmod(fd, Mode::from_raw_mode(mode | 0o700)).map_err(system)?;
        if self.tree.created() == before {
            // One named again and again must not cost memory without end.
            self.done.entries += 1;
        }
        self.directories.push((path, times));
        Ok(())
    }

    fn hard_link(&mut self, path: &Path, link: Option<Vec<u8>>) -> Result<(), EntryFault> {
        let target = checked_target(link)?;
        let target = relative(target.as_os_str().as_bytes())?.ok_or(EntryFault::HardLink)?;
        if target == path {
            return Err(EntryFault::HardLink);
        }
        let (parent, name) = self.tree.parent_of(&target, false)?;
        let size = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                u64::try_from(stat.st_size).unwrap_or(0)
            }
            _ => return Err(EntryFault::HardLink),
        };
        // A build copies each name as a file of its own.
        self.done.bytes = self.done.bytes.saturating_add(size);
        let from = parent.try_clone_to_owned().map_err(EntryFault::Io)?;
        let (parent, new_name) = self.parent_of(path)?;
        clear(parent, Path::new(new_name))?;
        linkat(from, name, parent, new_name, AtFlags::empty()).map_err(system)
    }

    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        for (path, times) in &self.directories {
            self.tree
                .directory(path, false)
                .map_err(EntryFault::from)
                .and_then(|fd| futimens(fd, times).map_err(system))
                .map_err(|kind| fault(path, kind))?;
        }
        Ok(Unpacked {
            entries: self.done.entries + self.tree.created(),
            bytes: self.done.bytes,
        })
    }
}

fn copy_exactly(from: &mut impl Read, to: &mut File, size: u64) -> Result<(), EntryFault> {
    let copied = io::copy(from, to).map_err(EntryFault::Io)?;
    if copied == size {
        Ok(())
    } else {
        Err(EntryFault::CutOff)
    }
}

/// The name below the root; `None` for the root itself.
fn relative(raw: &[u8]) -> Result<Option<PathBuf>, EntryFault> {
    if raw.starts_with(b"/") || raw.contains(&0) || raw.len() > MAX_PATH {
        return Err(EntryFault::Name);
    }
    let mut path = PathBuf::new();
    for (depth, name) in raw
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .enumerate()
    {
        if name == b".." || depth >= MAX_DEPTH {
            return Err(EntryFault::Name);
        }
        path.push(OsStr::from_bytes(name));
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

fn checked_target(link: Option<Vec<u8>>) -> Result<PathBuf, EntryFault> {
    match link {
        Some(target) if !target.is_empty() && target.len() < MAX_PATH && !target.contains(&0) => {
            Ok(PathBuf::from(OsStr::from_bytes(&target)))
        }
        _ => Err(EntryFault::Target),
    }
}

/// The text of an extension header, without the NUL that ends a long name.
fn read<R: Read>(entry: &mut Entry<'_, R>, limit: u64) -> Result<Vec<u8>, UnpackError> {
    let size = entry.size();
    if size > limit {
        return Err(fault(Path::new("extended header"), EntryFault::Extension));
    }
    let mut text = Vec::new();
    entry
        .take(limit)
        .read_to_end(&mut text)
        .map_err(UnpackError::Archive)?;
    if text.len() as u64 != size {
        return Err(UnpackError::Archive(io::ErrorKind::UnexpectedEof.into()));
    }
    if text.last() == Some(&0) {
        text.pop();
    }
    Ok(text)
}

/// Seconds that a file system can store.
fn timestamps(mtime: u64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: i64::try_from(mtime).unwrap_or(0),
            tv_nsec: 0,
        },
    }
}

fn fault(path: &Path, fault: EntryFault) -> UnpackError {
    UnpackError::Entry {
        path: show(path),
        fault,
    }
}

fn system(errno: rustix::io::Errno) -> EntryFault {
    EntryFault::Io(errno.into())
}

impl From<Blocked> for EntryFault {
    fn from(blocked: Blocked) -> Self {
        match blocked.obstacle {
            Obstacle::Symlink | Obstacle::NotADirectory => Self::Parent(blocked.at),
            Obstacle::System(errno) => Self::Io(errno.into()),
        }
    }
}

impl From<OverlayObstacle> for EntryFault {
    fn from(obstacle: OverlayObstacle) -> Self {
        match obstacle {
            OverlayObstacle::Directory => Self::Directory,
            OverlayObstacle::Symlink(at) | OverlayObstacle::NotADirectory(at) => Self::Parent(at),
            OverlayObstacle::Io(error) => Self::Io(error),
        }
    }
}

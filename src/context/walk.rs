//! Reads a directory tree into a list of what a snapshot will hold, and collects all faults.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Stat, readlinkat, statat};
use rustix::io::Errno;

use super::beneath::{open_directory, open_file};
use super::control::Control;
use super::error::{FaultKind, Faults, Heavy, SnapshotError};
use super::path::{MAX_DEPTH, MAX_PATH};
use super::{ContextFile, Limits};

/// How far counting goes on after a limit is passed, as a multiple of the entries allowed.
const COUNT_ON: u64 = 4;

/// What a snapshot holds at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    /// Its size in bytes when it was found.
    File(u64),
    /// Its target.
    Link(PathBuf),
    /// The given file of this index.
    Given(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub node: Node,
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// Whether a path belongs to a snapshot.
#[derive(Debug, Clone, Copy)]
enum Belonging {
    Part,
    /// The rule of the ignore file that keeps it out.
    Ignored(usize),
    /// It lies in no directory that was asked for.
    Outside,
}

/// Sorted by components, so that a directory precedes what it holds.
pub(super) type Tree = BTreeMap<PathBuf, Entry>;

/// One walk through a directory.
pub(super) struct Walk<'a> {
    pub tree: Tree,
    /// Files and links left out, and directories left out as a whole.
    pub skipped: u64,
    control: &'a Control,
    given: &'a BTreeSet<&'a Path>,
    faults: &'a mut Faults,
    /// Directories on the way to here that do not belong to it themselves; they count once something in them is kept.
    pending: Vec<(PathBuf, Entry)>,
    weight: Weight,
}

impl<'a> Walk<'a> {
    pub fn new(
        control: &'a Control,
        given: &'a BTreeSet<&'a Path>,
        limits: Limits,
        faults: &'a mut Faults,
    ) -> Self {
        Self {
            tree: Tree::new(),
            skipped: 0,
            control,
            given,
            faults,
            pending: Vec::new(),
            weight: Weight::new(limits),
        }
    }

    /// Walks all of `root`.
    pub fn run(&mut self, root: BorrowedFd<'_>) -> Result<(), SnapshotError> {
        self.directory(root, Path::new(""), 0);
        self.weight.check()
    }

    fn directory(&mut self, fd: BorrowedFd<'_>, path: &Path, depth: usize) {
        let names = match self.names(fd) {
            Ok(names) => names,
            Err(errno) => return self.unreadable(path, errno),
        };
        for name in names {
            if self.weight.gave_up() {
                return;
            }
            // What vanished in the meantime was never part of the snapshot.
            if let Ok(stat) = statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                self.entry(fd, &name, &path.join(&name), &stat, depth);
            }
        }
    }

    fn names(&self, fd: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
            if names.len() as u64 > self.weight.give_up_at() {
                break;
            }
        }
        names.sort();
        Ok(names)
    }

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
        depth: usize,
    ) {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && self.given.contains(path) {
            return;
        }
        let belonging = self.belonging(path);
        let belongs = matches!(belonging, Belonging::Part);
        match (kind, belonging) {
            (FileType::Directory, Belonging::Ignored(rule)) if !self.enter_ignored(path, rule) => {
                self.skipped += 1;
            }
            (FileType::Directory, Belonging::Outside) if !self.leads_on(path) => {}
            (FileType::Directory, _) if self.too_deep(path, depth) => {}
            (FileType::Directory, _) => {
                self.subdirectory(parent, name, path, stat, depth, belongs);
            }
            (_, Belonging::Ignored(_)) => self.skipped += 1,
            (_, Belonging::Outside) => {}
            _ if self.too_deep(path, depth) => {}
            (FileType::RegularFile, Belonging::Part) => match open_file(parent, name) {
                Ok(_) => self.add(path, stat, Node::File(length(stat))),
                Err(errno) => self.unreadable(path, errno),
            },
            (FileType::Symlink, Belonging::Part) => match readlinkat(parent, name, Vec::new()) {
                Ok(target) => {
                    let target = OsString::from_vec(target.into_bytes());
                    self.add(path, stat, Node::Link(target.into()));
                }
                Err(errno) => self.unreadable(path, errno),
            },
            (other, Belonging::Part) => {
                let what = special(other);
                self.faults.add(path, FaultKind::Special { what });
            }
        }
    }

    fn subdirectory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
        depth: usize,
        belongs: bool,
    ) {
        let fd: OwnedFd = match open_directory(parent, name) {
            Ok(fd) => fd,
            Err(errno) => return self.unreadable(path, errno),
        };
        let outer = self.pending.len();
        if belongs {
            self.add(path, stat, Node::Directory);
        } else {
            self.pending
                .push((path.to_owned(), entry(stat, Node::Directory)));
        }
        self.directory(fd.as_fd(), path, depth + 1);
        self.pending.truncate(outer);
    }

    fn belonging(&self, path: &Path) -> Belonging {
        let Control {
            kept,
            places,
            ignore,
            ..
        } = self.control;
        if kept.contains(path) || places.are_named(path) {
            return Belonging::Part;
        }
        match places.in_context(path) {
            None => Belonging::Outside,
            Some(below) => (ignore.ignored_by(below)).map_or(Belonging::Part, Belonging::Ignored),
        }
    }

    fn enter_ignored(&self, path: &Path, rule: usize) -> bool {
        let below = self.control.places.in_context(path).unwrap_or(path);
        self.control.ignore.may_bring_back_beneath(below, rule) || self.leads_on(path)
    }

    /// Whether something that belongs to the snapshot may lie in a directory that does not.
    fn leads_on(&self, path: &Path) -> bool {
        let mut kept = self.control.kept.iter();
        kept.any(|kept| kept.starts_with(path)) || self.control.places.lie_in(path)
    }

    fn too_deep(&mut self, path: &Path, depth: usize) -> bool {
        let deep = depth >= MAX_DEPTH || path.as_os_str().len() > MAX_PATH;
        if deep {
            self.faults.add(path, FaultKind::TooDeep);
        }
        deep
    }

    fn unreadable(&mut self, path: &Path, errno: Errno) {
        let kind = match errno {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT => FaultKind::Changed,
            other => FaultKind::Unreadable(other.into()),
        };
        self.faults.add(path, kind);
    }

    fn add(&mut self, path: &Path, stat: &Stat, node: Node) {
        let mut found = std::mem::take(&mut self.pending);
        found.push((path.to_owned(), entry(stat, node)));
        for (path, entry) in found {
            self.weight.add(&path, &entry, &[]);
            if !self.weight.passed() {
                self.tree.insert(path, entry);
            }
        }
    }
}

fn entry(stat: &Stat, node: Node) -> Entry {
    Entry {
        node,
        mode: stat.st_mode & 0o777,
        mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
    }
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "named pipe",
        FileType::BlockDevice | FileType::CharacterDevice => "device",
        _ => "special file",
    }
}

/// Sums up what was found, also by directory to a depth of two.
pub(super) struct Weight {
    limits: Limits,
    bytes: u64,
    entries: u64,
    by_directory: BTreeMap<PathBuf, (u64, u64)>,
}

impl Weight {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: 0,
            entries: 0,
            by_directory: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, path: &Path, entry: &Entry, given: &[ContextFile]) {
        let bytes = match entry.node {
            Node::File(size) => size,
            Node::Given(index) => given.get(index).map_or(0, |file| file.text.len() as u64),
            Node::Directory | Node::Link(_) => 0,
        };
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries += 1;
        let mut directory = PathBuf::new();
        let parent = path.parent().into_iter().flat_map(Path::components);
        for component in parent.take(2) {
            directory.push(component);
            let sum = self.by_directory.entry(directory.clone()).or_default();
            sum.0 = sum.0.saturating_add(bytes);
            sum.1 += 1;
        }
    }

    fn passed(&self) -> bool {
        self.bytes > self.limits.bytes || self.entries > self.limits.entries
    }

    fn give_up_at(&self) -> u64 {
        self.limits.entries.saturating_mul(COUNT_ON)
    }

    fn gave_up(&self) -> bool {
        self.entries > self.give_up_at()
    }

    pub fn check(&self) -> Result<(), SnapshotError> {
        if !self.passed() {
            return Ok(());
        }
        Err(SnapshotError::TooBig {
            bytes: self.bytes,
            entries: self.entries,
            counted_all: !self.gave_up(),
            limits: self.limits,
            biggest: self.biggest(),
        })
    }

    /// The three heaviest directories of the first level; where one subdirectory makes up most of
    /// one, that subdirectory instead.
    fn biggest(&self) -> Vec<Heavy> {
        let by_bytes = self.bytes > self.limits.bytes;
        let weight = |heavy: &Heavy| if by_bytes { heavy.bytes } else { heavy.entries };
        let level = |depth: usize, below: &Path| -> Vec<Heavy> {
            let mut found: Vec<Heavy> = self
                .by_directory
                .range(below.to_owned()..)
                .take_while(|(path, _)| path.starts_with(below))
                .filter(|(path, _)| path.components().count() == depth)
                .map(|(path, (bytes, entries))| Heavy {
                    path: path.clone(),
                    bytes: *bytes,
                    entries: *entries,
                })
                .collect();
            found.sort_by_key(|heavy| std::cmp::Reverse(weight(heavy)));
            found.truncate(3);
            found
        };
        let mut biggest = level(1, Path::new(""));
        for heavy in &mut biggest {
            if let Some(inner) = level(2, &heavy.path).into_iter().next()
                && weight(&inner) > weight(heavy) / 4 * 3
            {
                *heavy = inner;
            }
        }
        biggest
    }
}

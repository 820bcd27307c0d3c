//! Writes a context as a deterministic tar stream.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::beneath::{Beneath, open_file};
use super::control::{Control, ControlFiles};
use super::error::{FaultKind, Faults, SnapshotError};
use super::extent::Extent;
use super::links::{Destination, follow, leaves_by_text};
use super::path::check_files;
use super::walk::{Entry, Node, Tree, Walk, Weight};
use super::{ContextFile, Limits};
use crate::build::digest::Hashing;

/// Time of given files when nothing else lies beside them, and of directories of which an archive says
/// nothing: 1980-01-02, which also zip can store.
pub(super) const GIVEN_MTIME: u64 = 315_619_200;
/// Name of a GNU entry that holds the long name of the next one.
const LONG_LINK: &[u8] = b"././@LongLink";
/// Bytes of a name that fit into a header.
const SHORT_NAME: usize = 100;

/// A written context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `sha256:…` of the stream.
    pub digest: String,
    /// Length of the stream in bytes.
    pub bytes: u64,
    /// Files and links in it.
    pub files: u64,
    /// Files, links and whole directories that the ignore file kept out.
    pub skipped_ignored: u64,
    /// Which Containerfile and ignore file were found.
    pub control: ControlFiles,
}

/// Writes the directory `root` to `out`, with `files` in place of what lies at their paths.
///
/// Of it goes in what `extent` names. `containerfile` (default: `Containerfile`, then `Dockerfile`), a path below the
/// context, decides which ignore file holds.
/// Blocks; reads only below `root`. On an error `out` may hold a part of the stream.
pub fn snapshot_dir(
    root: &Path,
    extent: &Extent,
    containerfile: Option<&str>,
    files: &[ContextFile],
    limits: Limits,
    out: impl Write,
) -> Result<Snapshot, SnapshotError> {
    let mut survey = Survey::of(root, extent, containerfile, files, limits)?;
    write(
        &survey.tree,
        files,
        Some(&mut survey.beneath),
        out,
        survey.skipped,
        survey.control,
    )
}

/// Checks that the directory `root` can become a context, as [`snapshot_dir`] does. Blocks.
///
/// # Errors
/// Every fault that [`snapshot_dir`] would find.
pub fn check_dir(root: &Path, limits: Limits) -> Result<(), SnapshotError> {
    Survey::of(root, &Extent::default(), None, &[], limits).map(drop)
}

/// Writes all of the directory `root` to `out`, whatever its ignore file says and wherever its links
/// lead. Blocks; reads only below `root`.
///
/// # Errors
/// When something in it cannot be read, or it is too big.
pub fn snapshot_whole(
    root: &Path,
    limits: Limits,
    out: impl Write,
) -> Result<Snapshot, SnapshotError> {
    let mut faults = Faults::default();
    let mut survey = Survey::whole(root, limits, &mut faults)?;
    faults.check()?;
    let beneath = Some(&mut survey.beneath);
    write(&survey.tree, &[], beneath, out, 0, survey.control)
}

fn open(root: &Path) -> Result<Beneath, SnapshotError> {
    Beneath::open(root).map_err(|source| SnapshotError::Root {
        path: root.to_owned(),
        source,
    })
}

/// What is in a directory that is to become a context.
pub(super) struct Survey {
    pub beneath: Beneath,
    pub tree: Tree,
    skipped: u64,
    control: ControlFiles,
}

impl Survey {
    /// All that can become one, with the given files.
    fn of(
        root: &Path,
        extent: &Extent,
        containerfile: Option<&str>,
        files: &[ContextFile],
        limits: Limits,
    ) -> Result<Self, SnapshotError> {
        let mut faults = Faults::from(check_files(files));
        let mut survey = Self::walk(root, extent, containerfile, files, limits, &mut faults)?;
        lay_over(&mut survey.tree, files, &mut faults);
        check_links(&survey.tree, &mut faults);
        faults.check()?;
        check_size(&survey.tree, files, limits)?;
        Ok(survey)
    }

    /// What is there beside the files, without what the ignore file keeps out.
    pub fn walk(
        root: &Path,
        extent: &Extent,
        containerfile: Option<&str>,
        files: &[ContextFile],
        limits: Limits,
        faults: &mut Faults,
    ) -> Result<Self, SnapshotError> {
        let mut beneath = open(root)?;
        let control = Control::find(&mut beneath, files, extent, containerfile, faults);
        Self::by(beneath, control, files, limits, faults)
    }

    /// All that is there, whatever an ignore file says.
    pub fn whole(root: &Path, limits: Limits, faults: &mut Faults) -> Result<Self, SnapshotError> {
        Self::by(open(root)?, Control::default(), &[], limits, faults)
    }

    fn by(
        beneath: Beneath,
        control: Control,
        files: &[ContextFile],
        limits: Limits,
        faults: &mut Faults,
    ) -> Result<Self, SnapshotError> {
        let given: BTreeSet<&Path> = files.iter().map(|file| Path::new(&file.path)).collect();
        let mut walk = Walk::new(&control, &given, limits, faults);
        walk.run(beneath.root())?;
        let (tree, skipped) = (walk.tree, walk.skipped);
        Ok(Self {
            beneath,
            tree,
            skipped,
            control: control.files,
        })
    }
}

/// Writes a context of nothing but `files` to `out`.
pub fn snapshot_files(
    files: &[ContextFile],
    limits: Limits,
    out: impl Write,
) -> Result<Snapshot, SnapshotError> {
    let mut faults = Faults::from(check_files(files));
    let mut tree = Tree::new();
    lay_over(&mut tree, files, &mut faults);
    faults.check()?;
    check_size(&tree, files, limits)?;
    write(&tree, files, None, out, 0, ControlFiles::default())
}

/// Puts the given files into the tree. They are as new as the newest file there, so that tools
/// that compare times see a change, and the same request still gives the same bytes.
fn lay_over(tree: &mut Tree, files: &[ContextFile], faults: &mut Faults) {
    let mtime = tree.values().map(|entry| entry.mtime).max();
    let mtime = mtime.unwrap_or(GIVEN_MTIME);
    let directory = Entry {
        node: Node::Directory,
        mode: 0o755,
        mtime,
    };
    for (index, file) in files.iter().enumerate() {
        let path = PathBuf::from(&file.path);
        for parent in path.ancestors().skip(1) {
            if parent.as_os_str().is_empty() {
                break;
            }
            let entry = tree
                .entry(parent.to_owned())
                .or_insert_with(|| directory.clone());
            if entry.node != Node::Directory {
                let parent = parent.to_owned();
                faults.add(&path, FaultKind::GivenBelowFile { parent });
                break;
            }
        }
        let entry = Entry {
            node: Node::Given(index),
            mode: file.mode(),
            mtime,
        };
        if let Some(old) = tree.insert(path.clone(), entry)
            && old.node == Node::Directory
        {
            faults.add(&path, FaultKind::GivenOverDirectory);
        }
    }
}

fn check_links(tree: &Tree, faults: &mut Faults) {
    let target_of = |path: &Path| match &tree.get(path)?.node {
        Node::Link(target) => Some(target.clone()),
        _ => None,
    };
    for (path, entry) in tree {
        let Node::Link(target) = &entry.node else {
            continue;
        };
        let leaves = leaves_by_text(path, target)
            || matches!(follow(path, target_of), Destination::Outside { .. });
        if leaves {
            let target = target.clone();
            faults.add(path, FaultKind::LinkLeaves { target });
        }
    }
}

fn check_size(tree: &Tree, files: &[ContextFile], limits: Limits) -> Result<(), SnapshotError> {
    let mut weight = Weight::new(limits);
    for (path, entry) in tree {
        weight.add(path, entry, files);
    }
    weight.check()
}

fn write(
    tree: &Tree,
    files: &[ContextFile],
    mut source: Option<&mut Beneath>,
    out: impl Write,
    skipped_ignored: u64,
    control: ControlFiles,
) -> Result<Snapshot, SnapshotError> {
    let mut tar = Builder::new(Hashing::new(out));
    let mut count = 0;
    for (path, entry) in tree {
        count += u64::from(entry.node != Node::Directory);
        match (&entry.node, source.as_deref_mut()) {
            (Node::Given(index), _) => {
                let text = files.get(*index).map_or("", |file| &file.text);
                put(&mut tar, path, entry, text.len() as u64, text.as_bytes())?;
            }
            (Node::File(size), Some(source)) => put_file(&mut tar, source, path, entry, *size)?,
            _ => put(&mut tar, path, entry, 0, io::empty())?,
        }
    }
    let mut done = tar.into_inner().map_err(SnapshotError::Output)?;
    done.flush().map_err(SnapshotError::Output)?;
    let (digest, bytes) = done.finish();
    Ok(Snapshot {
        digest: digest.to_string(),
        bytes,
        files: count,
        skipped_ignored,
        control,
    })
}

/// A file keeps the size that it had when it was found: what grew is cut, what shrank is a fault.
fn put_file<W: Write>(
    tar: &mut Builder<W>,
    source: &mut Beneath,
    path: &Path,
    entry: &Entry,
    size: u64,
) -> Result<(), SnapshotError> {
    let changed = || Faults::one(path, FaultKind::Changed);
    let (parent, name) = source.parent_of(path, false).map_err(|_| changed())?;
    let file = File::from(open_file(parent, name).map_err(|_| changed())?);
    let stat = file.metadata().map_err(|_| changed())?;
    if !stat.is_file() || stat.len() < size {
        return Err(changed());
    }
    let mut reader = Recording {
        inner: file.take(size),
        bytes: 0,
        error: None,
    };
    put(tar, path, entry, size, &mut reader)?;
    match reader {
        Recording {
            error: Some(error), ..
        } => Err(Faults::one(path, FaultKind::Unreadable(error))),
        Recording { bytes, .. } if bytes < size => Err(changed()),
        _ => Ok(()),
    }
}

fn put<W: Write>(
    tar: &mut Builder<W>,
    path: &Path,
    entry: &Entry,
    size: u64,
    data: impl Read,
) -> Result<(), SnapshotError> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(entry.mtime);
    header.set_size(size);
    header.set_entry_type(match &entry.node {
        Node::Directory => EntryType::Directory,
        Node::Link(_) => EntryType::Symlink,
        Node::File(_) | Node::Given(_) => EntryType::Regular,
    });
    let name = set_name(tar, EntryType::GNULongName, path.as_os_str())?;
    copy(&mut header.as_old_mut().name, name);
    if let Node::Link(target) = &entry.node {
        let name = set_name(tar, EntryType::GNULongLink, target.as_os_str())?;
        copy(&mut header.as_old_mut().linkname, name);
    }
    header.set_cksum();
    tar.append(&header, data).map_err(SnapshotError::Output)
}

/// The part of a name that fits into a header; a longer one gets an entry of its own first.
fn set_name<'n, W: Write>(
    tar: &mut Builder<W>,
    kind: EntryType,
    name: &'n OsStr,
) -> Result<&'n [u8], SnapshotError> {
    let bytes = name.as_bytes();
    let Some((short, _)) = bytes.split_at_checked(SHORT_NAME) else {
        return Ok(bytes);
    };
    let mut header = Header::new_gnu();
    copy(&mut header.as_old_mut().name, LONG_LINK);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64 + 1);
    header.set_entry_type(kind);
    header.set_cksum();
    tar.append(&header, bytes.chain(&b"\0"[..]))
        .map_err(SnapshotError::Output)?;
    Ok(short)
}

fn copy(slot: &mut [u8], name: &[u8]) {
    slot.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
}

/// Tells a fault of the file apart from one of the output, and a short file from a whole one.
struct Recording<R> {
    inner: R,
    bytes: u64,
    error: Option<io::Error>,
}

impl<R: Read> Read for Recording<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.bytes += read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.error = Some(error);
                Ok(0)
            }
        }
    }
}

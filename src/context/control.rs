//! The files that steer a build: the Containerfile and the ignore file that goes with it.
//!
//! Both are always part of the context, with every link that leads to them, and both must lie in
//! it: Buildah reads them outside of its sandbox.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, readlinkat, statat};

use super::ContextFile;
use super::beneath::{Beneath, Blocked, Obstacle, open_file};
use super::error::{FaultKind, Faults, SnapshotError};
use super::extent::{Extent, Places};
use super::ignorefile::{Ignore, MAX_IGNORE_FILE};
use super::links::{Destination, follow};
use super::path::check_path;

/// Where the files are, relative to the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlFiles {
    /// As asked for, or the default that was found.
    pub containerfile: Option<String>,
    /// The one that applies.
    pub ignore_file: Option<String>,
}

/// Finds the Containerfile (`containerfile`, or else `Containerfile`, then `Dockerfile`) and its
/// ignore file in a tree from elsewhere, and refuses those that lead out of it.
pub fn control_files(
    root: &Path,
    containerfile: Option<&str>,
) -> Result<ControlFiles, SnapshotError> {
    let mut beneath = Beneath::open(root).map_err(|source| SnapshotError::Root {
        path: root.to_owned(),
        source,
    })?;
    let mut faults = Faults::default();
    let extent = Extent::default();
    let control = Control::find(&mut beneath, &[], &extent, containerfile, &mut faults);
    faults.check()?;
    Ok(control.files)
}

/// Reads the file `path` of a tree from elsewhere, by links that stay in the tree only, up to
/// `limit` bytes. Blocks.
///
/// # Errors
/// When it is not there, is no regular file or leads out.
pub fn read_file(root: &Path, path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut tree = Beneath::open(root)?;
    match real_path(&mut tree, Path::new(path)) {
        Destination::Inside { path: real, .. } => read(&mut tree, &real, limit),
        Destination::Outside { .. } | Destination::Endless => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The directory `path` of a tree from elsewhere, by links that stay in the tree only. Blocks.
///
/// # Errors
/// When it is not there, is no directory or leads out.
pub fn directory_below(root: &Path, path: &str) -> io::Result<PathBuf> {
    let mut tree = Beneath::open(root)?;
    match real_path(&mut tree, Path::new(path)) {
        Destination::Inside { path: real, .. } => {
            tree.directory(&real, false)?;
            Ok(root.join(real))
        }
        Destination::Outside { .. } | Destination::Endless => Err(io::ErrorKind::NotFound.into()),
    }
}

fn real_path(tree: &mut Beneath, path: &Path) -> Destination {
    follow(path, |at| {
        let (parent, name) = tree.parent_of(at, false).ok()?;
        let target = readlinkat(parent, name, Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()).into())
    })
}

/// At most `limit` bytes of a file that no link leads to.
fn read(tree: &mut Beneath, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let (parent, name) = tree.parent_of(path, false).map_err(io::Error::from)?;
    let file = File::from(open_file(parent, name)?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(limit as u64).read_to_end(&mut text)?;
    Ok(text)
}

/// What is known before the tree is walked.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub files: ControlFiles,
    /// Paths that no rule keeps out.
    pub kept: BTreeSet<PathBuf>,
    pub ignore: Ignore,
    pub places: Places,
}

impl Control {
    pub fn find(
        tree: &mut Beneath,
        given: &[ContextFile],
        extent: &Extent,
        containerfile: Option<&str>,
        faults: &mut Faults,
    ) -> Self {
        let mut control = Self::default();
        let mut search = Search {
            tree,
            given,
            faults,
        };
        control.places.context = search.directory(&extent.context, &mut control.kept);
        for named in &extent.named {
            let named = search.directory(named, &mut control.kept);
            control.places.named.push(named);
        }
        let containerfiles = match containerfile {
            Some(path) => vec![extent.in_context(path)],
            None => ["Containerfile", "Dockerfile"]
                .map(|name| extent.in_context(name))
                .to_vec(),
        };
        if let Some((path, _)) = search.first(&containerfiles, &mut control.kept) {
            control.files.containerfile = Some(path);
        }
        // Buildah's order: beside the Containerfile `.dockerignore` wins, at the root it does not.
        let mut ignore_files = Vec::new();
        if let Some(path) = &control.files.containerfile {
            ignore_files.push(format!("{path}.dockerignore"));
            ignore_files.push(format!("{path}.containerignore"));
        }
        ignore_files.push(extent.in_context(".containerignore"));
        ignore_files.push(extent.in_context(".dockerignore"));
        if let Some((path, place)) = search.first(&ignore_files, &mut control.kept) {
            control.ignore = search.read_ignore(&path, place);
            control.files.ignore_file = Some(path);
        }
        control
    }
}

/// Where a file's text is.
enum Place<'a> {
    Given(&'a str),
    Tree(PathBuf),
}

struct Search<'a> {
    tree: &'a mut Beneath,
    given: &'a [ContextFile],
    faults: &'a mut Faults,
}

impl<'a> Search<'a> {
    /// Where a directory really is; the links to it belong to the snapshot.
    fn directory(&mut self, path: &str, kept: &mut BTreeSet<PathBuf>) -> PathBuf {
        let path = Path::new(path);
        match real_path(self.tree, path) {
            Destination::Inside {
                path: real,
                through,
            } => {
                kept.extend(through);
                real
            }
            // Whoever unpacks it finds nothing there.
            Destination::Outside { .. } | Destination::Endless => path.to_owned(),
        }
    }

    /// The first of `paths` that is a file, or leads to one.
    fn first(
        &mut self,
        paths: &[String],
        kept: &mut BTreeSet<PathBuf>,
    ) -> Option<(String, Place<'a>)> {
        paths
            .iter()
            .find_map(|path| Some((path.clone(), self.place(path, kept)?)))
    }

    fn place(&mut self, path: &str, kept: &mut BTreeSet<PathBuf>) -> Option<Place<'a>> {
        if let Err(fault) = check_path(path) {
            self.faults.add(Path::new(path), FaultKind::Given(fault));
            return None;
        }
        if let Some(file) = self.given.iter().find(|file| file.path == path) {
            return Some(Place::Given(&file.text));
        }
        match real_path(self.tree, Path::new(path)) {
            Destination::Outside { link, target } => {
                self.faults
                    .add(Path::new(path), FaultKind::ControlLeaves { link, target });
                None
            }
            Destination::Endless => None,
            Destination::Inside {
                path: real,
                through,
            } => {
                let (parent, name) = self.tree.parent_of(&real, false).ok()?;
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return None;
                }
                kept.extend(through);
                kept.insert(real.clone());
                Some(Place::Tree(real))
            }
        }
    }

    fn read_ignore(&mut self, path: &str, place: Place<'_>) -> Ignore {
        let text = match place {
            Place::Given(text) => Ok(text.as_bytes().to_vec()),
            // One byte more tells that it is too big.
            Place::Tree(real) => read(self.tree, &real, MAX_IGNORE_FILE + 1),
        };
        let parsed = match text {
            Ok(text) => Ignore::parse(&text),
            Err(error) => {
                self.faults
                    .add(Path::new(path), FaultKind::Unreadable(error));
                return Ignore::default();
            }
        };
        parsed.unwrap_or_else(|faults| {
            for fault in faults {
                self.faults.add(Path::new(path), FaultKind::Ignore(fault));
            }
            Ignore::default()
        })
    }
}

impl From<Blocked> for io::Error {
    fn from(blocked: Blocked) -> Self {
        match blocked.obstacle {
            Obstacle::System(errno) => errno.into(),
            Obstacle::Symlink | Obstacle::NotADirectory => rustix::io::Errno::NOTDIR.into(),
        }
    }
}

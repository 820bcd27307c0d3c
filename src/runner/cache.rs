//! What builds of one user leave for later ones.
//!
//! ```text
//! CACHE/probe.json
//!       VERSION/images/       base images; each build reads it, only the phase source writes it
//!               images.lock   held by the builds that may read them
//!               bases/HASH    one file a base image, held by the builds that use it
//!               scopes/SCOPE.N/store    layers; written by one build at a time, read by others
//!                             /mounts   RUN --mount=type=cache
//!                             /bases    base images that its layers may lie on
//!                             /alone    where the layers of the shared scope were found damaged
//!                             /writer /readers    locks
//! ```
//! Versions of Buildah share nothing. Two builds of one scope at the same time get two stores. The
//! time of the last use is the modification time of a lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::build::scope::Scopes;

use super::lock::{is_at, share, try_lock, try_share};
use super::store::{MAX_LIST, images_in};
use super::sweep::directories;
use super::workdir::read_untrusted;

/// Stores of one scope at most; more builds of it at once begin without layers.
const STORES: u32 = 64;
/// Stands in a scope that does not read the layers of another one any more.
const ALONE: &str = "alone";

/// The cache of one user and version of Buildah.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// The stores that a build may use, held until this is dropped.
#[derive(Debug)]
pub struct Layers {
    dir: PathBuf,
    shared: Option<PathBuf>,
    readers: File,
    _locks: Vec<File>,
}

/// A base image that a build uses, held until this is dropped.
#[derive(Debug)]
pub struct Base {
    /// What Buildah will look for where the Containerfile names it: with its tag.
    pub reference: String,
    /// The same, pinned to the digest that it stands for in this build, where that is known.
    pub name: String,
    /// Its id, where that is known: Buildah may store an image by another name than it was asked for.
    pub id: Option<String>,
    _lock: File,
}

impl Base {
    /// What it is known by in the store of base images.
    pub fn known_by(&self) -> &str {
        self.id.as_ref().unwrap_or(&self.name)
    }
}

impl Cache {
    /// The cache below the directory of a user.
    pub fn new(user: &Path, version: &str) -> Self {
        Self {
            root: user.join(version),
        }
    }

    /// The cache in the directory of a version.
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The store of base images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The scopes.
    pub(super) fn scopes(&self) -> PathBuf {
        self.root.join("scopes")
    }

    /// The files of the base images.
    pub(super) fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }

    /// Takes the stores of a build.
    ///
    /// # Errors
    /// When a directory cannot be made or a lock not be opened.
    pub fn take(&self, scopes: &Scopes) -> io::Result<Layers> {
        let (dir, writer, readers) = (0..STORES)
            .find_map(|number| self.take_store(&scopes.own, number).transpose())
            .unwrap_or_else(|| Err(io::Error::other("all stores of the scope are in use")))?;
        let mut locks = vec![writer];
        let shared = match scopes.shared.as_ref().filter(|_| !dir.join(ALONE).exists()) {
            None => None,
            Some(name) => (0..STORES)
                .map(|number| self.scopes().join(format!("{name}.{number}")))
                .take_while(|dir| dir.is_dir())
                .find_map(|dir| {
                    let lock = hold_for_reading(&dir).transpose()?;
                    Some(lock.map(|lock| (dir, lock)))
                })
                .transpose()?
                .map(|(dir, lock)| {
                    locks.push(lock);
                    dir
                }),
        };
        Ok(Layers {
            dir,
            shared,
            readers,
            _locks: locks,
        })
    }

    fn take_store(&self, scope: &str, number: u32) -> io::Result<Option<(PathBuf, File, File)>> {
        let dir = self.scopes().join(format!("{scope}.{number}"));
        for part in ["store", "mounts"] {
            make_dir(&dir.join(part))?;
        }
        let Some(writer) = try_lock(&dir.join("writer"))? else {
            return Ok(None);
        };
        let Some(readers) = try_share(&dir.join("readers"))? else {
            return Ok(None);
        };
        if !is_at(&writer, &dir.join("writer")) || !is_at(&readers, &dir.join("readers")) {
            return Ok(None);
        }
        writer.set_modified(SystemTime::now())?;
        Ok(Some((dir, writer, readers)))
    }

    /// Holds the base images together with other builds; waits for one that discards them.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn share_images(&self) -> io::Result<File> {
        make_dir(&self.root)?;
        share(&self.images_lock())
    }

    /// Holds the base images for oneself; `None` as long as another build has them.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn own_images(&self) -> io::Result<Option<File>> {
        try_lock(&self.images_lock())
    }

    fn images_lock(&self) -> PathBuf {
        self.root.join("images.lock")
    }

    /// Marks a base image as used by a build.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn use_base(&self, name: &str, reference: String) -> io::Result<Base> {
        make_dir(&self.bases())?;
        let path = self.bases().join(file_name(name));
        let lock = loop {
            // Whoever holds it for itself is about to remove the image; that is short.
            let file = share(&path)?;
            if is_at(&file, &path) {
                break file;
            }
        };
        fs::write(&path, name)?;
        Ok(Base {
            reference,
            name: name.to_owned(),
            id: None,
            _lock: lock,
        })
    }
}

impl Layers {
    /// The store that this build writes.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// A store that it only reads.
    pub fn shared(&self) -> Option<PathBuf> {
        self.shared.as_ref().map(|dir| dir.join("store"))
    }

    /// Reads no other store than its own.
    pub fn read_nothing(&mut self) {
        self.shared = None;
    }

    /// Keeps other builds from reading the store, unless one does.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub fn close_to_readers(&self) -> io::Result<bool> {
        match flock(&self.readers, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            // flock(2): a lock that is not converted is lost.
            Err(Errno::WOULDBLOCK) => self.open_to_readers().map(|()| false),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets other builds read the store again.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn open_to_readers(&self) -> io::Result<()> {
        Ok(flock(&self.readers, FlockOperation::LockShared)?)
    }

    /// No later build of this scope reads the store of another one.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn stay_alone(&self) -> io::Result<()> {
        fs::write(self.dir.join(ALONE), b"")
    }

    /// Makes the store again after its removal.
    ///
    /// # Errors
    /// When it is still there, or cannot be made.
    pub fn make_store(&self) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(self.store())
    }

    /// What lies behind `RUN --mount=type=cache`.
    pub fn mounts(&self) -> PathBuf {
        self.dir.join("mounts")
    }

    /// Remembers on which base images the layers of this scope may lie.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lie_on(&self, bases: &[Base]) -> io::Result<()> {
        let path = self.dir.join("bases");
        let known = fs::read_to_string(&path).unwrap_or_default();
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)?;
        for base in bases {
            if !known.lines().any(|line| line == base.name) {
                writeln!(file, "{}", base.name)?;
            }
        }
        Ok(())
    }

    /// Whether an earlier build left layers.
    pub fn is_warm(&self) -> bool {
        !images_in(&self.store()).is_empty()
    }

    /// Whether a container of an earlier build was left behind.
    pub fn has_containers(&self) -> bool {
        untidy(&self.dir)
    }
}

/// Whether a build left a container in the store of a scope.
pub(super) fn untidy(scope: &Path) -> bool {
    // Later versions keep containers that need not survive a boot in a file of their own.
    ["containers.json", "volatile-containers.json"]
        .iter()
        .any(|name| {
            let list = scope.join("store/overlay-containers").join(name);
            // A list that is not one is a reason to tidy up.
            match read_untrusted(&list, MAX_LIST) {
                Ok(text) => !matches!(text.trim_ascii(), b"" | b"[]" | b"null"),
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        })
}

/// Whether a build left a container anywhere in the cache of a user.
pub fn is_untidy(user: &Path) -> bool {
    directories(user)
        .iter()
        .flat_map(|version| directories(&version.join("scopes")))
        .any(|scope| untidy(&scope))
}

/// Whether the cache of a user has layers of a scope, for any version of Buildah.
pub fn has_scope(user: &Path, scope: &str) -> bool {
    directories(user)
        .iter()
        .any(|version| version.join("scopes").join(format!("{scope}.0")).is_dir())
}

/// A scope that is held for oneself: nobody reads or writes it.
#[derive(Debug)]
pub(super) struct Held {
    _writer: File,
    _readers: File,
}

impl Held {
    /// Takes a scope, unless a build uses it.
    pub(super) fn take(scope: &Path) -> io::Result<Option<Self>> {
        let (writer, readers) = (
            try_lock(&scope.join("writer"))?,
            try_lock(&scope.join("readers"))?,
        );
        Ok(writer.zip(readers).map(|(writer, readers)| Self {
            _writer: writer,
            _readers: readers,
        }))
    }

    /// Removes the scope: out of the way first, so that nobody takes what is half gone.
    pub(super) fn remove(self, scope: &Path) -> io::Result<()> {
        let gone = scope.with_extension(format!("gone-{}", std::process::id()));
        fs::rename(scope, &gone)?;
        fs::remove_dir_all(gone)
    }
}

fn hold_for_reading(dir: &Path) -> io::Result<Option<File>> {
    let path = dir.join("readers");
    Ok(try_share(&path)?.filter(|file| is_at(file, &path)))
}

fn file_name(name: &str) -> String {
    hex::encode(Sha256::digest(name))
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(own: &str, shared: Option<&str>) -> Scopes {
        Scopes {
            own: own.into(),
            shared: shared.map(str::to_owned),
        }
    }

    #[test]
    fn a_store_is_written_by_one_build_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), "1.2.3");
        let first = cache.take(&scopes("a", None)).unwrap();
        let second = cache.take(&scopes("a", None)).unwrap();
        let other = cache.take(&scopes("b", None)).unwrap();
        assert_ne!(first.store(), second.store());
        assert_ne!(first.store(), other.store());
        let store = first.store();
        drop(first);
        assert_eq!(cache.take(&scopes("a", None)).unwrap().store(), store);
    }

    #[test]
    fn a_shared_store_is_read_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), "1.2.3");
        assert_eq!(
            cache.take(&scopes("own", Some("main"))).unwrap().shared(),
            None
        );
        let writer = cache.take(&scopes("main", None)).unwrap();
        let reader = cache.take(&scopes("own", Some("main"))).unwrap();
        assert_eq!(reader.shared(), Some(writer.store()));
        assert_ne!(reader.store(), writer.store());
        drop(writer);
        // A reader does not keep the next writer from the warm store.
        let again = cache.take(&scopes("main", None)).unwrap();
        assert_eq!(reader.shared(), Some(again.store()));
    }
}

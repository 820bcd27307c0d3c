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
//!                             /bound    digest of what the builds mounted whose layers Buildah takes without asking
//!                             /sources  the unpacked sources of the last build
//!                             /alone    where the layers of the shared scope were found damaged
//!                             /stale    where a build that began anew could not discard them
//!                             /writer /readers    locks
//! ```
//! Versions of Buildah share nothing. Two builds of one scope at the same time get two stores; the one
//! that was used last is taken first. The time of the last use is the modification time of a lock.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::build::scope::Scopes;

use super::inputs::MadeOf;
use super::kept::Kept;
use super::lock::{is_at, try_lock, try_share};
use super::store::{MAX_LIST, images_in};
use super::sweep::directories;
use super::workdir::read_untrusted;

/// Stores of one scope at most; more builds of it at once begin without layers.
const STORES: u32 = 64;
/// Stands in a scope that does not read the layers of another one any more.
const ALONE: &str = "alone";
/// See the module.
const BOUND: &str = "bound";
/// Stands in a store that no build takes any more.
const STALE: &str = "stale";

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
    path: PathBuf,
    _lock: File,
}

impl Base {
    /// Remembers which image it is: the image goes with the last base that it is known by.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn identify(&mut self, id: String) -> io::Result<()> {
        self.note(&id)?;
        self.id = Some(id);
        Ok(())
    }

    /// A line of its file, unless it is there.
    fn note(&self, word: &str) -> io::Result<()> {
        append_lines(&self.path, [word])
    }

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
        let (there, missing) = self.stores_of(&scopes.own);
        let (dir, writer, readers) = (there.into_iter().chain(missing))
            .find_map(|dir| take_store(dir).transpose())
            .unwrap_or_else(|| Err(io::Error::other("all stores of the scope are in use")))?;
        let mut locks = vec![writer];
        let shared = match scopes.shared.as_ref().filter(|_| !dir.join(ALONE).exists()) {
            None => None,
            Some(name) => (self.stores_of(name).0.into_iter())
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

    /// The stores of a scope that a build may take, the one used last first, and places for further ones.
    fn stores_of(&self, scope: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut there, missing): (Vec<_>, Vec<_>) =
            numbered(&self.scopes(), scope).partition(|dir| dir.is_dir());
        there.retain(|dir| !dir.join(STALE).exists());
        there.sort_by_cached_key(|dir| Reverse(modified(&dir.join("writer"))));
        (there, missing)
    }

    /// Holds the base images together with other builds; `None` as long as one discards them.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn share_images(&self) -> io::Result<Option<File>> {
        make_dir(&self.root)?;
        try_share(&self.images_lock())
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

    /// Marks a base image as used by a build; `None` as long as it is being removed.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn use_base(&self, name: &str, reference: &str) -> io::Result<Option<Base>> {
        make_dir(&self.bases())?;
        let path = self.bases().join(file_name(name));
        let Some(lock) = try_share(&path)?.filter(|file| is_at(file, &path)) else {
            return Ok(None);
        };
        lock.set_modified(SystemTime::now())?;
        let base = Base {
            reference: reference.to_owned(),
            name: name.to_owned(),
            id: None,
            path,
            _lock: lock,
        };
        base.note(name)?;
        Ok(Some(base))
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

    /// Where the sources of the last build are kept.
    pub fn sources(&self) -> Kept {
        Kept::new(self.dir.join("sources"))
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
        let names = bases.iter().map(|base| base.name.as_str());
        append_lines(&self.dir.join("bases"), names)
    }

    /// No later build takes this store.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn give_up(&self) -> io::Result<()> {
        fs::write(self.dir.join(STALE), b"")
    }

    /// Whether the layers are of such builds alone as Buildah may take without having asked.
    pub fn are_made_of(&self, made_of: &MadeOf) -> bool {
        match made_of {
            MadeOf::Asked => true,
            MadeOf::Known(digest) => {
                fs::read_to_string(self.dir.join(BOUND)).is_ok_and(|bound| bound == *digest)
            }
            MadeOf::Unknown => false,
        }
    }

    /// Remembers what this build is made of, and reads no other store where that has layers of something else.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub fn make_of(&mut self, made_of: MadeOf) -> io::Result<()> {
        let digest = match made_of {
            MadeOf::Asked => return Ok(()),
            MadeOf::Known(digest) => digest,
            MadeOf::Unknown => String::new(),
        };
        self.read_nothing();
        fs::write(self.dir.join(BOUND), digest)
    }

    /// Whether an earlier build left layers.
    pub fn is_warm(&self) -> bool {
        !images_in(&self.store()).is_empty()
    }

    /// Whether a container of an earlier build was left behind.
    pub fn has_containers(&self) -> bool {
        has_containers(&self.dir)
    }
}

/// Whether a store is of no more use: a build left a container in it, or it was given up.
pub(super) fn is_spent(scope: &Path) -> bool {
    scope.join(STALE).exists() || has_containers(scope)
}

fn has_containers(scope: &Path) -> bool {
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

/// Whether something in the cache of a user is of no more use.
pub fn is_untidy(user: &Path) -> bool {
    directories(user)
        .iter()
        .flat_map(|version| directories(&version.join("scopes")))
        .any(|scope| is_spent(&scope))
}

/// Whether the cache of a user has layers of a scope, for any version of Buildah.
pub fn has_scope(user: &Path, scope: &str) -> bool {
    directories(user)
        .iter()
        .any(|version| numbered(&version.join("scopes"), scope).any(|dir| dir.is_dir()))
}

/// Where the stores of a scope are, or would be.
fn numbered(scopes: &Path, scope: &str) -> impl Iterator<Item = PathBuf> {
    (0..STORES).map(move |number| scopes.join(format!("{scope}.{number}")))
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
        let gone = scope.with_extension(format!("gone-{:016x}", fastrand::u64(..)));
        fs::rename(scope, &gone)?;
        fs::remove_dir_all(gone)
    }
}

/// Takes a store of layers to write to, unless another build has it.
fn take_store(dir: PathBuf) -> io::Result<Option<(PathBuf, File, File)>> {
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

fn hold_for_reading(dir: &Path) -> io::Result<Option<File>> {
    let path = dir.join("readers");
    Ok(try_share(&path)?.filter(|file| is_at(file, &path)))
}

fn file_name(name: &str) -> String {
    hex::encode(Sha256::digest(name))
}

/// The modification time of a file; the oldest there is when it is not there.
pub(super) fn modified(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Appends those lines that a file does not have; makes it when it is missing.
fn append_lines<'a>(path: &Path, lines: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let known = io::read_to_string(&file)?;
    for line in lines {
        if !known.lines().any(|one| one == line) {
            file.write_all(format!("{line}\n").as_bytes())?;
        }
    }
    Ok(())
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

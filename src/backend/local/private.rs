//! Credentials and secrets of builds lie in memory, never on a disk: on a tmpfs, in a directory per build.
//!
//! ```text
//! /run/nomad-build-private    root's: those that builds run as pass through, and see nothing
//! /run/user/UID/nomad-build   an ordinary user's
//! /dev/shm/nomad-build-UID    anybody's, where the other is not on a tmpfs
//!     .lock      held while a directory is made or removed
//!     ID.lock    held by the job as long as it lives
//!     ID/        of the user that the build runs as, and for nobody else (`runner::WorkDir`)
//! ```
//! The way there follows from this process's user and the build's id alone, neither from a variable nor from
//! a file: so whoever cleans up finds it, and nobody can lead root to another place.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstatfs};
use rustix::process::geteuid;

use crate::build::BuildId;
use crate::runner::lock::{lock, try_lock};

use super::user;

/// `f_type` of file systems that are in memory (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Mode bits that let others than the owner change what is in a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a directory with this bit everybody removes and renames but what is his own.
const STICKY: u32 = 0o1000;

/// The directory of one build. The job that holds it is at work: nobody else removes it.
#[derive(Debug)]
pub struct Private {
    path: PathBuf,
    _held: File,
}

impl Private {
    /// Makes the directory of a build, empty and for this process's user alone; removes what jobs that
    /// died have left there.
    ///
    /// # Errors
    /// When there is no tmpfs that can be used; says of each place why not. When a job has the build.
    pub fn make(id: &BuildId, remove: Remove<'_>) -> io::Result<Self> {
        let mut faults = Vec::new();
        for place in places() {
            match Base::open(&place, true) {
                Ok(base) => return base.make(id, remove),
                Err(fault) => faults.push(fault.to_string()),
            }
        }
        Err(io::Error::other(format!(
            "credentials and secrets of builds may lie in memory only, and there is no tmpfs for them: {}",
            faults.join("; ")
        )))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// How a directory is removed in which foreign code may have left something.
pub type Remove<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

/// Removes what there is of a build, unless a job that lives has it.
///
/// # Errors
/// When something remains.
pub fn remove(id: &BuildId, remove: Remove<'_>) -> io::Result<()> {
    bases().try_for_each(|base| base.remove(id, remove))
}

/// Removes everything that jobs which died have left, whosever builds they were.
///
/// # Errors
/// When something remains.
pub fn sweep(remove: Remove<'_>) -> io::Result<()> {
    bases().try_for_each(|base| base.sweep(remove))
}

/// Whether there is something of a build.
pub fn is_there(id: &BuildId) -> bool {
    bases().any(|base| base.has(id))
}

fn bases() -> impl Iterator<Item = Base> {
    places()
        .into_iter()
        .filter_map(|place| Base::open(&place, false).ok())
}

/// Where directories of builds may be, the first that can be used first.
fn places() -> [PathBuf; 2] {
    let uid = geteuid().as_raw();
    let first = if user::is_other() {
        "/run/nomad-build-private".into()
    } else {
        format!("/run/user/{uid}/nomad-build")
    };
    [first, format!("/dev/shm/nomad-build-{uid}")].map(PathBuf::from)
}

/// A directory on a tmpfs that nobody but this process's user can change.
#[derive(Debug)]
struct Base(PathBuf);

impl Base {
    /// Checks it, and makes it where it is missing and may be made.
    fn open(path: &Path, make: bool) -> io::Result<Self> {
        let parent = path.parent().unwrap_or(path);
        let name =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let parent = File::open(parent).map_err(name)?;
        // Nothing is made on a disk.
        in_memory(&parent).map_err(name)?;
        owned(&parent.metadata()?).map_err(name)?;
        // Those that builds run as pass through root's.
        let mode = if user::is_other() { 0o711 } else { 0o700 };
        if make {
            match fs::DirBuilder::new().mode(mode).create(path) {
                // Whatever the umask.
                Ok(()) => fs::set_permissions(path, PermissionsExt::from_mode(mode))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(name(error)),
            }
        }
        let itself = OFlags::NOFOLLOW | OFlags::DIRECTORY;
        let dir = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(itself.bits()).unwrap_or_default())
            .open(path)
            .map_err(name)?;
        in_memory(&dir).map_err(name)?;
        let metadata = dir.metadata()?;
        owned(&metadata).map_err(name)?;
        if metadata.uid() != geteuid().as_raw() || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(name(io::Error::other(
                "it was made by somebody else, or others can write to it; remove it",
            )));
        }
        Ok(Self(path.to_owned()))
    }

    fn make(&self, id: &BuildId, remove: Remove<'_>) -> io::Result<Private> {
        let _guard = self.guard()?;
        self.sweep_guarded(remove)?;
        let held = try_lock(&self.lock_of(id))?
            .ok_or_else(|| io::Error::other(format!("another job has the build {id}")))?;
        let path = self.dir_of(id);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Private { path, _held: held })
    }

    fn remove(&self, id: &BuildId, remove: Remove<'_>) -> io::Result<()> {
        if !self.has(id) {
            return Ok(());
        }
        let _guard = self.guard()?;
        self.remove_guarded(id, remove)
    }

    fn sweep(&self, remove: Remove<'_>) -> io::Result<()> {
        let _guard = self.guard()?;
        self.sweep_guarded(remove)
    }

    fn sweep_guarded(&self, remove: Remove<'_>) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let id = name.to_str().map(|name| name.trim_end_matches(".lock"));
            if let Some(id) = id.and_then(|id| id.parse().ok()) {
                self.remove_guarded(&id, remove)?;
            }
        }
        Ok(())
    }

    fn remove_guarded(&self, id: &BuildId, remove: Remove<'_>) -> io::Result<()> {
        let lock = self.lock_of(id);
        if let Some(_held) = try_lock(&lock)? {
            remove(&self.dir_of(id))?;
            fs::remove_file(lock)?;
        }
        Ok(())
    }

    fn has(&self, id: &BuildId) -> bool {
        [self.dir_of(id), self.lock_of(id)]
            .iter()
            .any(|path| path.exists())
    }

    fn guard(&self) -> io::Result<File> {
        lock(&self.0.join(".lock"))
    }

    fn dir_of(&self, id: &BuildId) -> PathBuf {
        self.0.join(id.as_str())
    }

    fn lock_of(&self, id: &BuildId) -> PathBuf {
        self.0.join(format!("{id}.lock"))
    }
}

fn in_memory(dir: impl AsFd) -> io::Result<()> {
    match IN_MEMORY.contains(&fstatfs(dir)?.f_type) {
        true => Ok(()),
        false => Err(io::Error::other("it is not on a tmpfs")),
    }
}

/// Whether nobody but root and this process's user can replace what is in a directory.
fn owned(dir: &Metadata) -> io::Result<()> {
    let trusted = [0, geteuid().as_raw()].contains(&dir.uid());
    let closed = dir.mode() & WRITABLE_BY_OTHERS == 0 || dir.mode() & STICKY != 0;
    match trusted && closed {
        true => Ok(()),
        false => Err(io::Error::other("others can replace it")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    const MODES: [u32; 4] = [0o700, 0o711, 0o755, 0o1700];

    fn in_shm() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    fn id(n: u8) -> BuildId {
        BuildId::from_random([n; 16])
    }

    fn tree(path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn said(result: io::Result<Base>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn only_what_is_in_memory_is_taken() {
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let place = disk.path().join("base");
        assert!(said(Base::open(&place, true)).contains("not on a tmpfs"));
        assert!(!place.exists(), "nothing is made on a disk");
        let memory = in_shm();
        assert!(Base::open(&memory.path().join("base"), true).is_ok());
        assert!(Base::open(&memory.path().join("missing"), false).is_err());
        assert!(Base::open(&memory.path().join("a/b"), true).is_err());
    }

    #[test]
    fn what_somebody_else_may_have_planted_is_refused() {
        let memory = in_shm();
        let real = memory.path().join("real");
        Base::open(&real, true).unwrap();
        let link = memory.path().join("link");
        symlink(&real, &link).unwrap();
        assert!(Base::open(&link, true).is_err());
        let file = memory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Base::open(&file, true).is_err());
        for mode in MODES {
            fs::set_permissions(&real, PermissionsExt::from_mode(mode)).unwrap();
            assert!(Base::open(&real, true).is_ok(), "{mode:o}");
        }
        for mode in [0o770, 0o707, 0o777, 0o1777] {
            fs::set_permissions(&real, PermissionsExt::from_mode(mode)).unwrap();
            let said = said(Base::open(&real, true));
            assert!(said.contains("others can"), "{mode:o}: {said}");
        }
        if geteuid().is_root() {
            fs::set_permissions(&real, PermissionsExt::from_mode(0o700)).unwrap();
            chown(&real, Some(4_200_000_000), None).unwrap();
            assert!(said(Base::open(&real, true)).contains("others can replace it"));
        }
    }

    #[test]
    fn a_place_that_others_can_rename_is_refused() {
        let memory = in_shm();
        let base = memory.path().join("base");
        fs::set_permissions(memory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(said(Base::open(&base, true)).contains("others can replace it"));
        fs::set_permissions(memory.path(), PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(Base::open(&base, true).is_ok());
    }

    #[test]
    fn a_directory_goes_with_its_job_and_not_before() {
        let memory = in_shm();
        let base = Base::open(&memory.path().join("base"), true).unwrap();
        let (one, other) = (
            base.make(&id(1), &tree).unwrap(),
            base.make(&id(2), &tree).unwrap(),
        );
        assert_eq!(fs::metadata(one.path()).unwrap().mode() & 0o777, 0o700);
        assert!(base.make(&id(1), &tree).is_err(), "a job has it");
        base.remove(&id(1), &tree).unwrap();
        assert!(one.path().exists(), "its job lives");
        let path = one.path().to_owned();
        fs::write(path.join("secret"), "").unwrap();
        drop(one);
        base.remove(&id(3), &tree).unwrap();
        assert!(base.has(&id(1)));
        let again = base.make(&id(1), &tree).unwrap();
        assert_eq!(
            fs::read_dir(&path).unwrap().count(),
            0,
            "nothing of the dead one"
        );
        drop(again);
        base.sweep(&tree).unwrap();
        assert!(!base.has(&id(1)) && other.path().exists());
        drop(other);
        base.remove(&id(2), &tree).unwrap();
        let left: Vec<_> = fs::read_dir(&base.0).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

//! This program, where those can execute it that builds run as.
//!
//! That is its own place, or a copy where that is closed to them, as `/root` is on most machines: cargo installs
//! for root there. A copy goes when another one is made and no build runs by it any more.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::runner::lock::is_at;

use super::accounts::HOMES;
use super::user::BuildUser;

/// The file that this process executes, also when its name is another one's by now (proc_pid_exe(5)).
const OWN: &str = "/proc/self/exe";

/// A program that a user can execute as long as this lives.
#[derive(Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Of a copy: shared by all that use it.
    _held: Option<File>,
}

impl Program {
    /// This program for `user`. Blocks for as long as copying it takes.
    ///
    /// # Errors
    /// When this program cannot find or copy itself.
    pub fn for_user(user: &BuildUser) -> io::Result<Self> {
        let own = std::env::current_exe()?;
        if user.obstacle(&own)?.is_none() {
            return Ok(Self {
                path: own,
                _held: None,
            });
        }
        Self::copied(Path::new(OWN), &Path::new(HOMES).join("program"))
    }

    /// A copy of `own` in the directory `all`.
    fn copied(own: &Path, all: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o711).create(all)?;
        let metadata = fs::metadata(own)?;
        let name = format!(
            "nomad-build-{:x}-{:x}-{:x}-{:x}",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        let path = all.join(name);
        loop {
            if !path.exists() {
                make(own, all, &path)?;
                remove_others(all, &path);
            }
            if let Some(held) = share(&path)? {
                return Ok(Self {
                    path,
                    _held: Some(held),
                });
            }
        }
    }
}

/// Holds a copy together with others; `None` when it was removed meanwhile.
fn share(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    flock(&file, FlockOperation::LockShared)?;
    Ok(is_at(&file, path).then_some(file))
}

/// Whoever copies at the same time, there is one copy in the end, and it is whole.
fn make(own: &Path, all: &Path, path: &Path) -> io::Result<()> {
    let part = tempfile::Builder::new().prefix(".").tempfile_in(all)?;
    fs::copy(own, part.path())?;
    fs::set_permissions(part.path(), fs::Permissions::from_mode(0o755))?;
    // Closed before it is executed.
    match part
        .into_temp_path()
        .persist_noclobber(path)
        .map_err(|error| error.error)
    {
        // Another one was faster, or took this for one that nobody uses.
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Removes copies that nobody uses; what cannot be removed is left to the next.
fn remove_others(all: &Path, own: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let path = entry.path();
        if path != own
            && let Ok(file) = File::open(&path)
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(%error, path = %path.display(), "an old copy of this program remains");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().flatten();
        names
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_copy_is_made_once_and_goes_when_nobody_uses_it_and_there_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (own, all) = (dir.path().join("own"), dir.path().join("all"));
        fs::write(&own, "#!/bin/sh\necho 1\n").unwrap();
        let first = Program::copied(&own, &all).unwrap();
        let again = Program::copied(&own, &all).unwrap();
        assert_eq!(first.path, again.path);
        assert_eq!(fs::metadata(&first.path).unwrap().mode() & 0o777, 0o755);
        let said = std::process::Command::new(&first.path).output().unwrap();
        assert_eq!(said.stdout, b"1\n");

        // A new version, while the old one is used, and when it is not.
        fs::remove_file(&own).unwrap();
        fs::write(&own, "#!/bin/sh\necho 22\n").unwrap();
        drop(again);
        let second = Program::copied(&own, &all).unwrap();
        assert!(first.path.exists() && second.path != first.path);
        let old = first.path.clone();
        drop(first);
        fs::write(&own, "#!/bin/sh\necho 333\n").unwrap();
        let third = Program::copied(&own, &all).unwrap();
        assert!(!old.exists() && second.path.exists());
        assert_eq!(names(&all).len(), 2, "{:?}", names(&all));
        assert!(third.path.exists());
    }

    #[test]
    fn many_that_copy_at_once_have_one_whole_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (own, all) = (dir.path().join("own"), dir.path().join("all"));
        fs::write(&own, vec![7; 1 << 20]).unwrap();
        let made: Vec<Program> = std::thread::scope(|scope| {
            let all = &all;
            let own = &own;
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(move || Program::copied(own, all).unwrap()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(names(&all).len(), 1, "{:?}", names(&all));
        for program in made {
            assert_eq!(fs::metadata(&program.path).unwrap().len(), 1 << 20);
        }
    }
}

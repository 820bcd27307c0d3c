//! This program, where those can execute it that builds run as.
//!
//! That is its own place, or a copy where that is closed to them, as `/root` is on most machines: cargo installs
//! for root there. A copy goes when another one is made and no build runs by it any more.
//!
//! ```text
//! HOMES/program/NAME        the copy; NAME is of the file that it was made of
//!               NAME.lock   shared by all that use it; for root alone, or builds could hold it
//!               NAME.*.part one that is being made, by one of them
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::runner::lock::{is_at, try_lock, try_share};

use super::accounts::HOMES;
use super::user::BuildUser;

/// The file that this process executes, also when its name is another one's by now (proc_pid_exe(5)).
const OWN: &str = "/proc/self/exe";
/// Between two tries to take what somebody removes.
const AGAIN: Duration = Duration::from_millis(20);

/// A program that a user can execute as long as this lives.
#[derive(Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Of a copy.
    _held: Option<File>,
}

impl Program {
    /// `own`, which is this program, or a copy of it, for `user`. Blocks for as long as copying takes.
    ///
    /// # Errors
    /// When this program cannot be copied, or the user cannot execute the copy, either.
    pub fn for_user(own: &Path, user: &BuildUser) -> io::Result<Self> {
        match user.obstacle(own) {
            Ok(None) => {
                return Ok(Self {
                    path: own.to_owned(),
                    _held: None,
                });
            }
            Ok(Some(_)) => {}
            // It was replaced, and is executed all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let copy = Self::copied(Path::new(OWN), &Path::new(HOMES).join("program"))?;
        match user.obstacle(&copy.path)? {
            None => Ok(copy),
            Some(place) => Err(io::Error::other(format!(
                "the user {}, as which builds run, can execute neither {} nor a copy of it: {} is closed to it; chmod o+x it",
                user.name,
                own.display(),
                place.display()
            ))),
        }
    }

    /// A copy of `own` in the directory `all`.
    fn copied(own: &Path, all: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(own)?;
        let name = format!(
            "nomad-build-{:x}-{:x}-{:x}-{:x}",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        for dir in [all.parent(), Some(all)].into_iter().flatten() {
            if !dir.is_dir() {
                DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
                // Whatever the umask.
                fs::set_permissions(dir, Permissions::from_mode(0o711))?;
            }
        }
        let (path, lock) = (all.join(&name), lock_of(all, &name));
        loop {
            let held = try_share(&lock)?.filter(|held| is_at(held, &lock));
            if held.is_none() {
                // Somebody removes it, which takes no time.
                std::thread::sleep(AGAIN);
                continue;
            }
            if !path.exists() {
                make(own, all, &name)?;
                remove_others(all, &name);
            }
            return Ok(Self { path, _held: held });
        }
    }
}

fn lock_of(all: &Path, name: &str) -> PathBuf {
    all.join(format!("{name}.lock"))
}

/// Whoever copies at the same time, there is one copy in the end, and it is whole.
fn make(own: &Path, all: &Path, name: &str) -> io::Result<()> {
    let mut part = tempfile::Builder::new()
        .prefix(&format!("{name}."))
        .suffix(".part")
        .tempfile_in(all)?;
    io::copy(&mut File::open(own)?, part.as_file_mut())?;
    part.as_file()
        .set_permissions(Permissions::from_mode(0o755))?;
    // Closed before it is executed.
    let made = part.into_temp_path().persist_noclobber(all.join(name));
    match made.map_err(|error| error.error) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Removes copies that nobody uses, with all that belongs to them; what cannot be removed is left to the next.
fn remove_others(all: &Path, own: &str) {
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let others = names.iter().filter_map(|name| name.strip_suffix(".lock"));
    for other in others.filter(|other| *other != own) {
        let Ok(Some(_held)) = try_lock(&lock_of(all, other)) else {
            continue;
        };
        let belongs = |name: &&String| {
            let rest = name.strip_prefix(other);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        // The lock is the last one: whoever takes it finds nothing else.
        let (locks, files): (Vec<&String>, Vec<&String>) = names
            .iter()
            .filter(belongs)
            .partition(|name| name.ends_with(".lock"));
        for name in files.into_iter().chain(locks) {
            if let Err(error) = fs::remove_file(all.join(name)) {
                tracing::warn!(%error, name, "an old copy of this program remains");
            }
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
        assert!(!old.exists() && second.path.exists() && third.path.exists());
        assert_eq!(names(&all).len(), 4, "{:?}", names(&all));
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
        assert_eq!(names(&all).len(), 2, "{:?}", names(&all));
        for program in made {
            assert_eq!(fs::metadata(&program.path).unwrap().len(), 1 << 20);
        }
    }
}

//! Secrets of `RUN --mount=type=secret`, handed to Buildah so that none comes to lie on a disk.
//!
//! Buildah copies the file of a secret into its storage, and mounts the copy (buildah 1.43, run_common.go,
//! `getSecretMount`). So the file is a pipe: Buildah waits at it, and meanwhile the directory of its copies
//! is led to a tmpfs of the sandbox, which is gone with it.
//!
//! ```text
//! Buildah: makes the container's directory ─▶ opens the pipe … reads ─▶ writes its copy
//! this:                                          link secrets ─▶ tmpfs, then write
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::workdir::WorkDir;

/// Directory of a storage in which each container has one (containers/storage, containers.go).
const CONTAINERS: &str = "overlay-containers";
/// Within it, what Buildah writes for the container.
const DATA: &str = "userdata";
/// Within that, Buildah's copies of secrets.
const COPIES: &str = "secrets";

/// Hands secrets out until it is dropped.
pub struct Handed {
    over: Arc<AtomicBool>,
    pipes: Vec<PathBuf>,
}

/// Where Buildah's copies go.
#[derive(Debug, Clone)]
struct Copies {
    /// Storages in which Buildah makes containers.
    stores: Vec<PathBuf>,
    /// What their directory is called in the sandbox.
    inside: PathBuf,
}

impl Handed {
    /// Begins to hand out the secrets of the work directory to a Buildah with these storages.
    ///
    /// # Errors
    /// When one cannot be read, or there can be no pipes.
    pub fn begin(work: &WorkDir, names: &[String], stores: Vec<PathBuf>) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut handed = Self {
            over: Arc::clone(&over),
            pipes: Vec::new(),
        };
        let Some(place) = work.handed() else {
            return Ok(handed);
        };
        fs::create_dir_all(&place.pipes)?;
        let copies = Copies {
            stores,
            inside: work.copies_inside(),
        };
        for name in names {
            let secret = fs::read(place.secrets.join(name))?;
            let pipe = place.pipes.join(name);
            make_pipe(&pipe)?;
            handed.pipes.push(pipe.clone());
            let (over, copies) = (Arc::clone(&over), copies.clone());
            std::thread::spawn(move || {
                if let Err(error) = hand_out(&pipe, &secret, &copies, &over) {
                    tracing::error!(%error, "a secret cannot be handed out");
                    // The next step that wants it fails, and does not wait for ever.
                    let _ = fs::remove_file(&pipe);
                }
            });
        }
        Ok(handed)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Those who wait for somebody who reads find that it is over.
        for pipe in &self.pipes {
            let _ = open(pipe, OFlags::RDONLY | OFlags::NONBLOCK);
        }
    }
}

/// Writes the secret to whoever opens the pipe, again and again, until it is over.
fn hand_out(pipe: &Path, secret: &[u8], copies: &Copies, over: &AtomicBool) -> io::Result<()> {
    loop {
        // Waits for a reader.
        let mut writer = File::from(open(pipe, OFlags::WRONLY)?);
        if over.load(Ordering::Acquire) {
            return Ok(());
        }
        // Without its link a copy would lie on the disk: then there is no secret, and who reads finds nothing.
        copies.lead_to_memory()?;
        // The next reader gets a pipe of its own: this one would otherwise get the secret twice.
        let mut next = pipe.as_os_str().to_owned();
        // No secret has such a name.
        next.push("~");
        make_pipe(Path::new(&next))?;
        fs::rename(next, pipe)?;
        match writer.write_all(secret) {
            // Who has opened the pipe need not read it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
}

fn make_pipe(path: &Path) -> rustix::io::Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
}

fn open(pipe: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(CWD, pipe, flags | OFlags::CLOEXEC, Mode::empty())
}

impl Copies {
    /// Makes the link in the directory of each container that there is. Foreign code may have got at the
    /// storage: no link in the way is followed.
    fn lead_to_memory(&self) -> io::Result<()> {
        for store in &self.stores {
            let store = store.join(CONTAINERS);
            let containers = match within(CWD, &store) {
                // Nothing was built there yet.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            for entry in fs::read_dir(&store)? {
                let name = entry?.file_name();
                // Beside containers there are files; and some are about to be made, or removed.
                let data = within(&containers, Path::new(&name))
                    .and_then(|container| within(&container, Path::new(DATA)));
                let Ok(data) = data else { continue };
                match symlinkat(&self.inside, &data, COPIES) {
                    // It is there, or its container is gone meanwhile.
                    Err(Errno::EXIST | Errno::NOENT) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

fn within(dir: impl AsFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_copy_of_what_is_read_lies_in_memory() {
        let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = disk.path().join("box/s");
        let data = |name: &str| store.join(CONTAINERS).join(name).join(DATA);
        fs::create_dir_all(data("one")).unwrap();
        fs::create_dir_all(data("two")).unwrap();
        fs::create_dir_all(memory.path().join("secrets")).unwrap();
        for name in ["token", "unread"] {
            fs::write(memory.path().join("secrets").join(name), name).unwrap();
        }
        let work = WorkDir::new(disk.path()).with_private(Some(memory.path().into()));
        let place = work.handed().unwrap();
        let names = ["token".to_owned(), "unread".to_owned()];
        let stores = vec![disk.path().join("none"), store.clone()];
        let handed = Handed::begin(&work, &names, stores).unwrap();
        for _ in 0..3 {
            assert_eq!(fs::read(place.pipes.join("token")).unwrap(), b"token");
        }
        for name in ["one", "two"] {
            let link = fs::read_link(data(name).join(COPIES)).unwrap();
            assert_eq!(link, work.copies_inside());
        }
        drop(handed);
        let mode = fs::metadata(place.pipes.join("token"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o077, 0);
    }

    #[test]
    fn no_link_in_the_storage_is_followed() {
        let disk = tempfile::tempdir().unwrap();
        let elsewhere = disk.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let containers = disk.path().join(CONTAINERS);
        fs::create_dir_all(containers.join("one")).unwrap();
        symlink(&elsewhere, containers.join("one").join(DATA)).unwrap();
        symlink(disk.path(), containers.join("two")).unwrap();
        let copies = Copies {
            stores: vec![disk.path().into()],
            inside: "/copies".into(),
        };
        copies.lead_to_memory().unwrap();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}

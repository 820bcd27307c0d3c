//! Blobs of base images on the disk, for all users that builds run as.
//!
//! A blob lies under its digest and its repository: what one repository has is not handed out for another, and
//! who fetches slowly keeps nobody from another repository waiting. Whoever fetches one holds its part until it
//! is whole.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::registry::{Digest, Repository};
use crate::runner::lock::{is_at, try_lock};

/// Between two looks whether somebody else has fetched a blob.
const AGAIN: Duration = Duration::from_millis(50);
/// How long somebody else may make no progress with it.
const STALLED: Duration = Duration::from_secs(30);
/// What is added to the name of a blob that is not whole.
const PART: &str = "part";
/// Hexadecimal digits by which repositories are told apart.
const REPOSITORY_DIGITS: usize = 16;

/// The blobs in a directory.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
}

/// What there is of a blob.
pub enum Found {
    /// All.
    Stored(Stored),
    /// Nothing; whoever fetches it may keep it, unless somebody else is at it who has stalled.
    Missing(Option<Keeper>),
}

/// A blob that was kept.
pub struct Stored {
    /// To be read.
    pub file: File,
    /// Bytes.
    pub length: u64,
    path: PathBuf,
}

/// A blob on its way to the disk.
pub struct Keeper {
    /// Holds the part.
    file: File,
    part: PathBuf,
    whole: PathBuf,
}

impl Blobs {
    /// Those in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Finds a blob, or leave to fetch it; waits for somebody else who fetches it.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn find(&self, repository: &Repository, digest: &Digest) -> io::Result<Found> {
        let whole = self.dir.join(name(repository, digest));
        let part = whole.with_extension(PART);
        let (mut length, mut since) = (0, Instant::now());
        loop {
            if let Ok(file) = fs::File::open(&whole) {
                // Used now: that keeps it.
                file.set_modified(SystemTime::now())?;
                return Ok(Found::Stored(Stored {
                    length: file.metadata()?.len(),
                    file: File::from_std(file),
                    path: whole,
                }));
            }
            if let Some(lock) = try_lock(&part)?.filter(|lock| is_at(lock, &part)) {
                // It has become whole in between.
                if whole.exists() {
                    fs::remove_file(&part)?;
                    continue;
                }
                lock.set_len(0)?;
                let file = File::from_std(lock);
                return Ok(Found::Missing(Some(Keeper { file, part, whole })));
            }
            let now = fs::metadata(&part).map_or(0, |metadata| metadata.len());
            if now != length {
                (length, since) = (now, Instant::now());
            } else if since.elapsed() > STALLED {
                return Ok(Found::Missing(None));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Stored {
    /// It is not what it is called: it goes.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        gone(fs::remove_file(self.path))
    }
}

impl Keeper {
    /// The next bytes.
    ///
    /// # Errors
    /// When they cannot be written; then it must not be kept.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// It is whole, and what it is called.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn keep(mut self) -> io::Result<()> {
        self.file.flush().await?;
        fs::rename(self.part, self.whole)
    }
}

fn name(repository: &Repository, digest: &Digest) -> String {
    let place = Digest::of(repository.to_string().as_bytes());
    let place: String = place.hex().chars().take(REPOSITORY_DIGITS).collect();
    format!("{}-{place}", digest.hex())
}

/// Removes the blobs that were used least recently until what is there has at most `limit` bytes, and what
/// nobody fetches any more. Whoever reads a blob reads it to its end. Blocks.
///
/// # Errors
/// When the directory cannot be read, or something not be removed.
pub fn sweep(dir: &Path, limit: u64) -> io::Result<()> {
    let mut blobs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some() {
            if try_lock(&path)?.is_some_and(|lock| is_at(&lock, &path)) {
                gone(fs::remove_file(&path))?;
            }
        } else if let Ok(metadata) = fs::metadata(&path) {
            blobs.push((metadata.modified()?, metadata.len(), path));
        }
    }
    blobs.sort_unstable();
    let mut total: u64 = blobs.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in blobs {
        if total <= limit {
            break;
        }
        gone(fs::remove_file(path))?;
        total -= size;
    }
    Ok(())
}

/// What somebody else has removed is removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        Repository::parse(&format!("registry.example:5000/{name}")).unwrap()
    }

    async fn keeper(blobs: &Blobs, name: &str, digest: &Digest) -> Keeper {
        match blobs.find(&repository(name), digest).await.unwrap() {
            Found::Missing(Some(keeper)) => keeper,
            _ => panic!("it is there, or somebody fetches it"),
        }
    }

    #[tokio::test]
    async fn who_comes_second_waits_and_reads_what_the_first_has_kept() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = Digest::of(b"blob");
        let mut first = keeper(&blobs, "a", &digest).await;
        // Nobody waits for another repository.
        drop(keeper(&blobs, "b", &digest).await);
        let (a, other) = (repository("a"), Blobs::open(dir.path()).unwrap());
        let second = other.find(&a, &digest);
        let fetch = async {
            first.write(b"blob").await.unwrap();
            first.keep().await.unwrap();
        };
        let (found, ()) = tokio::join!(second, fetch);
        assert!(matches!(found.unwrap(), Found::Stored(stored) if stored.length == 4));
    }

    #[tokio::test]
    async fn who_breaks_off_leaves_it_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = Digest::of(b"blob");
        let mut first = keeper(&blobs, "a", &digest).await;
        first.write(b"blobs and more").await.unwrap();
        drop(first);
        let mut second = keeper(&blobs, "a", &digest).await;
        second.write(b"blob").await.unwrap();
        second.keep().await.unwrap();
        let found = blobs.find(&repository("a"), &digest).await.unwrap();
        assert!(matches!(found, Found::Stored(stored) if stored.length == 4));
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, age) in [("a", 3), ("b", 1), ("c", 2), ("d.part", 9), ("e.part", 9)] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        let _held = try_lock(&dir.path().join("e.part")).unwrap().unwrap();
        sweep(dir.path(), 200).unwrap();
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!(
            ["a", "b", "c", "d.part", "e.part"].map(left),
            [false, true, true, false, true]
        );
    }
}

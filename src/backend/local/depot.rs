//! Uploads as files: a note a principal, a tar a context.
//!
//! ```text
//! STATE/uploads/KEY.json      the note of a principal; written under .lock, replaced by rename
//!               RANDOM.tar    a context
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::backend::BackendError;
use crate::backend::uploads::{Depot, Uploads};
use crate::runner::workdir::read_json;

use super::store;

/// See the module.
#[derive(Debug)]
pub struct LocalDepot {
    dir: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// Unlike every other, so that a note that was removed and made anew does not pass for the one before.
    version: u64,
    uploads: Uploads,
}

impl LocalDepot {
    /// Uploads in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    fn read(&self, key: &str) -> io::Result<Note> {
        match read_json(&self.path(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Note::default()),
            other => other,
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.json"))
    }

    fn write_now(&self, key: &str, uploads: &Uploads, version: u64) -> io::Result<bool> {
        let _lock = store::lock(&self.dir.join(".lock"))?;
        if self.read(key)?.version != version {
            return Ok(false);
        }
        if uploads.is_empty() {
            return match fs::remove_file(self.path(key)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(true),
            };
        }
        let note = Note {
            version: fastrand::u64(1..),
            uploads: uploads.clone(),
        };
        let bytes = serde_json::to_vec(&note).map_err(io::Error::other)?;
        store::replace(&self.path(key), &bytes)?;
        Ok(true)
    }

    fn keys_now(&self) -> io::Result<Vec<String>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let key = name.to_str().and_then(|name| name.strip_suffix(".json"));
            keys.extend(key.map(str::to_owned));
        }
        Ok(keys)
    }
}

#[async_trait]
impl Depot for LocalDepot {
    fn scratch(&self) -> &Path {
        &self.dir
    }

    async fn note(&self, key: &str) -> Result<(Uploads, u64), BackendError> {
        let note = self.read(key)?;
        Ok((note.uploads, note.version))
    }

    async fn write(&self, key: &str, note: &Uploads, version: u64) -> Result<bool, BackendError> {
        Ok(tokio::task::block_in_place(|| {
            self.write_now(key, note, version)
        })?)
    }

    async fn keys(&self) -> Result<Vec<String>, BackendError> {
        Ok(tokio::task::block_in_place(|| self.keys_now())?)
    }

    fn place(&self, random: [u8; 16]) -> String {
        format!("{}.tar", hex::encode(random))
    }

    async fn bring(&self, tar: &Path, place: &str) -> Result<(), BackendError> {
        let to = self.dir.join(place);
        Ok(tokio::task::block_in_place(|| {
            fs::File::open(tar)?.sync_all()?;
            fs::rename(tar, &to)
        })?)
    }

    async fn fetch(&self, place: &str, to: &Path) -> Result<(), BackendError> {
        // It is never written again, only removed.
        let from = self.dir.join(place);
        Ok(tokio::task::block_in_place(|| fs::hard_link(from, to))?)
    }

    async fn clear(&self, place: &str) -> Result<(), BackendError> {
        match fs::remove_file(self.dir.join(place)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::uploads::key;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_note_is_written_by_who_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let depot = LocalDepot::open(dir.path().join("uploads")).unwrap();
        let key = key("token:ann");
        let (mut note, version) = depot.note(&key).await.unwrap();
        assert_eq!((&note, version), (&Uploads::default(), 0));
        note.principal = "token:ann".into();
        note.issue("x", 1);
        assert!(depot.write(&key, &note, 0).await.unwrap());
        assert!(!depot.write(&key, &note, 0).await.unwrap());
        let (written, version) = depot.note(&key).await.unwrap();
        assert_eq!(written, note);
        assert_eq!(depot.keys().await.unwrap(), std::slice::from_ref(&key));
        assert!(
            depot
                .write(&key, &Uploads::default(), version)
                .await
                .unwrap()
        );
        assert!(depot.keys().await.unwrap().is_empty());
        // Who knows the one that was removed does not know the next.
        assert!(depot.write(&key, &note, 0).await.unwrap());
        assert!(
            !depot
                .write(&key, &Uploads::default(), version)
                .await
                .unwrap()
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_context_is_there_until_its_place_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let depot = LocalDepot::open(dir.path().join("uploads")).unwrap();
        let (tar, to) = (depot.scratch().join("tar"), dir.path().join("to"));
        fs::write(&tar, "x").unwrap();
        let place = depot.place([1; 16]);
        depot.bring(&tar, &place).await.unwrap();
        depot.fetch(&place, &to).await.unwrap();
        depot.clear(&place).await.unwrap();
        depot.clear(&place).await.unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "x");
        assert!(
            depot
                .fetch(&place, &dir.path().join("again"))
                .await
                .is_err()
        );
    }
}

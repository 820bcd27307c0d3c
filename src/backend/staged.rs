//! A snapshot of sources on its way from the service to a backend.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::runner::lock::{is_at, try_lock};

/// A file in the staging directory, removed when it is dropped and nobody has moved it.
///
/// As long as it is held, it is not taken for something that a dead server left.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    file: File,
}

impl Staged {
    /// A new file, which is `staging/NAME`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(staging: &Path, name: &str) -> io::Result<Self> {
        let path = staging.join(name);
        loop {
            // Whoever removes what dead servers left may have come in between.
            if let Some(file) = try_lock(&path)?
                && is_at(&file, &path)
            {
                return Ok(Self { path, file });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// To write to it.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

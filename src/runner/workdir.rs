//! The directory of one build: what lies where, and what foreign code may see of it.
//!
//! ```text
//! WORK/plan.json settings.json handoff.json   never in the sandbox
//!      git/ credentials/                      phase source only, removed before foreign code runs
//!      secrets/                               secrets of RUN --mount=type=secret
//!      src/                                   the sources
//!      outside/{home,tmp,run}                 scratch space outside of the sandbox
//!      box/{s,r,tmp,out,run}                  Buildah's storage and scratch space
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::usage::Over;

/// Paths below one build's work directory.
#[derive(Debug, Clone)]
pub struct WorkDir {
    root: PathBuf,
}

impl WorkDir {
    /// The work directory at `root`, which exists.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the directories of the phases.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn prepare(&self) -> io::Result<()> {
        for dir in [
            "src",
            "git",
            "credentials",
            "secrets",
            "root",
            "box/s",
            "box/r",
            "box/tmp",
            "box/out",
            "box/run",
            "outside/home",
            "outside/tmp",
            "outside/run",
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(self.root.join(dir))?;
        }
        Ok(())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The sources.
    pub fn src(&self) -> PathBuf {
        self.root.join("src")
    }

    /// Git's own directory, beside the sources.
    pub fn git(&self) -> PathBuf {
        self.root.join("git")
    }

    /// Credentials of the phase source.
    pub fn credentials(&self) -> PathBuf {
        self.root.join("credentials")
    }

    /// Secrets of the phase build.
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// Where the sandbox puts its root.
    pub fn sandbox_root(&self) -> PathBuf {
        self.root.join("root")
    }

    /// What Buildah writes to.
    pub fn boxed(&self, name: &str) -> PathBuf {
        self.root.join("box").join(name)
    }

    /// Scratch space of what runs outside of the sandbox: foreign code must not write what Buildah
    /// takes for its configuration there.
    pub fn outside(&self) -> PathBuf {
        self.root.join("outside")
    }

    /// The packed image, an OCI image layout.
    pub fn layout(&self) -> PathBuf {
        self.boxed("out").join("image")
    }

    /// Where it is noted that the limit of the disk was reached.
    pub fn over_file(&self) -> PathBuf {
        self.root.join("over.json")
    }

    /// The limit of the disk that was reached.
    pub fn over(&self) -> Option<Over> {
        read_json(&self.over_file()).ok()
    }

    /// Removes credentials and git's directory: from here on foreign code may run.
    ///
    /// # Errors
    /// When something of it remains.
    pub fn forget_source_credentials(&self) -> io::Result<()> {
        for dir in [self.credentials(), self.git()] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

/// Writes a value as JSON, for its owner only.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_private(path, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

/// Reads a JSON file.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

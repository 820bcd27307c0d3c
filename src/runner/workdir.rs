//! The directory of one build: what lies where, and what foreign code may see of it.
//!
//! ```text
//! WORK/plan.json settings.json handoff.json   never in the sandbox
//!      git/                                   phase source only, removed before foreign code runs
//!      certs/                                 certificates to trust for registries
//!      src/ outdated/                         the sources; those of the scope's last build, where they are others
//!      laid-over/                             what is written to the sources in the sandbox
//!      outside/{home,tmp,run}                 scratch space outside of the sandbox
//!      box/{s,r,tmp,out,run}                  Buildah's storage and scratch space
//!      spent/                                 that of the phase build, in the phases after it
//!      outputs/                               what is handed over
//!
//! PRIVATE/credentials/                        in memory; phase source only, as git/
//!         secrets/                            secrets of RUN --mount=type=secret; phase build only
//!         pipes/                              the same as Buildah gets them (`handed`): WORK/secrets in the sandbox,
//!                                             which has Buildah's copies in a tmpfs of its own at WORK/copies
//!         tests/                              secrets of tests, each test's at WORK/secrets in its sandbox; kept
//!                                             until the last test has ended
//! ```

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::usage::Over;

const BOX: [&str; 5] = ["box/s", "box/r", "box/tmp", "box/out", "box/run"];

/// Paths below one build's work directory.
#[derive(Debug, Clone)]
pub struct WorkDir {
    root: PathBuf,
    private: Option<PathBuf>,
}

/// Where secrets are as long as they are handed out.
#[derive(Debug, Clone)]
pub struct HandedPlace {
    /// The secrets.
    pub secrets: PathBuf,
    /// Pipes from which Buildah reads them.
    pub pipes: PathBuf,
}

impl WorkDir {
    /// The work directory at `root`, which exists; without credentials and secrets.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            private: None,
        }
    }

    /// The same with the directory in memory that has them.
    #[must_use]
    pub fn with_private(self, private: Option<PathBuf>) -> Self {
        Self { private, ..self }
    }

    /// Makes the directories of the phases.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn prepare(&self) -> io::Result<()> {
        self.make(&[
            "src",
            "git",
            "root",
            "outside/home",
            "outside/tmp",
            "outside/run",
        ])?;
        self.make(&BOX)
    }

    fn make(&self, dirs: &[&str]) -> io::Result<()> {
        dirs.iter().try_for_each(|dir| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(self.root.join(dir))
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The sources.
    pub fn src(&self) -> PathBuf {
        self.root.join("src")
    }

    /// Where sources go that another build of the scope has kept, and this one does not take.
    pub fn outdated(&self) -> PathBuf {
        self.root.join("outdated")
    }

    /// Git's own directory, beside the sources.
    pub fn git(&self) -> PathBuf {
        self.root.join("git")
    }

    /// Where credentials of the phase source are, if there is a place for them.
    pub fn credentials(&self) -> Option<PathBuf> {
        self.below_private("credentials")
    }

    /// A file of credentials, where there is one.
    pub fn credential(&self, name: &str) -> Option<PathBuf> {
        let file = self.credentials()?.join(name);
        file.exists().then_some(file)
    }

    /// Certificates to trust for registries, where there are some.
    pub fn certs(&self) -> PathBuf {
        self.root.join("certs")
    }

    /// Where secrets of the phase build are, if there is a place for them.
    pub fn secrets(&self) -> Option<PathBuf> {
        self.below_private("secrets")
    }

    /// Where secrets of tests are, if there is a place for them.
    pub fn test_secrets(&self) -> Option<PathBuf> {
        self.below_private("tests")
    }

    /// Where they are handed to Buildah.
    pub fn handed(&self) -> Option<HandedPlace> {
        Some(HandedPlace {
            secrets: self.secrets()?,
            pipes: self.below_private("pipes")?,
        })
    }

    /// Where the sandbox has secrets.
    pub fn secrets_inside(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// What the directory of Buildah's copies is called in the sandbox.
    pub fn copies_inside(&self) -> PathBuf {
        self.root.join("copies")
    }

    fn below_private(&self, name: &str) -> Option<PathBuf> {
        self.private.as_ref().map(|private| private.join(name))
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

    /// Takes what foreign code has written out of reach; whatever runs next has empty directories.
    ///
    /// # Errors
    /// When it cannot be moved, or made anew.
    pub fn renew_box(&self) -> io::Result<()> {
        fs::rename(self.root.join("box"), self.spent())?;
        self.make(&BOX)
    }

    /// What is written to the sources in the sandbox: nobody else sees it, and the next one begins without it.
    pub fn laid_over(&self) -> PathBuf {
        self.root.join("laid-over")
    }

    /// What the phase build has written besides its layers.
    pub fn spent(&self) -> PathBuf {
        self.root.join("spent")
    }

    /// The packed image, an OCI image layout.
    pub fn layout(&self) -> PathBuf {
        self.boxed("out").join("image")
    }

    /// What is handed over, ready for whoever takes it.
    pub fn outputs(&self) -> PathBuf {
        self.root.join("outputs")
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
        remove_all(self.credentials().into_iter().chain([self.git()]))
    }

    /// Removes the secrets of the phase build.
    ///
    /// # Errors
    /// When something of them remains.
    pub fn forget_secrets(&self) -> io::Result<()> {
        let place = self.handed().into_iter();
        remove_all(place.flat_map(|place| [place.secrets, place.pipes]))
    }

    /// Removes the secrets of the tests.
    ///
    /// # Errors
    /// When something of them remains.
    pub fn forget_test_secrets(&self) -> io::Result<()> {
        remove_all(self.test_secrets())
    }
}

/// Removes directories; one that is not there is no error.
///
/// # Errors
/// When something of one remains.
pub fn remove_all(dirs: impl IntoIterator<Item = PathBuf>) -> io::Result<()> {
    let mut dirs = dirs.into_iter();
    dirs.try_for_each(|dir| match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Opens a file of at most `limit` bytes that foreign code may have replaced: no link is followed,
/// and nothing but a regular file is opened, so that nobody waits for the other end of a FIFO.
///
/// # Errors
/// When it is something else, is larger, or cannot be opened.
pub fn open_untrusted(path: &Path, limit: u64) -> io::Result<fs::File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > limit {
        let text = format!("{}: not a file of at most {limit} bytes", path.display());
        return Err(io::Error::other(text));
    }
    Ok(file)
}

/// Reads such a file.
///
/// # Errors
/// When it is something else, is larger, or cannot be read.
pub fn read_untrusted(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_untrusted(path, limit)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_foreign_code_put_in_place_of_a_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").unwrap();
        fs::write(path("large"), "texts").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read_untrusted(&path("file"), 4).unwrap(), b"text");
        for name in ["large", "link", "fifo", "missing", "."] {
            assert!(read_untrusted(&path(name), 4).is_err(), "{name}");
        }
    }

    #[test]
    fn tests_find_nothing_that_the_build_wrote_beside_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::new(dir.path());
        work.prepare().unwrap();
        fs::write(work.boxed("s").join("planted"), "").unwrap();
        work.renew_box().unwrap();
        assert!(!work.boxed("s").join("planted").exists());
        assert!(work.boxed("out").is_dir());
        assert!(work.spent().join("s/planted").exists());
    }
}

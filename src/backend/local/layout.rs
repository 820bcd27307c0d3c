//! What lies where below the state directory.
//!
//! ```text
//! STATE/b/ID/record.json   the record; changed under record.lock, replaced by rename
//!            plan.json request.json config.json context.tar log.ndjson runner.log
//!            cgroup.json   where its cgroup is, while it runs
//!            outputs/      what was handed over
//!            job.lock      held by the job's process as long as it lives
//!            work/         the runner's, owned by the user that builds run as
//!       k/NAME             claims
//!       queue/TIME-ID      builds that wait, in their order
//!       slots/N            held by the jobs that run
//!       cache/USER/        base images, the probe's answer
//!       blobs/             what base images consist of, for all users (`mirror`)
//!       staging/           snapshots about to be submitted
//!       uploads/           what callers elsewhere have uploaded (`depot`)
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::build::BuildId;

/// The state directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes what is missing. Directories can be passed through but not listed by others: the
    /// user that builds run as must reach its own work directory.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn prepare(&self) -> io::Result<()> {
        for (dir, mode) in [
            ("", 0o711),
            ("b", 0o711),
            ("cache", 0o711),
            ("k", 0o700),
            ("queue", 0o700),
            ("slots", 0o700),
            ("staging", 0o700),
        ] {
            let path = self.root.join(dir);
            if !path.is_dir() {
                fs::DirBuilder::new().recursive(true).create(&path)?;
                // Whatever the umask: see above.
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All builds.
    pub fn builds(&self) -> PathBuf {
        self.root.join("b")
    }

    /// One build.
    pub fn build(&self, id: &BuildId) -> BuildDir {
        BuildDir {
            root: self.builds().join(id.as_str()),
        }
    }

    /// A claim.
    pub fn claim(&self, name: &str) -> PathBuf {
        self.root.join("k").join(name)
    }

    /// Builds that wait.
    pub fn queue(&self) -> PathBuf {
        self.root.join("queue")
    }

    /// Slots of builds that run.
    pub fn slots(&self) -> PathBuf {
        self.root.join("slots")
    }

    /// What is shared between builds, for each user.
    pub fn caches(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// What is shared between builds of one user.
    pub fn cache(&self, user: &str) -> PathBuf {
        self.caches().join(user)
    }

    /// What base images consist of.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// What callers elsewhere have uploaded.
    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Snapshots about to be submitted.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
}

/// The directory of one build.
#[derive(Debug, Clone)]
pub struct BuildDir {
    root: PathBuf,
}

impl BuildDir {
    /// A build's directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The record.
    pub fn record(&self) -> PathBuf {
        self.root.join("record.json")
    }

    /// Held while the record is changed.
    pub fn record_lock(&self) -> PathBuf {
        self.root.join("record.lock")
    }

    /// The plan.
    pub fn plan(&self) -> PathBuf {
        self.root.join("plan.json")
    }

    /// The request.
    pub fn request(&self) -> PathBuf {
        self.root.join("request.json")
    }

    /// The configuration under which it was accepted.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.json")
    }

    /// The runner's settings, for parts that must not trust the work directory.
    pub fn settings(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// Directories of its cgroup, as long as there is one.
    pub fn cgroup(&self) -> PathBuf {
        self.root.join("cgroup.json")
    }

    /// The snapshot of the sources.
    pub fn context(&self) -> PathBuf {
        self.root.join("context.tar")
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.root.join("log.ndjson")
    }

    /// The job's own diagnostics.
    pub fn runner_log(&self) -> PathBuf {
        self.root.join("runner.log")
    }

    /// Held by the job.
    pub fn job_lock(&self) -> PathBuf {
        self.root.join("job.lock")
    }

    /// Whether nothing is there that goes when the build has ended.
    pub fn is_tidy(&self) -> bool {
        let goes = [self.cgroup(), self.context(), self.work()];
        !goes.iter().any(|path| path.exists())
    }

    /// What was handed over.
    pub fn outputs(&self) -> PathBuf {
        self.root.join("outputs")
    }

    /// The runner's directory.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }
}

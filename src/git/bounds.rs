//! What git may take of the machine while it works for a stranger.
//!
//! The kernel bounds each of its processes (setrlimit(2)): memory, and the size of a file. What
//! grows in many files is counted now and then while it runs, and once more at its end.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::time::Instant;

use super::command::{Git, Place};
use super::error::{GitError, GitErrorKind};
use crate::context::{Excess, Limits, MeasureError, measure};

/// What a repository has beyond the contents of its files, in bytes for each of them: a name in a
/// tree, a place in the index of the pack and one in git's own.
const PER_ENTRY: u64 = 1024;
/// What every repository has, in bytes and in files.
const EMPTY: Limits = Limits {
    bytes: 1 << 20,
    entries: 100,
};
/// From one count to the next, at least; and as a multiple of the time that counting takes.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSES: u32 = 10;

/// The bounds of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    place: Place<'a>,
    limits: Limits,
    /// Of one process, in bytes.
    memory: u64,
}

impl<'a> Bounds<'a> {
    /// `limits` are those of the tree.
    pub fn new(git: &Git, place: Place<'a>, limits: Limits) -> Self {
        Self {
            place,
            limits,
            memory: git.memory,
        }
    }

    /// A repository with a tree that is allowed: packed, it is hardly bigger than its files.
    fn repository(&self) -> Limits {
        let names = self.limits.entries.saturating_mul(PER_ENTRY);
        let bytes = self.limits.bytes.saturating_add(names);
        Limits {
            bytes: bytes.saturating_add(EMPTY.bytes),
            entries: self.limits.entries.saturating_add(EMPTY.entries),
        }
    }

    /// Bounds a process that has just been started, and all that it starts.
    pub fn impose(&self, process: Pid) -> rustix::io::Result<()> {
        for (resource, limit) in [
            (Resource::Fsize, self.repository().bytes),
            (Resource::Data, self.memory),
        ] {
            // A limit that is lower already cannot be raised.
            let hard = getrlimit(resource).maximum;
            let limit = Some(hard.map_or(limit, |hard| hard.min(limit)));
            let both = Rlimit {
                current: limit,
                maximum: limit,
            };
            prlimit(Some(process), resource, both)?;
        }
        Ok(())
    }

    /// Counts the repository and its tree.
    pub async fn check(&self) -> Result<(), GitError> {
        let (git_dir, tree) = (
            self.place.git_dir.to_owned(),
            self.place.work_tree.to_owned(),
        );
        let (repository, limits) = (self.repository(), self.limits);
        let counted = tokio::task::spawn_blocking(move || {
            match measure(&git_dir, repository) {
                Err(MeasureError::TooBig(excess)) => Err(too_big("repository", excess, limits)),
                // `git init` has yet to make it.
                _ => Ok(()),
            }?;
            match measure(&tree, limits) {
                Err(MeasureError::TooBig(excess)) => Err(too_big("source", excess, limits)),
                Err(error) => Err(GitError::new(GitErrorKind::Failed, error.to_string())),
                Ok(()) => Ok(()),
            }
        });
        counted
            .await
            .unwrap_or_else(|error| Err(GitError::new(GitErrorKind::Failed, error.to_string())))
    }

    /// Counts again and again; ends with the first error.
    pub async fn exceeded(&self) -> GitError {
        let mut pause = PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            if let Err(error) = self.check().await {
                return error;
            }
            pause = PAUSE.max(begun.elapsed() * PAUSES);
        }
    }

    /// The error of a git that wanted more memory than it may have.
    pub fn out_of_memory(&self, stderr: &str) -> Option<GitError> {
        let says = |line: &str| line.starts_with("fatal: ") && line.contains("ut of memory");
        stderr.lines().any(says).then(|| {
            let message = format!(
                "git needs more than {} MiB of memory for the source",
                self.memory >> 20
            );
            GitError::new(GitErrorKind::TooBig, message)
        })
    }
}

/// In the numbers of the source, which are those that the operator knows.
pub(super) fn too_big(what: &str, excess: Excess, limits: Limits) -> GitError {
    let excess = match excess {
        Excess::Bytes(_) => Excess::Bytes(limits.bytes),
        Excess::Entries(_) => Excess::Entries(limits.entries),
        Excess::Path => excess,
    };
    GitError::new(GitErrorKind::TooBig, format!("the {what} has {excess}"))
}

//! The unpacked sources of a scope's last build: the next build of the same snapshot takes them as they are.
//!
//! ```text
//! SCOPE/sources/tree    as it was unpacked
//!              /tree.json   which snapshot it is of, and its state then
//! ```
//! No build writes to its sources. All the same a tree that is not in the state in which it was unpacked is not
//! taken. It leaves the scope as long as a build has it: what a killed build had goes with that build. Where
//! trees cannot be moved (a cache on another file system) none is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::context;

use super::workdir::{read_untrusted, write_json};

/// Bytes of a note at most.
const MAX_NOTE: u64 = 4096;

/// Which sources a tree holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Digest of the snapshot that was unpacked.
    snapshot: String,
    /// Of what was unpacked (`context::state`).
    state: String,
}

/// The place of a scope for its sources.
#[derive(Debug)]
pub struct Kept {
    dir: PathBuf,
}

impl Tree {
    /// A tree into which a snapshot has just been unpacked. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unpacked(snapshot: &str, tree: &Path) -> io::Result<Self> {
        Ok(Self {
            snapshot: snapshot.to_owned(),
            state: context::state(tree)?,
        })
    }
}

impl Kept {
    /// The place `dir`, which need not be there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Moves the tree of a snapshot to the empty directory `to`; another tree goes to `aside`, which is not
    /// there. Returns `None` where there is none of this snapshot, and `to` is empty. Blocks.
    ///
    /// # Errors
    /// When `to` cannot be made again.
    pub fn take(&self, snapshot: &str, to: &Path, aside: &Path) -> io::Result<Option<Tree>> {
        let there = self.tree();
        if !there.is_dir() {
            return Ok(None);
        }
        let note = read_untrusted(&self.note(), MAX_NOTE)
            .ok()
            .and_then(|text| serde_json::from_slice::<Tree>(&text).ok());
        let Some(tree) = note.filter(|tree| tree.snapshot == snapshot) else {
            self.discard(aside);
            return Ok(None);
        };
        if fs::rename(there, to).is_err() {
            self.discard(aside);
            return Ok(None);
        }
        if context::state(to).is_ok_and(|state| state == tree.state) {
            return Ok(Some(tree));
        }
        fs::rename(to, aside)?;
        fs::create_dir(to)?;
        Ok(None)
    }

    /// Moves a tree, if there is one, to `aside`, which is not there; or removes it. Blocks.
    pub fn discard(&self, aside: &Path) {
        let there = self.tree();
        if there.is_dir()
            && fs::rename(&there, aside).is_err()
            && let Err(error) = fs::remove_dir_all(there)
        {
            tracing::warn!(%error, "outdated sources remain in the cache");
        }
    }

    /// Keeps a tree for the next build. Blocks.
    ///
    /// # Errors
    /// When it cannot be moved; then the next build finds none.
    pub fn keep(&self, tree: &Tree, from: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::rename(from, self.tree())?;
        write_json(&self.note(), tree)
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    fn note(&self) -> PathBuf {
        self.dir.join("tree.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Build {
        root: tempfile::TempDir,
    }

    impl Build {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("src")).unwrap();
            Self { root }
        }

        fn src(&self) -> PathBuf {
            self.root.path().join("src")
        }

        fn take(&self, kept: &Kept, snapshot: &str) -> Option<Tree> {
            let taken = kept.take(snapshot, &self.src(), &self.root.path().join("aside"));
            taken.unwrap()
        }

        fn unpack(&self, snapshot: &str) -> Tree {
            fs::write(self.src().join("x"), snapshot).unwrap();
            Tree::unpacked(snapshot, &self.src()).unwrap()
        }

        fn is_empty(&self) -> bool {
            fs::read_dir(self.src()).unwrap().next().is_none()
        }
    }

    #[test]
    fn the_next_build_of_the_same_snapshot_has_the_tree_and_no_other() {
        let scope = tempfile::tempdir().unwrap();
        let kept = Kept::new(scope.path().join("sources"));
        let first = Build::new();
        assert_eq!(first.take(&kept, "a"), None);
        let tree = first.unpack("a");
        kept.keep(&tree, &first.src()).unwrap();
        let second = Build::new();
        assert_eq!(second.take(&kept, "a"), Some(tree.clone()));
        assert_eq!(fs::read_to_string(second.src().join("x")).unwrap(), "a");
        // As long as a build has it, nobody else does.
        let third = Build::new();
        assert_eq!(third.take(&kept, "a"), None);
        assert!(third.is_empty());
        kept.keep(&tree, &second.src()).unwrap();
        let other = Build::new();
        assert_eq!(other.take(&kept, "b"), None);
        assert!(other.is_empty());
        assert_eq!(Build::new().take(&kept, "a"), None);
    }

    #[test]
    fn a_tree_that_was_touched_is_not_taken() {
        let scope = tempfile::tempdir().unwrap();
        let kept = Kept::new(scope.path().join("sources"));
        let first = Build::new();
        let tree = first.unpack("a");
        context::next_tick(first.root.path());
        fs::write(first.src().join("x"), "b").unwrap();
        kept.keep(&tree, &first.src()).unwrap();
        let next = Build::new();
        assert_eq!(next.take(&kept, "a"), None);
        assert!(next.is_empty());
    }

    #[test]
    fn a_tree_that_cannot_be_moved_is_not_kept_and_no_build_fails() {
        let scope = tempfile::tempdir().unwrap();
        let kept = Kept::new(scope.path().join("sources"));
        let first = Build::new();
        let tree = first.unpack("a");
        kept.keep(&tree, &first.src()).unwrap();
        let next = Build::new();
        // Nothing can be moved onto a directory that has something.
        for name in ["src", "aside"] {
            fs::create_dir_all(next.root.path().join(name).join("x")).unwrap();
        }
        assert_eq!(next.take(&kept, "a"), None);
        assert!(!kept.tree().exists());
        assert_eq!(Build::new().take(&kept, "a"), None);
    }
}

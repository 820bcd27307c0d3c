//! What of a source becomes a snapshot.

use std::path::{Path, PathBuf};

/// Directories of a source, as they are named: links may lead there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    /// The build context, below the root of the source; empty: the root itself. Its ignore file holds in it.
    pub context: String,
    /// Named build contexts, below the root of the source; nothing keeps anything out of them.
    pub named: Vec<String>,
}

impl Extent {
    /// A path of the context, seen from the root of the source.
    #[must_use]
    pub fn in_context(&self, path: &str) -> String {
        match self.context.as_str() {
            "" => path.to_owned(),
            context => format!("{context}/{path}"),
        }
    }
}

/// Where its directories really are.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub context: PathBuf,
    pub named: Vec<PathBuf>,
}

impl Places {
    /// Whether a path is in a named build context, or is one.
    pub fn are_named(&self, path: &Path) -> bool {
        self.named.iter().any(|named| path.starts_with(named))
    }

    /// A path of the context, seen from there.
    pub fn in_context<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        path.strip_prefix(&self.context).ok()
    }

    /// Whether one of them lies in the directory `path`.
    pub fn lie_in(&self, path: &Path) -> bool {
        let mut all = self.named.iter().chain([&self.context]);
        all.any(|place| place.starts_with(path))
    }
}

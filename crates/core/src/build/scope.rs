//! Scopes of the layer cache: what a build may reuse, and where it may leave something.
//!
//! A scope belongs to a principal and a repository and ref. Uncommitted work (a patch, files, a
//! directory) reads the scope of the ref it is based on and writes one of its own, so that what
//! nobody committed reaches nobody else's build.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Names of a build's scopes; opaque, and safe as names of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scopes {
    /// The one it reads and writes.
    pub own: String,
    /// One that it only reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
}

impl Scopes {
    /// Of a repository and ref; `committed`: exactly what the ref holds.
    pub fn of_git(principal: &str, url: &str, git_ref: Option<&str>, committed: bool) -> Self {
        let git_ref = git_ref.unwrap_or_default();
        let shared = name(&[principal, "git", url, git_ref]);
        if committed {
            return Self {
                own: shared,
                shared: None,
            };
        }
        Self {
            own: name(&[principal, "uncommitted", url, git_ref]),
            shared: Some(shared),
        }
    }

    /// Of a directory of the caller's.
    pub fn of_path(principal: &str, path: &str) -> Self {
        Self {
            own: name(&[principal, "path", path]),
            shared: None,
        }
    }

    /// Of files or an upload; builds with one name are taken to be about the same thing.
    pub fn of_files(principal: &str, build_name: Option<&str>) -> Self {
        Self {
            own: name(&[principal, "files", build_name.unwrap_or_default()]),
            shared: None,
        }
    }
}

fn name(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // With the length in front no two lists of parts are the same bytes.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_repository_and_ref_has_its_own() {
        let all = [
            Scopes::of_git("a", "https://x/r", Some("main"), true).own,
            Scopes::of_git("b", "https://x/r", Some("main"), true).own,
            Scopes::of_git("a", "https://x/r", Some("dev"), true).own,
            Scopes::of_git("a", "https://x/s", Some("main"), true).own,
            Scopes::of_git("a", "https://x/r", Some("main"), false).own,
            Scopes::of_path("a", "https://x/r").own,
            Scopes::of_files("a", None).own,
            Scopes::of_files("a", Some("api")).own,
            Scopes::of_git("a", "https://x/rmain", None, true).own,
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(all.iter().all(|name| name.len() == 32));
    }

    #[test]
    fn uncommitted_work_only_reads_the_scope_of_its_ref() {
        let committed = Scopes::of_git("a", "https://x/r", Some("main"), true);
        let patched = Scopes::of_git("a", "https://x/r", Some("main"), false);
        assert_eq!(patched.shared.as_ref(), Some(&committed.own));
        assert_ne!(patched.own, committed.own);
        assert_eq!(committed.shared, None);
    }
}

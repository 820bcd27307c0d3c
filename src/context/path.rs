//! What a path inside a context may look like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use thiserror::Error;

use super::ContextFile;

/// Longest path in bytes (Linux `PATH_MAX`).
pub(crate) const MAX_PATH: usize = 4096;
/// Longest single name in bytes (Linux `NAME_MAX`).
const MAX_NAME: usize = 255;
/// Deepest nesting: one descriptor is held for each level.
pub(crate) const MAX_DEPTH: usize = 128;

/// Why a given path is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathFault {
    #[error("the path is empty")]
    Empty,
    #[error("the path is absolute; give it relative to the root of the context")]
    Absolute,
    #[error("the path has a `..`; give it relative to the root of the context")]
    Parent,
    #[error("the path has an empty or `.` component; write it plainly, like `dir/file`")]
    NotPlain,
    #[error("the path has a NUL character")]
    Nul,
    #[error("the path is longer than {MAX_PATH} bytes, or a name in it longer than {MAX_NAME}")]
    TooLong,
    #[error("the path is nested deeper than {MAX_DEPTH} directories")]
    TooDeep,
    #[error("`.git` is not part of a context")]
    Git,
    #[error("the path is given twice")]
    Duplicate,
    #[error("the path is also the directory of `{0}`")]
    AlsoDirectory(String),
}

/// One given file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path:?}: {fault}")]
pub struct FileFault {
    /// As given.
    pub path: String,
    pub fault: PathFault,
}

/// Every fault in the paths of `files`; empty when they can be used together.
pub fn check_files(files: &[ContextFile]) -> Vec<FileFault> {
    let mut faults = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut parents: BTreeMap<&Path, &str> = BTreeMap::new();
    let mut report = |path: &str, fault| {
        faults.push(FileFault {
            path: path.to_owned(),
            fault,
        });
    };
    for file in files {
        match check_path(&file.path) {
            Err(fault) => report(&file.path, fault),
            Ok(()) if !seen.insert(&file.path) => report(&file.path, PathFault::Duplicate),
            Ok(()) => {
                for parent in Path::new(&file.path).ancestors().skip(1) {
                    parents.entry(parent).or_insert(&file.path);
                }
            }
        }
    }
    for path in seen {
        if let Some(child) = parents.get(Path::new(path)) {
            report(path, PathFault::AlsoDirectory((*child).to_owned()));
        }
    }
    faults
}

pub(super) fn check_path(path: &str) -> Result<(), PathFault> {
    if path.is_empty() {
        return Err(PathFault::Empty);
    }
    if path.starts_with('/') {
        return Err(PathFault::Absolute);
    }
    if path.contains('\0') {
        return Err(PathFault::Nul);
    }
    let names = || path.split('/');
    if names().any(|name| name == "..") {
        return Err(PathFault::Parent);
    }
    if names().any(|name| name.is_empty() || name == ".") {
        return Err(PathFault::NotPlain);
    }
    if path.len() > MAX_PATH || names().any(|name| name.len() > MAX_NAME) {
        return Err(PathFault::TooLong);
    }
    if names().count() > MAX_DEPTH {
        return Err(PathFault::TooDeep);
    }
    if names()
        .next()
        .is_some_and(|first| first.eq_ignore_ascii_case(".git"))
    {
        return Err(PathFault::Git);
    }
    Ok(())
}

/// A path for a message: control characters escaped, at most 200 characters.
pub(super) fn show(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        return ".".to_owned();
    }
    let text = path.to_string_lossy();
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == 200 {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ContextFile {
        ContextFile {
            path: path.to_owned(),
            text: String::new(),
            executable: false,
        }
    }

    #[test]
    fn plain_relative_paths_only() {
        let long = "a/".repeat(2048) + "a";
        let long_name = "n".repeat(256);
        let deep = "a/".repeat(128) + "a";
        for (path, expected) in [
            ("a/b.c", None),
            ("..a/b..", None),
            ("sub/.git/x", None),
            (".gitignore", None),
            ("", Some(PathFault::Empty)),
            ("/a", Some(PathFault::Absolute)),
            ("a/../b", Some(PathFault::Parent)),
            ("..", Some(PathFault::Parent)),
            ("a//b", Some(PathFault::NotPlain)),
            ("a/", Some(PathFault::NotPlain)),
            ("./a", Some(PathFault::NotPlain)),
            ("a\0b", Some(PathFault::Nul)),
            (".git/hooks/x", Some(PathFault::Git)),
            (".GIT", Some(PathFault::Git)),
            (&long, Some(PathFault::TooLong)),
            (&long_name, Some(PathFault::TooLong)),
            (&deep, Some(PathFault::TooDeep)),
        ] {
            assert_eq!(check_path(path).err(), expected, "{path:?}");
        }
    }

    #[test]
    fn all_faults_at_once() {
        let faults = check_files(&[
            file("a"),
            file("a"),
            file("a/b/c"),
            file("/x"),
            file("ok"),
            file("a-b"),
        ]);
        let found: Vec<_> = faults.iter().map(|f| (f.path.as_str(), &f.fault)).collect();
        assert_eq!(
            found,
            [
                ("a", &PathFault::Duplicate),
                ("/x", &PathFault::Absolute),
                ("a", &PathFault::AlsoDirectory("a/b/c".to_owned())),
            ]
        );
    }

    #[test]
    fn control_characters_are_not_shown_raw() {
        assert_eq!(show(Path::new("a\u{1b}[31m\n")), "a\\u{1b}[31m\\n");
    }
}

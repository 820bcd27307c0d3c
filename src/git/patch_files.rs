//! Which files a patch touches, read from the patch itself before git sees it. Pure.
//!
//! Hunks and binary data are skipped by their own counts, so that a removed line `-- x` is not
//! taken for a header. git checks paths as well; this is the lock in front of that one.

use thiserror::Error;

use crate::context::{MAX_DEPTH, MAX_PATH};

/// What a patch does by its own account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PatchFiles {
    /// Paths that exist after it, relative to the root, and those that it takes away.
    pub paths: Vec<Vec<u8>>,
    /// How many files have a header.
    pub files: u64,
    pub added: u64,
    pub removed: u64,
}

/// Why a patch is not even tried.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnsafePatch {
    #[error(
        "line {line}: {path:?} leaves the tree; only relative paths without `..` can be patched"
    )]
    Leaves { line: usize, path: String },
    #[error("line {line}: {path:?} touches `.git`, which is not part of the tree")]
    Git { line: usize, path: String },
    #[error(
        "line {line}: {path:?} has no `a/` or `b/` before it; make the patch with `git diff --binary --src-prefix=a/ --dst-prefix=b/ REF`"
    )]
    NoPrefix { line: usize, path: String },
    #[error(
        "line {line}: {path:?} has more than {MAX_PATH} bytes or {MAX_DEPTH} directories, which no source may have"
    )]
    TooDeep { line: usize, path: String },
    #[error("line {line}: the quoted path does not end or has an unknown escape")]
    Quoting { line: usize },
}

/// Reads the headers of `patch`.
pub(super) fn read(patch: &[u8]) -> Result<PatchFiles, UnsafePatch> {
    let mut found = PatchFiles::default();
    let mut state = State::Headers;
    for (index, line) in patch.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        state = match state {
            State::Hunk { old, new } => hunk_line(&mut found, line, old, new),
            State::Binary if line.is_empty() => State::Headers,
            State::Binary => State::Binary,
            State::Headers => header(&mut found, line, number)?,
        };
    }
    Ok(found)
}

enum State {
    Headers,
    /// Lines that are still to come.
    Hunk {
        old: u64,
        new: u64,
    },
    /// Up to the next empty line.
    Binary,
}

fn hunk_line(found: &mut PatchFiles, line: &[u8], old: u64, new: u64) -> State {
    let (old, new) = match line.first() {
        Some(b'+') => {
            found.added += 1;
            (old, new.saturating_sub(1))
        }
        Some(b'-') => {
            found.removed += 1;
            (old.saturating_sub(1), new)
        }
        Some(b'\\') => (old, new),
        _ => (old.saturating_sub(1), new.saturating_sub(1)),
    };
    if old == 0 && new == 0 {
        State::Headers
    } else {
        State::Hunk { old, new }
    }
}

fn header(found: &mut PatchFiles, line: &[u8], number: usize) -> Result<State, UnsafePatch> {
    if let Some(rest) = line.strip_prefix(b"@@ -") {
        let (old, new) = counts(rest);
        if old > 0 || new > 0 {
            return Ok(State::Hunk { old, new });
        }
    } else if line.starts_with(b"literal ") || line.starts_with(b"delta ") {
        return Ok(State::Binary);
    } else if let Some(rest) = line.strip_prefix(b"diff --git ") {
        found.files += 1;
        for name in git_names(rest, number)? {
            take(found, &name, true, number)?;
        }
    } else {
        for (start, prefixed) in [
            (&b"--- "[..], true),
            (b"+++ ", true),
            (b"rename from ", false),
            (b"rename to ", false),
            (b"rename old ", false),
            (b"rename new ", false),
            (b"copy from ", false),
            (b"copy to ", false),
        ] {
            if let Some(rest) = line.strip_prefix(start) {
                let name = name(rest, number)?;
                take(found, &name, prefixed, number)?;
            }
        }
    }
    Ok(State::Headers)
}

/// The counts of `3,4 +5,6 @@`; one where none is given.
fn counts(rest: &[u8]) -> (u64, u64) {
    let text = String::from_utf8_lossy(rest);
    let mut ranges = text.split(" @@").next().unwrap_or_default().split(" +");
    let mut count = || {
        let range = ranges.next()?;
        match range.split_once(',') {
            Some((_, count)) => count.parse().ok(),
            None => Some(1),
        }
    };
    (count().unwrap_or(0), count().unwrap_or(0))
}

/// Both names of `diff --git a/x b/x`. Unquoted names may hold spaces; git then wants both sides
/// to be the same, and so the line falls into halves. Otherwise the lines that follow tell.
fn git_names(rest: &[u8], number: usize) -> Result<Vec<Vec<u8>>, UnsafePatch> {
    if rest.contains(&b'"') {
        let (first, rest) = next_name(rest, number)?;
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let (second, _) = next_name(rest, number)?;
        return Ok(vec![first, second]);
    }
    let middle = rest.len() / 2;
    Ok(match rest.split_at_checked(middle) {
        Some((first, [b' ', second @ ..])) => vec![first.to_vec(), second.to_vec()],
        _ => rest
            .split(|byte| *byte == b' ')
            .filter(|word| word.contains(&b'/'))
            .map(<[u8]>::to_vec)
            .collect(),
    })
}

fn next_name(text: &[u8], number: usize) -> Result<(Vec<u8>, &[u8]), UnsafePatch> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        return unquote(quoted).ok_or(UnsafePatch::Quoting { line: number });
    }
    let end = text
        .windows(2)
        .position(|pair| pair == b" \"")
        .unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).unwrap_or((text, b""));
    Ok((name.to_vec(), rest))
}

/// One name up to the end of the line; a tab starts a time stamp.
fn name(rest: &[u8], number: usize) -> Result<Vec<u8>, UnsafePatch> {
    let (name, _) = if rest.starts_with(b"\"") {
        next_name(rest, number)?
    } else {
        let name = rest.split(|byte| *byte == b'\t').next().unwrap_or(rest);
        (name.trim_ascii_end().to_vec(), rest)
    };
    Ok(name)
}

/// The text of a C string after its first quote, and what follows it.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut name = Vec::new();
    let mut rest = text;
    loop {
        let (first, after) = rest.split_first()?;
        rest = after;
        match first {
            b'"' => return Some((name, rest)),
            b'\\' => {
                let (escaped, after) = rest.split_first()?;
                rest = after;
                name.push(match escaped {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    b'"' | b'\\' => *escaped,
                    b'0'..=b'3' => {
                        let (digits, after) = rest.split_at_checked(2)?;
                        rest = after;
                        let octal = [&[*escaped], digits].concat();
                        u8::from_str_radix(std::str::from_utf8(&octal).ok()?, 8).ok()?
                    }
                    _ => return None,
                });
            }
            other => name.push(*other),
        }
    }
}

fn take(
    found: &mut PatchFiles,
    name: &[u8],
    prefixed: bool,
    line: usize,
) -> Result<(), UnsafePatch> {
    if prefixed && name == b"/dev/null" {
        return Ok(());
    }
    let show = |name: &[u8]| String::from_utf8_lossy(name).chars().take(200).collect();
    let leaves = |name: &[u8]| {
        let parent = name.split(|byte| *byte == b'/').any(|part| part == b"..");
        name.starts_with(b"/") || name.contains(&0) || parent
    };
    if name.is_empty() || leaves(name) {
        let path = show(name);
        return Err(UnsafePatch::Leaves { line, path });
    }
    let path = match name {
        // What git writes before the names: sides, index and working tree, commits, objects.
        [
            b'a' | b'b' | b'c' | b'i' | b'w' | b'o' | b'1' | b'2',
            b'/',
            path @ ..,
        ] if prefixed => path,
        name if prefixed => {
            let path = show(name);
            return Err(UnsafePatch::NoPrefix { line, path });
        }
        name => name,
    };
    if path.is_empty() || leaves(path) {
        let path = show(path);
        return Err(UnsafePatch::Leaves { line, path });
    }
    let depth = path.iter().filter(|byte| **byte == b'/').count();
    if path.len() > MAX_PATH || depth >= MAX_DEPTH {
        let path = show(path);
        return Err(UnsafePatch::TooDeep { line, path });
    }
    let is_git = |part: &[u8]| part.eq_ignore_ascii_case(b".git");
    if path.split(|byte| *byte == b'/').any(is_git) {
        let path = show(path);
        return Err(UnsafePatch::Git { line, path });
    }
    if found.paths.last().is_none_or(|last| last != path) {
        found.paths.push(path.to_vec());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(patch: &str) -> Vec<String> {
        let found = read(patch.as_bytes()).expect(patch);
        let mut paths: Vec<String> = found
            .paths
            .iter()
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }

    #[test]
    fn names_of_all_kinds() {
        let text = "diff --git a/x y b/x y\n--- a/x y\t2020\n+++ b/x y\n@@ -1 +1,2 @@\n-a\n+b\n+c\n\
                    diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n\
                    diff --git \"a/t\\303\\244\\t\" \"b/t\\303\\244\\t\"\ndeleted file mode 100644\n--- \"a/t\\303\\244\\t\"\n+++ /dev/null\n";
        assert_eq!(paths(text), ["new", "old", "tä\t", "x y"]);
        let found = read(text.as_bytes()).unwrap();
        assert_eq!((found.files, found.added, found.removed), (3, 2, 1));
    }

    #[test]
    fn contents_are_not_headers() {
        let hunk = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- /etc/passwd\n\
                    +++ ../../x\n \n";
        assert_eq!(paths(hunk), ["x"]);
        let after = format!("{hunk}--- /etc/passwd\n");
        assert!(read(after.as_bytes()).is_err());
        let binary =
            "diff --git a/x b/x\nGIT binary patch\nliteral 5\n--- /etc/passwd\n\nliteral 0\nHc\n\n";
        assert_eq!(paths(binary), ["x"]);
    }

    #[test]
    fn what_is_refused() {
        let leaves = |path: &str| UnsafePatch::Leaves {
            line: 1,
            path: path.to_owned(),
        };
        let git = |path: &str| UnsafePatch::Git {
            line: 1,
            path: path.to_owned(),
        };
        for (patch, expected) in [
            ("--- /etc/passwd", leaves("/etc/passwd")),
            ("+++ b/../x", leaves("b/../x")),
            ("+++ b//etc/passwd", leaves("/etc/passwd")),
            ("+++ \"b/\\056\\056/x\"", leaves("b/../x")),
            ("rename to ../x", leaves("../x")),
            ("copy from /x", leaves("/x")),
            ("rename to ", leaves("")),
            ("diff --git a/.. b/..", leaves("a/..")),
            ("diff --git a/x b/../y", leaves("b/../y")),
            ("diff --git \"a/\\056./x\" b/x", leaves("a/../x")),
            ("+++ b/.git/config", git(".git/config")),
            ("+++ b/sub/.GIT/hooks/x", git("sub/.GIT/hooks/x")),
            ("rename to .git", git(".git")),
            ("+++ \"b/open", UnsafePatch::Quoting { line: 1 }),
            ("+++ \"b/\\x41\"", UnsafePatch::Quoting { line: 1 }),
            (
                "--- src/x.c",
                UnsafePatch::NoPrefix {
                    line: 1,
                    path: "src/x.c".to_owned(),
                },
            ),
        ] {
            assert_eq!(read(patch.as_bytes()), Err(expected), "{patch}");
        }
        for path in ["d/".repeat(MAX_DEPTH) + "x", "n".repeat(MAX_PATH + 1)] {
            let found = read(format!("+++ b/{path}").as_bytes());
            assert!(
                matches!(found, Err(UnsafePatch::TooDeep { line: 1, .. })),
                "{found:?}"
            );
        }
        let deepest = format!("+++ b/{}x", "d/".repeat(MAX_DEPTH - 1));
        assert!(read(deepest.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(patch in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&patch);
        }

        #[test]
        fn no_header_panics(rest in "(diff --git |--- |\\+\\+\\+ |@@ -)[ab/\"\\\\.0-7 ,@+\\-]{0,20}") {
            let _ = read(rest.as_bytes());
        }
    }
}

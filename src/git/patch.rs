//! Applies the caller's patch to a freshly checked-out tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use thiserror::Error;

use super::bounds::Bounds;
use super::command::{Git, Place};
use super::error::GitError;
use super::patch_files::{self, PatchFiles, UnsafePatch};
use super::run::{Control, run};
use super::text::Scrubber;
use crate::context::leaves_by_text;

/// What a patch changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchStats {
    pub files: u64,
    /// Lines of text; binary changes have none.
    pub added: u64,
    pub removed: u64,
}

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    #[error("the patch changes no file; give the output of `git diff --binary REF`")]
    Empty,
    #[error("the patch is refused: {0}")]
    Unsafe(#[from] UnsafePatch),
    #[error("the patch is refused: the link {path:?} would lead out of the tree, to {target:?}")]
    LinkLeaves { path: String, target: String },
    /// It is not what `git diff` puts out.
    #[error("the patch is damaged{}: {reason}", .line.map(|line| format!(" at its line {line}")).unwrap_or_default())]
    Corrupt { line: Option<u64>, reason: String },
    /// It was made against something else.
    #[error("the patch does not apply: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    DoesNotApply(Vec<PatchFailure>),
    #[error("{0}")]
    Git(#[from] GitError),
}

impl PatchError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "patch_empty",
            Self::Unsafe(_) | Self::LinkLeaves { .. } => "patch_refused",
            Self::Corrupt { .. } => "patch_corrupt",
            Self::DoesNotApply(_) => "patch_does_not_apply",
            Self::Git(error) => error.code(),
        }
    }
}

/// One file that the patch does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}{}: {reason}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct PatchFailure {
    /// Relative to the root of the tree.
    pub file: String,
    /// Of the file, where the first hunk that does not fit was looked for.
    pub line: Option<u64>,
    /// In git's words.
    pub reason: String,
}

/// Applies `patch` (as from `git diff --binary`) to the tree, which nothing else may be using.
/// All or nothing, but for [`PatchError::LinkLeaves`]: then the tree is to be discarded.
pub async fn apply_patch(
    git: &Git,
    place: Place<'_>,
    patch: &[u8],
    control: &mut Control<'_>,
) -> Result<PatchStats, PatchError> {
    let patch = complete(patch);
    let files = patch_files::read(&patch)?;
    if files.paths.is_empty() {
        return Err(PatchError::Empty);
    }
    let command = git.command(place, ["apply", "--whitespace=nowarn", "-p1", "-"]);
    let (bounds, scrubber) = (Bounds::new(git, place, control.limits), Scrubber::default());
    let outcome = run(command, &patch, &mut |_| Ok(()), bounds, control, &scrubber).await?;
    outcome
        .success(&scrubber)
        .map_err(|error| explain(&outcome.stderr).unwrap_or(PatchError::Git(error)))?;
    check_links(place.work_tree, &files)?;
    // A patch that is not git's own has one name a file and no headers to count.
    let plain = files.paths.len() as u64;
    Ok(PatchStats {
        files: if files.files > 0 { files.files } else { plain },
        added: files.added,
        removed: files.removed,
    })
}

/// With the empty line at its end that binary data needs and that is lost where texts are trimmed.
/// After a whole hunk git passes over it.
fn complete(patch: &[u8]) -> Vec<u8> {
    let missing: &[u8] = match patch {
        [.., b'\n', b'\n'] => b"",
        [.., b'\n'] => b"\n",
        _ => b"\n\n",
    };
    [patch, missing].concat()
}

/// Looks at the outcome rather than at the patch: a link may come as text, as binary data or by a
/// rename to where its target means something else.
fn check_links(tree: &Path, files: &PatchFiles) -> Result<(), PatchError> {
    for path in &files.paths {
        let path = Path::new(OsStr::from_bytes(path));
        // What is no link, or behind one, was not made by the patch: git refuses such paths.
        let Ok(target) = std::fs::read_link(tree.join(path)) else {
            continue;
        };
        if leaves_by_text(path, &target) {
            return Err(PatchError::LinkLeaves {
                path: path.to_string_lossy().into_owned(),
                target: target.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

struct Sentences {
    failed_at: Regex,
    corrupt: Regex,
    quoted: Regex,
    about_file: Regex,
}

static SENTENCES: LazyLock<Option<Sentences>> = LazyLock::new(|| {
    Some(Sentences {
        failed_at: Regex::new(r"^patch failed: (.+):(\d+)$").ok()?,
        corrupt: Regex::new(
            r"^(?:corrupt (?:binary )?patch at (?:<stdin>:|line )(\d+)|.*\b(?:garbage|header|patch) at line (\d+).*|No valid patches.*|unrecognized .*|.*bad git-diff.*|git diff header .*|.*lacks filename information.*)",
        )
        .ok()?,
        quoted: Regex::new(
            r"^(?:(?:affected file|invalid path|cannot apply binary patch to|the patch applies to|binary patch does not apply to|binary patch to|cannot open|unable to (?:write file|remove file)) )'([^']+)'\s*(.*)$",
        )
        .ok()?,
        about_file: Regex::new(r"^(.+?): (.+)$").ok()?,
    })
});

/// What git's messages tell; `None` when they tell nothing of the patch.
fn explain(stderr: &str) -> Option<PatchError> {
    let sentences = SENTENCES.as_ref()?;
    let scrubber = Scrubber::default();
    let mut failures: Vec<PatchFailure> = Vec::new();
    for line in stderr.lines() {
        let Some(line) = line.strip_prefix("error: ") else {
            continue;
        };
        let line = scrubber.clean(line);
        if let Some(found) = sentences.corrupt.captures(&line) {
            let number = found.get(1).or(found.get(2));
            return Some(PatchError::Corrupt {
                line: number.and_then(|number| number.as_str().parse().ok()),
                reason: line.chars().take(200).collect(),
            });
        }
        let (file, number, reason) = if let Some(found) = sentences.failed_at.captures(&line) {
            let (_, [file, number]) = found.extract();
            (file, number.parse().ok(), "does not match the file")
        } else if let Some(found) = sentences.quoted.captures(&line) {
            (found.get(1)?.as_str(), None, line.as_str())
        } else if let Some(found) = sentences.about_file.captures(&line) {
            let (_, [file, reason]) = found.extract();
            (file, None, reason)
        } else {
            continue;
        };
        // git names a file once more to sum up; the first sentence says more.
        match failures.iter_mut().find(|failure| failure.file == file) {
            Some(failure) => failure.line = failure.line.or(number),
            None => failures.push(PatchFailure {
                file: file.to_owned(),
                line: number,
                reason: reason.chars().take(200).collect(),
            }),
        }
    }
    (!failures.is_empty()).then_some(PatchError::DoesNotApply(failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_git_apply() {
        let failure = |file: &str, line, reason: &str| PatchFailure {
            file: file.to_owned(),
            line,
            reason: reason.to_owned(),
        };
        let stderr = "Checking patch src/x.c...\nerror: while searching for:\n  a\n\n\
                      error: patch failed: src/x.c:41\nerror: src/x.c: patch does not apply\n\
                      error: gone.c: No such file or directory\n\
                      error: new.c: already exists in working directory\n\
                      error: affected file 'l/x' is beyond a symbolic link\n";
        let expected = [
            failure("src/x.c", Some(41), "does not match the file"),
            failure("gone.c", None, "No such file or directory"),
            failure("new.c", None, "already exists in working directory"),
            failure("l/x", None, "affected file 'l/x' is beyond a symbolic link"),
        ];
        let stderr = stderr.replace("error: while searching for:", "while searching for:");
        assert_eq!(
            explain(&stderr),
            Some(PatchError::DoesNotApply(expected.to_vec()))
        );
        for (stderr, line) in [
            ("error: corrupt patch at line 7", Some(7)),
            ("error: corrupt patch at <stdin>:8", Some(8)),
            ("error: patch with only garbage at line 3", Some(3)),
            (
                "error: patch fragment without header at line 5: @@ -1 +1 @@",
                Some(5),
            ),
            (
                "error: No valid patches in input (allow with \"--allow-empty\")",
                None,
            ),
        ] {
            match explain(stderr) {
                Some(PatchError::Corrupt { line: found, .. }) => assert_eq!(found, line),
                other => panic!("{stderr}: {other:?}"),
            }
        }
        assert_eq!(explain("fatal: out of memory"), None);
    }
}

//! What a step or a test can see of the source: for the places that its output names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::containerfile::Layout;
use crate::diagnosis::Tree;

use super::phases::Job;
use super::source::Sources;

/// Names that are read at most; what lies beyond is not known.
const ENTRIES: usize = 50_000;

/// The files of the source, and where they lie for `layout`.
pub fn tree(job: &Job<'_>, layout: Layout) -> Tree {
    let shown_below = job
        .plan
        .shown_below
        .as_deref()
        .map(|below| below.trim_matches('/'));
    let files = files(&job.work.src());
    Tree {
        files: match shown_below {
            Some(below) if job.plan.subdir.is_none() => files
                .into_iter()
                .map(|file| format!("{below}/{file}"))
                .collect(),
            _ => files,
        },
        context: match (&job.plan.subdir, shown_below) {
            (Some(subdir), _) => subdir.trim_matches('/').to_owned(),
            (None, Some(below)) => below.to_owned(),
            (None, None) => String::new(),
        },
        layout,
    }
}

/// What a test can see: its image is that of a stage.
pub fn by_test(job: &Job<'_>, sources: &Sources, stage: Option<&str>) -> Tree {
    let target = stage.or(job.plan.target.as_deref());
    let stages = sources
        .parsed
        .plan(target, &job.plan.build_args)
        .unwrap_or_default();
    let layout = stages.last().map(|stage| {
        sources
            .parsed
            .layout(stage.index, None, &job.plan.build_args)
    });
    tree(job, layout.unwrap_or_default())
}

/// The files below a directory, relative to it. Links are not followed.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut seen = 0;
    let mut pending: Vec<(PathBuf, String)> = vec![(root.to_owned(), String::new())];
    while let Some((directory, below)) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            seen += 1;
            if seen > ENTRIES {
                return found;
            }
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else {
                continue;
            };
            let path = if below.is_empty() {
                name.clone()
            } else {
                format!("{below}/{name}")
            };
            if kind.is_dir() && name != ".git" {
                pending.push((entry.path(), path));
            } else if kind.is_file() {
                found.insert(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_from_the_root_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        for file in ["a/b/c", "d", ".git/config"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let found: Vec<String> = files(dir.path()).into_iter().collect();
        assert_eq!(found, ["a/b/c", "d"]);
    }
}

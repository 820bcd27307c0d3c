//! From a path that a program printed to a file of the source.
//!
//! A path is one of a container: `COPY` and `WORKDIR` say where it came from. What is known of the source are the
//! names of its files; where the instructions do not lead to one, a name that fits only one file does.

use std::collections::BTreeSet;

use crate::containerfile::{Copied, Layout};

/// What a step can see of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Files of the source, relative to its root.
    pub files: BTreeSet<String>,
    /// The context, relative to the root of the source; empty for the root itself.
    pub context: String,
    /// Where its files lie in the container.
    pub layout: Layout,
}

/// Of a source with so many files not all may be known.
const ALL: usize = 20_000;
/// Bytes of a name, without its end, of which a letter may be a slip; also bounds the quadratic distance.
const SHORTEST: usize = 4;
const LONGEST: usize = 64;
/// Directories of systems and packages, not of users.
const FOREIGN: &[&str] = &[
    "/usr/",
    "/lib/",
    "/lib64/",
    "/opt/",
    "/root/.",
    "/nix/",
    "/rustc/",
    "/proc/",
    "/tmp/",
    "<",
    "node:",
    "internal/",
];
/// Directories of packages anywhere.
const PACKAGES: &[&str] = &[
    "node_modules/",
    "site-packages/",
    "dist-packages/",
    "/.cargo/",
    "/pkg/mod/",
    "vendor/bundle/",
];

impl Tree {
    /// The file of the source that `printed` means, for a program that ran in one of `directories`.
    pub fn file(&self, printed: &str, directories: &[String]) -> Option<String> {
        let printed = printed.trim_start_matches("file://");
        if printed.is_empty() || printed.len() > 500 {
            return None;
        }
        let paths: Vec<String> = if printed.starts_with('/') {
            vec![normal(printed)?]
        } else {
            let own = std::iter::once(&self.layout.workdir);
            let starts = directories.iter().rev().chain(own);
            starts
                .filter_map(|start| normal(&format!("{start}/{printed}")))
                .collect()
        };
        let known = paths.iter().find_map(|path| self.came_from(path));
        let known = known.or_else(|| {
            let below = normal(&format!("/{}/{printed}", self.context))
                .filter(|_| !printed.starts_with('/'))?;
            self.has(below.trim_start_matches('/'))
        });
        known.or_else(|| self.only(printed))
    }

    /// What it most likely means where no file is known; `None` for files of systems and packages.
    pub fn guess(&self, printed: &str) -> Option<String> {
        if self.is_known() || is_foreign(printed) {
            return None;
        }
        if !printed.starts_with('/') {
            return Some(printed.trim_start_matches("./").to_owned());
        }
        let path = normal(printed)?;
        self.sources(&path).next()
    }

    /// What of the source somebody may have meant who wrote this path below the context: the only name in the same
    /// directory that is written a little differently, else the only one of that name elsewhere.
    pub fn meant(&self, missing: &str) -> Option<&str> {
        if !self.is_known() {
            return None;
        }
        let (directory, name) = split(missing.trim_matches('/'));
        let entries = self.entries();
        let only = |fits: &dyn Fn(&str, &str) -> bool| {
            let mut found = entries.iter().filter(|entry| {
                let (its_directory, its_name) = split(entry);
                fits(its_directory, its_name)
            });
            let first = found.next()?;
            found.next().is_none().then_some(*first)
        };
        only(&|its, other| its == directory && is_slip(name, other))
            .or_else(|| only(&|its, other| its != directory && other == name))
    }

    /// The files of the context and the directories that they are in, relative to it.
    fn entries(&self) -> BTreeSet<&str> {
        let below = self
            .files
            .iter()
            .filter_map(|file| match self.context.as_str() {
                "" => Some(file.as_str()),
                context => file.strip_prefix(context)?.strip_prefix('/'),
            });
        below
            .flat_map(|file| {
                let directories = file.match_indices('/').filter_map(|(at, _)| file.get(..at));
                directories.chain([file])
            })
            .collect()
    }

    /// Whether all files of the source are here: then what is not among them is not the user's.
    fn is_known(&self) -> bool {
        (1..ALL).contains(&self.files.len())
    }

    /// Where what lies at an absolute path came from, the last copy first.
    fn sources<'a>(&'a self, path: &'a str) -> impl Iterator<Item = String> + 'a {
        self.layout
            .copied
            .iter()
            .rev()
            .flat_map(move |copied| {
                let context = copied.named.as_ref().unwrap_or(&self.context);
                let sources = self.source_of(copied, path).into_iter();
                sources.map(move |source| format!("/{context}/{source}"))
            })
            .filter_map(|path| {
                let path = normal(&path)?;
                Some(path.trim_start_matches('/').to_owned())
            })
    }

    fn source_of(&self, copied: &Copied, path: &str) -> Vec<String> {
        let target = normal(&copied.target).unwrap_or_default();
        let target = target.trim_end_matches('/');
        let source = copied.source.trim_matches('/');
        if path == target {
            return vec![source.to_owned()];
        }
        let Some(rest) = path
            .strip_prefix(target)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Vec::new();
        };
        if source.contains(['*', '?', '[']) {
            let (directory, _) = split(source);
            return vec![format!("{directory}/{rest}")];
        }
        let mut found = vec![format!("{source}/{rest}")];
        let (_, name) = split(source);
        if rest == name {
            found.push(source.to_owned());
        }
        found
    }

    fn came_from(&self, path: &str) -> Option<String> {
        self.sources(path).find_map(|path| self.has(&path))
    }

    fn has(&self, path: &str) -> Option<String> {
        self.files.get(path).cloned()
    }

    /// The only file whose path ends so.
    fn only(&self, printed: &str) -> Option<String> {
        if is_foreign(printed) {
            return None;
        }
        let tail = normal(&format!("/{}", printed.trim_start_matches("../")))?;
        let whole = tail.trim_start_matches('/');
        let mut found = self.files.iter().filter(|file| {
            file.strip_suffix(whole)
                .is_some_and(|start| start.is_empty() || start.ends_with('/'))
        });
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }
}

/// Whether two names of files differ as by a slip of the pen: in case or separators, or by a letter that is missing, too
/// many or at another place. What is another version, kind or form of a file is none.
fn is_slip(one: &str, other: &str) -> bool {
    let folded = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let digits = |name: &str| {
        name.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    };
    let (one_stem, one_end) = one.rsplit_once('.').unwrap_or((one, ""));
    let (other_stem, other_end) = other.rsplit_once('.').unwrap_or((other, ""));
    if one == other || !one_end.eq_ignore_ascii_case(other_end) || digits(one) != digits(other) {
        return false;
    }
    let (one, other) = (folded(one_stem), folded(other_stem));
    let is_other_letter = || {
        let sorted = |stem: &str| {
            let mut letters: Vec<char> = stem.chars().collect();
            letters.sort_unstable();
            letters
        };
        one.len() == other.len() && sorted(&one) != sorted(&other)
    };
    one == other
        || [&one, &other]
            .iter()
            .all(|stem| (SHORTEST..=LONGEST).contains(&stem.len()))
            && strsim::osa_distance(&one, &other) == 1
            && !is_other_letter()
}

/// The directory of a path, and its last name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_foreign(path: &str) -> bool {
    FOREIGN.iter().any(|prefix| path.starts_with(prefix))
        || PACKAGES.iter().any(|part| path.contains(part))
}

/// An absolute path without `.`, `..` and double slashes; `None` if it leaves the root.
pub fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(context: &str, workdir: &str, copied: &[(&str, &str)], files: &[&str]) -> Tree {
        Tree {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            context: context.to_owned(),
            layout: Layout {
                workdir: workdir.to_owned(),
                copied: copied
                    .iter()
                    .map(|(source, target)| Copied {
                        named: None,
                        source: (*source).to_owned(),
                        target: (*target).to_owned(),
                    })
                    .collect(),
            },
        }
    }

    #[test]
    fn a_copy_of_a_named_context_leads_to_its_directory() {
        let files = ["app/main.c", "libs/shared/main.c", "shared/main.c"];
        let mut tree = tree("app", "/w", &[(".", "/w"), (".", "/shared")], &files);
        tree.layout.copied[1].named = Some("libs/shared".into());
        let file = |printed: &str| tree.file(printed, &[]);
        assert_eq!(file("/w/main.c").as_deref(), Some("app/main.c"));
        assert_eq!(
            file("/shared/main.c").as_deref(),
            Some("libs/shared/main.c")
        );
    }

    #[test]
    fn a_path_that_is_not_there_may_mean_another() {
        let files = [
            "app/tests/test_a.py",
            "app/src/main.py",
            "app/Requirements.txt",
            "app/a/x.txt",
            "app/b/x.txt",
            "config.yaml",
        ];
        let tree = tree("app", "/", &[], &files);
        for (missing, meant) in [
            ("/test", Some("tests")),
            ("requirements.txt", Some("Requirements.txt")),
            ("/src/mian.py", Some("src/main.py")),
            ("main.py", Some("src/main.py")),
            ("x.txt", None),
            ("config.yaml", None),
            ("nothing", None),
            ("", None),
        ] {
            assert_eq!(tree.meant(missing), meant, "{missing}");
        }
        // Two that are like it.
        let files = ["app/test/a", "app/tests/a"];
        let tree = self::tree("app", "/", &[], &files);
        assert_eq!(tree.meant("tets"), None);
        assert_eq!(Tree::default().meant("test"), None);
    }

    #[test]
    fn another_file_is_no_slip() {
        for (missing, there) in [
            ("Cargo.lock", "Cargo.toml"),
            ("package-lock.json", "package.json"),
            ("requirements-dev.txt", "requirements.txt"),
            ("server.key", "server.crt"),
            ("main.h", "main.c"),
            ("app.jar", "app.java"),
            ("settings.json", "settings.yaml"),
            (".env", "env"),
            (".env", ".venv"),
            ("dist", "list"),
            ("migration_004.sql", "migration_001.sql"),
            ("a.o", "a.c"),
        ] {
            assert!(!is_slip(missing, there), "{missing} {there}");
        }
        for (missing, there) in [
            ("readme.md", "README.md"),
            ("go_mod", "go-mod"),
            ("requirments.txt", "requirements.txt"),
            ("Makefiel", "Makefile"),
        ] {
            assert!(is_slip(missing, there), "{missing} {there}");
        }
    }

    #[test]
    fn copies_lead_back_to_the_source() {
        let files = [
            "app/src/main.c",
            "app/lib/util.c",
            "app/a.txt",
            "main.c",
            "x/util.go",
            "y/util.go",
        ];
        let tree = tree(
            "app",
            "/usr/src/app",
            &[
                ("src", "/usr/src/app/source"),
                ("lib/*.c", "/lib/"),
                ("a.txt", "/etc/"),
                (".", "/all/."),
            ],
            &files,
        );
        let directories = ["/usr/src/app/source".to_owned()];
        for (printed, file) in [
            ("/usr/src/app/source/main.c", Some("app/src/main.c")),
            ("source/main.c", Some("app/src/main.c")),
            ("./main.c", Some("app/src/main.c")),
            ("/lib/util.c", Some("app/lib/util.c")),
            ("/etc/a.txt", Some("app/a.txt")),
            ("/all/src/../src/main.c", Some("app/src/main.c")),
            ("file:///all/a.txt", Some("app/a.txt")),
            ("src/main.c", Some("app/src/main.c")),
            ("util.go", None),
            ("x/util.go", Some("x/util.go")),
            ("/usr/include/stdio.h", None),
            ("node_modules/a.txt", None),
            ("../../../../../../x", None),
            ("", None),
        ] {
            assert_eq!(
                tree.file(printed, &directories).as_deref(),
                file,
                "{printed}"
            );
        }
    }
}

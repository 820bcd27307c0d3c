//! The rules of a `.containerignore` or `.dockerignore`: which paths stay out of a context.
//!
//! The last rule that matches a path or one of its parents decides; `!` brings a path back, also
//! from inside an ignored directory.

use std::path::{Path, PathBuf};

use regex::{RegexSet, RegexSetBuilder};
use thiserror::Error;

use super::glob::{GlobFault, SPECIAL, translate};

/// Biggest ignore file in bytes.
pub(super) const MAX_IGNORE_FILE: usize = 256 * 1024;
/// Memory of the compiled rules in bytes, and of the matcher's cache.
const MAX_COMPILED: usize = 16 * 1024 * 1024;

/// What is wrong with an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IgnoreFault {
    #[error("line {line}: {pattern:?} is not a pattern: {fault}")]
    Pattern {
        line: usize,
        /// At most 80 characters.
        pattern: String,
        fault: GlobFault,
    },
    #[error(
        "is bigger than {MAX_IGNORE_FILE} bytes or its patterns are too many; use fewer and wider ones"
    )]
    TooBig,
}

/// Compiled rules; the default has none.
#[derive(Debug)]
pub(super) struct Ignore {
    set: RegexSet,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    brings_back: bool,
    /// The leading directories that the pattern names literally.
    literal: PathBuf,
}

impl Default for Ignore {
    fn default() -> Self {
        Self {
            set: RegexSet::empty(),
            rules: Vec::new(),
        }
    }
}

impl Ignore {
    /// Reads the text of an ignore file.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<IgnoreFault>> {
        if text.len() > MAX_IGNORE_FILE {
            return Err(vec![IgnoreFault::TooBig]);
        }
        let text = String::from_utf8_lossy(text);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let (mut rules, mut regexes, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            match parse_rule(line.trim()) {
                Ok(Some((rule, regex))) => {
                    rules.push(rule);
                    regexes.push(regex);
                }
                Ok(None) => {}
                Err(fault) => faults.push(IgnoreFault::Pattern {
                    line: number + 1,
                    pattern: line.trim().chars().take(80).collect(),
                    fault,
                }),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let set = RegexSetBuilder::new(regexes)
            .dot_matches_new_line(true)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build()
            .map_err(|_| vec![IgnoreFault::TooBig])?;
        Ok(Self { set, rules })
    }

    /// The rule that keeps `path` out, if any.
    pub fn ignored_by(&self, path: &Path) -> Option<usize> {
        let last = self
            .set
            .matches(&path.to_string_lossy())
            .iter()
            .next_back()?;
        let rule = self.rules.get(last)?;
        (!rule.brings_back).then_some(last)
    }

    /// Whether something in the directory `path`, which `rule` keeps out, may be brought back.
    pub fn may_bring_back_beneath(&self, path: &Path, rule: usize) -> bool {
        self.rules.iter().skip(rule + 1).any(|later| {
            later.brings_back
                && (later.literal.starts_with(path) || path.starts_with(&later.literal))
        })
    }
}

/// `None` for a pattern that can match nothing, such as `.`.
fn parse_rule(line: &str) -> Result<Option<(Rule, String)>, GlobFault> {
    let (brings_back, pattern) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    if pattern.is_empty() {
        return Err(GlobFault::Nothing);
    }
    let pattern = clean(pattern);
    if pattern.is_empty() {
        return Ok(None);
    }
    let literal = pattern
        .split('/')
        .take_while(|name| !name.contains(SPECIAL))
        .collect();
    // A rule for a directory holds for all that is in it.
    let regex = format!("^(?:{})(?:/.*)?$", translate(&pattern)?);
    Ok(Some((
        Rule {
            brings_back,
            literal,
        },
        regex,
    )))
}

/// The pattern relative to the root, without `.`, `..`, doubled or outer slashes.
fn clean(pattern: &str) -> String {
    let rooted = pattern.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            ".." if rooted => {}
            other => names.push(other),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ignores(patterns: &[&str], path: &str) -> bool {
        let ignore = Ignore::parse(patterns.join("\n").as_bytes()).expect("valid patterns");
        ignore.ignored_by(Path::new(path)).is_some()
    }

    #[test]
    fn one_pattern() {
        let cases = [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/sub/file", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir", "up/dir/file", true),
            ("**/two/*", "one/two/file", true),
            ("**/two/**", "one/two/three/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**file", "dir/afile", true),
            ("**/file", "dir/afile", false),
            ("**file*", "dir/file.txt", true),
            ("**/file*.txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("abc?def", "abc/def", false),
            ("a\\\\", "a\\", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("dist/*.whl", "dist/p-2.4.0rc3.dev36+g08acad9-py3.whl", true),
            ("*c", "abc", true),
            ("a*", "ab/c", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[^e-g]", "abc", true),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("/rooted", "rooted/file", true),
            ("dir/", "dir/file", true),
            ("./dir//sub/", "dir/sub", true),
            ("one/../two", "two", true),
            ("/", "file", false),
            (".", "file", false),
            ("../file", "file", false),
            ("new*line", "new\nline", true),
            ("[&&a]", "&", true),
            ("  spaced  ", "spaced", true),
            (" # not a comment", "# not a comment", true),
            ("# comment", "# comment", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(ignores(&[pattern], path), expected, "{pattern:?} {path:?}");
        }
    }

    #[test]
    fn the_last_match_wins() {
        for (patterns, path, expected) in [
            (&["*.go", "!a.go"][..], "a.go", false),
            (&["!a.go", "*.go"], "a.go", true),
            (&["docs", "!docs/README.md"], "docs/README.md", false),
            (&["docs", "!docs/README.md"], "docs/other", true),
            (&["docs/*", "!docs/README.md"], "docs/README.md", false),
            (&["**", "!util/docker/web"], "util/docker/web/foo", false),
            (
                &["**", "!util/docker/web", "util/docker/web/foo"],
                "util/docker/web/foo",
                true,
            ),
            (&["**", "! /dist/*.whl"], "dist/a.whl", false),
            (&["\u{feff}first", "# !first", "", "last\r"], "first", true),
            (&["\u{feff}first", "# !first", "", "last\r"], "last", true),
        ] {
            assert_eq!(ignores(patterns, path), expected, "{patterns:?} {path:?}");
        }
    }

    #[test]
    fn malformed_patterns_are_named_with_their_lines() {
        let faults =
            Ignore::parse(b"ok\n[\n!\n! \nb\\\n[x-]\n[]a]\n[a-b-c]\n[z-a]\na[").unwrap_err();
        let found: Vec<_> = faults
            .iter()
            .map(|fault| match fault {
                IgnoreFault::Pattern { line, fault, .. } => (*line, *fault),
                IgnoreFault::TooBig => panic!("not too big"),
            })
            .collect();
        use GlobFault::{Backslash, Class, Nothing, Range};
        assert_eq!(
            found,
            [
                (2, Class),
                (3, Nothing),
                (4, Nothing),
                (5, Backslash),
                (6, Class),
                (7, Class),
                (8, Class),
                (9, Range),
                (10, Class)
            ]
        );
    }

    #[test]
    fn only_directories_that_may_hold_an_exception_are_entered() {
        let ignore = Ignore::parse(b"!early/x\n*\n!src/keep/*.c\n!**/deep.txt\nbuild").unwrap();
        let enter = |path: &str| {
            let rule = ignore.ignored_by(Path::new(path)).expect("ignored");
            ignore.may_bring_back_beneath(Path::new(path), rule)
        };
        assert!(enter("src"));
        assert!(enter("early"), "`!**/deep.txt` reaches everywhere");
        assert!(!enter("build"), "the last rule keeps all of it out");
        let ignore = Ignore::parse(b"*\n!src/keep/*.c").unwrap();
        let enter = |path: &str| ignore.may_bring_back_beneath(Path::new(path), 0);
        assert!(enter("src") && enter("src/keep") && !enter("node_modules") && !enter("src/other"));
    }

    #[test]
    fn a_hostile_file_is_refused_or_cheap() {
        let big = vec![b'a'; MAX_IGNORE_FILE + 1];
        assert_eq!(Ignore::parse(&big).unwrap_err(), [IgnoreFault::TooBig]);
        let long = "a".repeat(1025);
        let faults = Ignore::parse(long.as_bytes()).unwrap_err();
        assert!(faults[0].to_string().contains("longer than"));
        let started = std::time::Instant::now();
        let stars: String = (0..200)
            .map(|n| "**/*a".repeat(200) + &format!("{n}\n"))
            .collect();
        if let Ok(ignore) = Ignore::parse(stars.as_bytes()) {
            ignore.ignored_by(Path::new(&"a/".repeat(2000)));
        }
        assert!(started.elapsed().as_secs() < 60);
        let many: String = (0..2000).map(|n| format!("dir{n}/**/*.o\n")).collect();
        assert!(
            Ignore::parse(many.as_bytes()).is_ok(),
            "an honest file is taken"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a\\[\\]^*?!\\\\/.\\-# \n]{0,40}", path in "[ab./*\\-]{0,12}") {
            if let Ok(ignore) = Ignore::parse(text.as_bytes()) {
                ignore.ignored_by(Path::new(&path));
            }
        }

        #[test]
        fn a_plain_name_matches_itself_and_what_is_in_it(name in "[a-z.+(){}$|]{1,8}[a-z]") {
            prop_assert!(ignores(&[&name], &name));
            let inside = format!("{name}/x");
            prop_assert!(ignores(&[&name], &inside));
            let suffixed = format!("{name}x");
            prop_assert!(!ignores(&[&name], &suffixed));
        }
    }
}

//! Rules as data: what programs print when they fail, and what it means. One file a family.
//!
//! A rule belongs to a line. The families, and the rules in a family, stand in the order in which they are
//! asked: the first that matches a line has it. Every rule has a real sample beside it, which the tests take.
//! To add one, write it into the file of its family, before whatever is more general.
//!
//! All patterns of a set are matched in one pass over the line, of which only the beginning counts: the time is
//! bounded whatever is printed.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;

use crate::build::{Fault, Kind};

/// What Buildah says of itself.
const BUILDAH: &[(&str, &str)] = &[("buildah", include_str!("buildah.toml"))];

/// What a command prints, the special before the general.
const COMMANDS: &[(&str, &str)] = &[
    ("runtime", include_str!("runtime.toml")),
    ("apt", include_str!("apt.toml")),
    ("apk", include_str!("apk.toml")),
    ("dnf", include_str!("dnf.toml")),
    ("pip", include_str!("pip.toml")),
    ("npm", include_str!("npm.toml")),
    ("cargo", include_str!("cargo.toml")),
    ("go", include_str!("go.toml")),
    ("jvm", include_str!("jvm.toml")),
    ("packages", include_str!("packages.toml")),
    ("git", include_str!("git.toml")),
    ("linkers", include_str!("linkers.toml")),
    ("compilers", include_str!("compilers.toml")),
    ("buildtools", include_str!("buildtools.toml")),
    ("tests", include_str!("tests.toml")),
    ("network", include_str!("network.toml")),
    ("tracebacks", include_str!("tracebacks.toml")),
    ("lint", include_str!("lint.toml")),
    ("shell", include_str!("shell.toml")),
];

/// Bytes of a line that are looked at.
const LOOKED_AT: usize = 1000;
/// The same of an error of Buildah, which may list several.
const LOOKED_AT_OWN: usize = 16_000;
/// Bytes that a compiled set may take.
const COMPILED: usize = 64 << 20;

/// How much a line says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Why it failed.
    #[default]
    Cause,
    /// General words: they count where nothing tells a cause.
    General,
    /// That something failed before. Never the reason.
    Consequence,
}

/// One thing that a program can say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pattern: String,
    /// Lines that the pattern matches and which are none.
    not: Option<String>,
    /// What one of the next lines must be.
    needs: Option<String>,
    /// What it means.
    pub kind: Kind,
    /// Who can mend it, where it is not the kind's usual one.
    pub fault: Option<Fault>,
    /// What to do, where it is sure.
    pub hint: Option<String>,
    /// How much it says.
    #[serde(default)]
    pub weight: Weight,
    /// The statuses with which the command can have ended; empty: with any.
    #[serde(default)]
    pub status: Vec<i32>,
    /// The instructions whose errors it explains; empty: all.
    #[serde(default)]
    only: Vec<String>,
    /// How many of the lines before belong to it.
    #[serde(default)]
    pub before: usize,
    /// What the first line that belongs to it looks like.
    begins: Option<String>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    sample: Option<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    samples: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    #[serde(default)]
    rule: Vec<Rule>,
}

/// A rule that is compiled.
#[derive(Debug)]
pub struct Known {
    /// As it is written.
    pub rule: Rule,
    /// The file that it stands in.
    pub family: &'static str,
    not: Option<Regex>,
    needs: Option<Regex>,
    begins: Option<Regex>,
}

impl Known {
    /// Whether this line is the first that belongs to it.
    pub fn begins_at(&self, line: &str) -> bool {
        matches(self.begins.as_ref(), line)
    }

    /// Whether it looks at the lines before for its beginning.
    pub fn has_beginning(&self) -> bool {
        self.begins.is_some()
    }
}

/// Rules that are asked together.
#[derive(Debug)]
pub struct Rules {
    set: RegexSet,
    known: Vec<Known>,
    looked_at: usize,
}

static FOR_BUILDAH: LazyLock<Option<Rules>> =
    LazyLock::new(|| Rules::compile(BUILDAH, LOOKED_AT_OWN).ok());
static FOR_COMMANDS: LazyLock<Option<Rules>> =
    LazyLock::new(|| Rules::compile(COMMANDS, LOOKED_AT).ok());

impl Rules {
    fn compile(files: &[(&'static str, &str)], looked_at: usize) -> Result<Self, String> {
        let mut known = Vec::new();
        for (family, text) in files {
            let read: Family =
                toml::from_str(text).map_err(|error| format!("{family}: {error}"))?;
            for rule in read.rule {
                let compiled = |pattern: &Option<String>| {
                    pattern
                        .as_deref()
                        .map(one)
                        .transpose()
                        .map_err(|error| format!("{family}: {error}"))
                };
                known.push(Known {
                    not: compiled(&rule.not)?,
                    needs: compiled(&rule.needs)?,
                    begins: compiled(&rule.begins)?,
                    family,
                    rule,
                });
            }
        }
        let set = RegexSetBuilder::new(known.iter().map(|known| &known.rule.pattern))
            .unicode(false)
            .size_limit(COMPILED)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            set,
            known,
            looked_at,
        })
    }

    /// The rule that has the first of these lines; those behind it may be asked for what it needs.
    fn of<'a>(
        &'a self,
        line: &str,
        next: &[&str],
        holds: impl Fn(&Rule) -> bool,
    ) -> Option<&'a Known> {
        let found = self.set.matches(beginning(line, self.looked_at).as_bytes());
        found
            .iter()
            .filter_map(|index| self.known.get(index))
            .find(|known| {
                holds(&known.rule)
                    && !matches(known.not.as_ref(), line)
                    && (known.needs.is_none()
                        || next.iter().any(|line| matches(known.needs.as_ref(), line)))
            })
    }
}

fn one(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}

fn matches(regex: Option<&Regex>, line: &str) -> bool {
    regex.is_some_and(|regex| regex.is_match(beginning(line, LOOKED_AT).as_bytes()))
}

fn beginning(line: &str, bytes: usize) -> &str {
    line.get(..line.floor_char_boundary(bytes)).unwrap_or(line)
}

/// The rule for what Buildah says of itself while it executes `instruction`.
pub fn for_buildah(text: &str, instruction: Option<&str>) -> Option<&'static Known> {
    FOR_BUILDAH.as_ref()?.of(text, &[], |rule| {
        rule.only.is_empty()
            || instruction
                .is_some_and(|word| rule.only.iter().any(|only| only.eq_ignore_ascii_case(word)))
    })
}

/// The rule for a line that a command printed, which ended with `status`; `next` are the lines behind it.
pub fn for_command(line: &str, next: &[&str], status: i32) -> Option<&'static Known> {
    FOR_COMMANDS.as_ref()?.of(line, next, |rule| {
        rule.status.is_empty() || rule.status.contains(&status)
    })
}

/// Whether a line speaks of what is not the code's: the network, a disk, memory. Asks all rules.
pub fn tells_of_environment(line: &str) -> bool {
    let Some(rules) = FOR_COMMANDS.as_ref() else {
        return false;
    };
    let found = rules.set.matches(beginning(line, LOOKED_AT).as_bytes());
    let kinds: Vec<Kind> = found
        .iter()
        .filter_map(|index| rules.known.get(index))
        .map(|known| known.rule.kind)
        .collect();
    // What is not there is for the code to mend, whatever else the words fit.
    !kinds.contains(&Kind::DownloadNotFound)
        && kinds.iter().any(|kind| {
            matches!(
                kind,
                Kind::NameNotResolved
                    | Kind::HostUnreachable
                    | Kind::DownloadTimedOut
                    | Kind::DownloadFailed
                    | Kind::TlsFailed
                    | Kind::DiskFull
                    | Kind::OutOfMemory
                    | Kind::OperationNotPermitted
            )
        })
}

#[cfg(test)]
mod tests;

//! Rules as data: what programs print when they fail, and what it means. One file a family.
//!
//! A rule belongs to a line. The families, and the rules in a family, stand in the order in which they are
//! asked: the first that matches a line has it. Every rule has a real sample beside it, which the tests take.
//! To add one, write it into the file of its family, before whatever is more general.
//!
//! All patterns of a set are matched in one pass over the line, of which only the two ends count: the time is
//! bounded whatever is printed.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;

use crate::build::{Fault, Kind};

/// What Buildah says of itself.
const BUILDAH: &[(&str, &str)] = &[("buildah", include_str!("buildah.toml"))];

/// What a command prints, the special before the general.
const COMMANDS: &[(&str, &str)] = &[
    ("pytest", include_str!("pytest.toml")),
    ("system", include_str!("system.toml")),
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

/// Families that tell of what is outside of the code.
const OUTSIDE: &[&str] = &["system", "git", "network"];

/// Bytes of each end of a line that are looked at: what failed stands at its beginning, why at its end.
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
    /// That what its family said before is none.
    Anew,
}

/// How far a rule is believed where lines around speak of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// It is so whatever stands around.
    Sure,
    /// What belongs to it or stands behind it may tell another reason.
    Own,
    /// So may what stands before.
    Near,
    /// It follows from what failed near it: that is the reason.
    Follows,
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
    /// What the instruction must have, and must not have.
    step: Option<String>,
    not_step: Option<String>,
    /// How far it is believed, where it is not as its kind is.
    trust: Option<Trust>,
    /// How many of the lines before belong to it.
    #[serde(default)]
    pub before: usize,
    /// What the first line that belongs to it looks like.
    begins: Option<String>,
    /// That line may stand as far before as a traceback is long, whatever stands between.
    #[serde(default)]
    pub far: bool,
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    sample: Option<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    samples: Vec<String>,
    /// The instruction that printed the samples.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
    sample_step: Option<String>,
}

impl Rule {
    /// Whether it follows also from tries that were made again.
    pub fn follows_from_retries(&self) -> bool {
        self.trust == Some(Trust::Follows)
    }

    /// How far it is believed.
    pub fn trust(&self) -> Trust {
        self.trust.unwrap_or(match self.kind {
            Kind::PackageNotFound | Kind::PackageConflict | Kind::PackageInstallFailed => {
                Trust::Follows
            }
            Kind::BuildToolError => Trust::Near,
            Kind::CommandFailed
            | Kind::CompileError
            | Kind::FileNotFound
            | Kind::LinkError
            | Kind::TestFailed
            | Kind::UncaughtException => Trust::Own,
            _ => Trust::Sure,
        })
    }
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
    step: Option<Regex>,
    not_step: Option<Regex>,
}

/// A line, and what else a rule may ask about.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    line: &'a str,
    /// The lines behind it.
    next: &'a [&'a str],
    /// The instruction.
    step: &'a str,
}

impl Known {
    /// Whether it has a line that its pattern matches.
    fn has(&self, asked: Asked<'_>) -> bool {
        !matches(self.not.as_ref(), asked.line)
            && (self.needs.is_none()
                || asked
                    .next
                    .iter()
                    .any(|line| matches(self.needs.as_ref(), line)))
            && (self.step.is_none() || matches(self.step.as_ref(), asked.step))
            && !matches(self.not_step.as_ref(), asked.step)
    }

    /// Whether this line is the first that belongs to it.
    pub fn begins_at(&self, line: &str) -> bool {
        matches(self.begins.as_ref(), line)
    }
}

/// Rules that are asked together.
#[derive(Debug)]
pub struct Rules {
    set: RegexSet,
    known: Vec<Known>,
    looked_at: usize,
}

/// How Buildah quotes the instruction that failed.
const STEP: &str = "building at STEP \"";
/// What programs say when they try again, or elsewhere.
const AGAIN: &str = r"(?i)\bretrying\b|will (be )?retr(y|ied)|\b(tries|retries|attempts) (left|remaining)\b|^\[MIRROR\] |^\[WARNING\] Could not transfer metadata";
/// How a program's own log has a line, after which it mostly goes on.
const LOGGED: &str = r"^\W*\d{4}-\d\d-\d\d[T ]\S*\W.*?\b(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR)\b|^\W*(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING)\b";
/// What runs several programs puts before their lines: `[javac] `, `web:build: `, `packages/web build: `.
const NAMED: &str =
    r"^ *(\[[\w:./-]{1,40}\]|[@\w][@\w./-]*( [\w-]+|[:#][A-Za-z_][\w-]*)+:) +(?P<rest>\S.*)";

/// The name of a test, what it expected, and its source: not what it met.
const NAMED_OR_EXPECTED: &str = r"^ *(\xe2\x97\x8f|\xe2\x9c\x95|\xe2\x9c\x96|\xc3\x97|FAIL|--- FAIL:|=== RUN|_{3,}) |^(FAIL|ERROR): \w+ \(|^[\sE]*([Ee]xpected|[Ww]ant) *:|^> {3,}\S";

static RETRY: LazyLock<Option<Regex>> = LazyLock::new(|| one(AGAIN).ok());
static EXPECTED: LazyLock<Option<Regex>> = LazyLock::new(|| one(NAMED_OR_EXPECTED).ok());
static LOG: LazyLock<Option<Regex>> = LazyLock::new(|| one(LOGGED).ok());
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| one(NAMED).ok());
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
                    step: compiled(&rule.step)?,
                    not_step: compiled(&rule.not_step)?,
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

    /// The rules whose patterns match a line, in order.
    fn matching(&self, line: &str) -> impl Iterator<Item = &Known> {
        let found = self.set.matches(ends(line, self.looked_at).as_bytes());
        let indices: Vec<usize> = found.iter().collect();
        indices
            .into_iter()
            .filter_map(|index| self.known.get(index))
    }

    /// The rule that has this line.
    fn of(&self, asked: Asked<'_>, holds: impl Fn(&Rule) -> bool) -> Option<&Known> {
        self.matching(asked.line)
            .find(|known| holds(&known.rule) && known.has(asked))
    }
}

fn one(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}

fn matches(regex: Option<&Regex>, line: &str) -> bool {
    regex.is_some_and(|regex| regex.is_match(ends(line, LOOKED_AT).as_bytes()))
}

/// A line without the middle of a very long one.
fn ends(line: &str, bytes: usize) -> Cow<'_, str> {
    if line.len() <= 2 * bytes {
        return Cow::Borrowed(line);
    }
    let first = line.get(..line.floor_char_boundary(bytes));
    let last = line.get(line.ceil_char_boundary(line.len() - bytes)..);
    Cow::Owned(format!(
        "{} … {}",
        first.unwrap_or_default(),
        last.unwrap_or_default()
    ))
}

/// The rule for what Buildah says of itself while it executes `instruction`: the keyword, or all of it.
pub fn for_buildah(text: &str, instruction: Option<&str>) -> Option<&'static Known> {
    let (step, said) = of_step(text, instruction);
    let asked = Asked {
        line: &said,
        next: &[],
        step,
    };
    let instruction = instruction.and_then(|all| all.split_whitespace().next());
    FOR_BUILDAH.as_ref()?.of(asked, |rule| {
        rule.only.is_empty()
            || instruction
                .is_some_and(|word| rule.only.iter().any(|only| only.eq_ignore_ascii_case(word)))
    })
}

/// An error apart: the instruction that Buildah quotes, whose words are the user's, and the rest.
fn of_step<'a>(text: &'a str, instruction: Option<&str>) -> (&'a str, Cow<'a, str>) {
    let parts = text.split_once(STEP).and_then(|(before, rest)| {
        // An instruction may itself have what ends the quotation.
        let whole = instruction
            .filter(|all| rest.starts_with(all))
            .and_then(|all| Some((rest.get(..all.len())?, rest.get(all.len()..)?)))
            .and_then(|(step, rest)| Some((step, rest.strip_prefix("\": ")?)));
        let (step, said) = whole.or_else(|| rest.split_once("\": "))?;
        Some((step, Cow::Owned(format!("{before}{said}"))))
    });
    parts.unwrap_or(("", Cow::Borrowed(text)))
}

/// The rule for a line that the command of `step` printed, which ended with `status`; `next` are the lines behind it.
pub fn for_command(line: &str, next: &[&str], status: i32, step: &str) -> Option<&'static Known> {
    let rules = FOR_COMMANDS.as_ref()?;
    let of = |line| {
        rules.of(Asked { line, next, step }, |rule| {
            rule.status.is_empty() || rule.status.contains(&status)
        })
    };
    let is_cause = |known: &&Known| known.rule.weight == Weight::Cause;
    let whole = of(line);
    // What a program says of itself is often only that one of several has failed.
    let named = || without_name(line).and_then(of).filter(is_cause);
    // What compilers say through npm is of packages.
    let is_outside = |known: &&Known| is_cause(known) && OUTSIDE.contains(&known.family);
    let of_npm = || behind_npm(line).and_then(of).filter(is_outside);
    (whole.filter(is_cause))
        .or_else(named)
        .or_else(of_npm)
        .or(whole)
}

/// A line that npm quotes.
fn behind_npm(line: &str) -> Option<&str> {
    let rest = line
        .strip_prefix("npm error ")
        .or_else(|| line.strip_prefix("npm ERR! "))?;
    Some(rest.trim_start())
}

/// A line behind the name of who printed it.
fn without_name(line: &str) -> Option<&str> {
    let found = NAME.as_ref()?.captures(line.as_bytes())?.name("rest")?;
    let name = line.get(..found.start())?.to_ascii_lowercase();
    let is_harmless = ["info", "debug", "warn", "note", "trace"]
        .iter()
        .any(|word| name.contains(word));
    line.get(found.start()..).filter(|_| !is_harmless)
}

/// Whether a line tells a cause, as far as it alone can say.
pub fn tells_a_cause(line: &str) -> bool {
    FOR_COMMANDS.as_ref().is_some_and(|rules| {
        rules
            .matching(line)
            .any(|known| known.rule.weight == Weight::Cause && !matches(known.not.as_ref(), line))
    })
}

/// The rule for what a line says of the environment: the network, a disk, memory. Asks all rules.
pub fn of_environment(line: &str) -> Option<&'static Known> {
    let found: Vec<&Known> = FOR_COMMANDS
        .as_ref()?
        .matching(line)
        .filter(|known| !matches(known.not.as_ref(), line))
        .filter(|known| known.rule.fault != Some(Fault::Code))
        .collect();
    // What is not there is for the code to mend, whatever else the words fit.
    if found
        .iter()
        .any(|known| known.rule.kind == Kind::DownloadNotFound)
    {
        return None;
    }
    found.into_iter().find(|known| {
        matches!(
            known.rule.kind,
            Kind::NameNotResolved
                | Kind::HostUnreachable
                | Kind::DownloadTimedOut
                | Kind::DownloadFailed
                | Kind::TlsFailed
                | Kind::DownloadDenied
                | Kind::GitAuthFailed
                | Kind::GitUnreachable
                | Kind::DiskFull
                | Kind::OutOfMemory
                | Kind::LimitReached
                | Kind::OperationNotPermitted
        )
    })
}

/// Whether a compiler, or what speaks as one, says here what it refuses.
pub fn is_of_a_compiler(line: &str) -> bool {
    FOR_COMMANDS.as_ref().is_some_and(|rules| {
        rules
            .matching(line)
            .next()
            .is_some_and(|known| matches!(known.rule.kind, Kind::CompileError | Kind::LintFailed))
    })
}

/// Whether it is a line of a program's own log, after which it mostly goes on.
pub fn is_logged(line: &str) -> bool {
    matches(LOG.as_ref(), line)
}

/// Whether such a line warns: of something that the program goes on after.
pub fn is_logged_warning(line: &str) -> bool {
    is_logged(line) && line.contains("WARN")
}

/// Whether a line names a test, or tells what it expected.
pub fn is_expected(line: &str) -> bool {
    matches(EXPECTED.as_ref(), line)
}

/// Whether a line says that what failed is tried again: it may have been forgiven.
pub fn tells_of_a_retry(line: &str) -> bool {
    matches(RETRY.as_ref(), line)
}

#[cfg(test)]
pub(super) mod tests;

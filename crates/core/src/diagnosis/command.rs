//! What the output of a command that failed means: which line is the reason, and who can mend it.
//!
//! ```text
//! lines ─▶ a rule for each ─▶ the family that spoke last ─▶ its first cause ─▶ does a line near it speak of the
//!                                                         environment? ─▶ kind, fault, excerpt
//! ```
//! Programs that failed before and were forgiven speak earlier than the one that ended the command: so the last
//! family to speak counts, and of what it says the first cause. A try that was made again counts only where nothing
//! else tells why. Output can be made up; only the status is beyond doubt. So whatever output blames on anything but
//! the code has the fault `unknown`, and so has what may be the environment's fault as well.

use std::ops::Range;

use crate::build::{Fault, Kind};
use crate::containerfile::StepLine;
use crate::log::Line;

use super::aside::{TRACEBACK, asides};
use super::groups::bare;
use super::rules::{self, Known, Trust, Weight};

/// A shell's status for a command that is not executable, and for one that is not there.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// 128 and SIGKILL, as a shell tells it.
pub(super) const KILLED: i32 = 137;
/// The statuses of `timeout` when the time was up: coreutils', and busybox' (128 and SIGTERM).
const TIMED_OUT: &[i32] = &[124, 143];
/// 128 and SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
const CRASHED: &[i32] = &[132, 133, 134, 135, 136, 139, 159];
/// Lines behind a line that a rule may ask about.
const NEXT: usize = 3;
/// General words are sought among so many of the last lines.
const GENERAL: usize = 40;
/// The excerpt begins at most so many lines before the decisive one.
const BEFORE: usize = 15;
/// Lines of a traceback at most.
const LONGEST: usize = 300;
/// The same before a line that only sums up.
const SUMMED_UP: usize = 8;
/// Lines behind the decisive one, and before it, that may tell of the environment.
const AROUND: usize = 20;

/// What curl and wget end with when they are told to be silent: curl(1), wget(1).
const SILENT: &[(&str, i32, Kind)] = &[
    ("curl", 5, Kind::NameNotResolved),
    ("curl", 6, Kind::NameNotResolved),
    ("curl", 7, Kind::HostUnreachable),
    ("curl", 22, Kind::DownloadFailed),
    ("curl", 28, Kind::DownloadTimedOut),
    ("curl", 35, Kind::TlsFailed),
    ("curl", 52, Kind::DownloadFailed),
    ("curl", 56, Kind::DownloadFailed),
    ("curl", 60, Kind::TlsFailed),
    ("wget", 4, Kind::HostUnreachable),
    ("wget", 5, Kind::TlsFailed),
    ("wget", 8, Kind::DownloadFailed),
];

/// Families of rules that are told apart.
const EXCEPTIONS: &str = "tracebacks";
const NETWORK: &str = "network";
const TESTS: &str = "tests";

/// What is known of a command that failed.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// What it printed.
    pub lines: &'a [(u64, Line)],
    /// Its status.
    pub status: i32,
    /// The instruction or command line.
    pub text: &'a str,
}

/// What it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What went wrong.
    pub kind: Kind,
    /// Who can mend it.
    pub fault: Fault,
    /// What to do.
    pub hint: Option<&'static str>,
    /// Indices of the first line that is shown of the reason, and of the decisive one.
    pub at: Option<(usize, usize)>,
    /// Index of the line with which the reason begins: a traceback may be longer than what is shown.
    pub begins: usize,
}

/// A line that has a rule.
#[derive(Debug, Clone, Copy)]
struct Found {
    at: usize,
    known: &'static Known,
    /// It speaks of the environment, and that the program tries again, or goes on.
    again: bool,
    /// Where what wraps it begins.
    within: Option<usize>,
}

impl Found {
    fn new(at: usize, line: &str, known: &'static Known) -> Self {
        // Rules of no one program find lines of any log.
        let is_of_all = known.family == NETWORK;
        let again = (known.rule.kind.fault() == Fault::Unknown && rules::tells_of_a_retry(line))
            || (is_of_all && rules::is_logged(line));
        Self {
            at,
            known,
            again,
            within: None,
        }
    }

    fn is(&self, weight: Weight) -> bool {
        self.known.rule.weight == weight && !self.again
    }
}

/// Reads the output.
pub fn read(command: &Command<'_>) -> Reading {
    let texts = bare(command.lines);
    let asides = asides(&texts);
    let found: Vec<Found> = texts
        .iter()
        .enumerate()
        .filter(|(at, line)| {
            !is_as_buildah(line)
                && !is_quoted(line)
                && !asides.iter().any(|aside| aside.contains(at))
        })
        .filter_map(|(at, line)| {
            let next = texts.get(at + 1..).unwrap_or_default();
            let next = next.get(..NEXT.min(next.len())).unwrap_or_default();
            let known = rules::for_command(line, next, command.status, command.text)?;
            Some(Found::new(at, line, known))
        })
        .filter(|found| {
            let line = texts.get(found.at).unwrap_or(&"");
            let is_met = found.known.rule.kind.fault() == Fault::Code || !rules::is_expected(line);
            is_met && !is_forgiven(line, command.text)
        })
        .collect();
    let found = without_reports(found, &texts);
    let told = decide(&found, command.status, texts.len());
    let kind = kind_of(told, command);
    let (decisive, is_doubtful) = doubt(told, kind, &texts, command.text);
    let kind = match (told, decisive) {
        (Some(told), Some(decisive)) if told.at != decisive.at => decisive.known.rule.kind,
        _ => kind,
    };
    let rule = decisive
        .map(|found| &found.known.rule)
        .filter(|rule| rule.kind == kind);
    let begins = decisive.map_or(0, |found| beginning(&texts, &found));
    let at = decisive.map(|found| (shown_from(&texts, begins, &found), found.at));
    let usual = rule
        .and_then(|rule| rule.fault)
        .unwrap_or_else(|| kind.fault());
    let is_code = usual == Fault::Code && !is_doubtful && !is_made_up(kind, command);
    Reading {
        kind,
        fault: if is_code { Fault::Code } else { Fault::Unknown },
        hint: rule
            .and_then(|rule| rule.hint.as_deref())
            .filter(|_| !is_doubtful)
            .or_else(|| hint(kind, command.status)),
        at,
        begins,
    }
}

/// What is told but for what the report of a failed test quotes: the test has failed, whatever it met.
fn without_reports(found: Vec<Found>, texts: &[&str]) -> Vec<Found> {
    let is_within = |line: &&str| {
        let said = line.trim_start();
        said.is_empty() || said.len() + 2 <= line.len()
    };
    // Index of the first line behind the report.
    let mut end = 0;
    let mut is_told = |met: &Found| {
        if met.known.family == TESTS {
            if met.is(Weight::Cause) && met.at >= end {
                let behind = texts.get(met.at + 1..).unwrap_or_default();
                end = met.at + 1 + behind.iter().take_while(|line| is_within(line)).count();
            }
            return true;
        }
        let is_deep = texts
            .get(met.at)
            .is_some_and(|line| line.starts_with("    "));
        // What is not there keeps whole files from being run.
        met.at >= end || !is_deep || met.known.rule.kind == Kind::ModuleNotFound
    };
    found.into_iter().filter(|met| is_told(met)).collect()
}

/// Whether a line has the form of what Buildah says of steps: what a command prints so is not its own.
fn is_as_buildah(line: &str) -> bool {
    line.starts_with("Error: building at STEP \"") || StepLine::parse(line).is_some()
}

fn decide(found: &[Found], status: i32, count: usize) -> Option<Found> {
    if matches!(status, NOT_EXECUTABLE | NOT_FOUND) {
        let start = |kind| {
            matches!(
                kind,
                Kind::CommandNotFound
                    | Kind::CommandNotExecutable
                    | Kind::WrongArchitecture
                    | Kind::ModuleNotFound
                    | Kind::ShellError
            )
        };
        return found
            .iter()
            .rfind(|found| start(found.known.rule.kind))
            .copied();
    }
    let causes = || found.iter().filter(|found| found.is(Weight::Cause));
    let spoke = |family: &str| causes().any(|found| found.known.family == family);
    let last = found
        .iter()
        .rfind(|found| !found.again && spoke(found.known.family));
    if let Some(last) = last {
        let of_it = |found: &&Found| found.known.family == last.known.family;
        let anew = found
            .iter()
            .filter(of_it)
            .rfind(|found| found.is(Weight::Anew));
        let first = causes()
            .filter(of_it)
            .find(|first| anew.is_none_or(|anew| anew.at < first.at))
            .or_else(|| causes().find(of_it));
        return first.map(|first| wrapped(*first, found));
    }
    general(found, count)
}

/// What counts where nothing tells a cause.
fn general(found: &[Found], count: usize) -> Option<Found> {
    let is_special = |found: &&Found| found.known.rule.kind != Kind::CommandFailed;
    let last = count.saturating_sub(GENERAL);
    let mut general = found
        .iter()
        .filter(|found| found.is(Weight::General) && found.at >= last);
    let again = found.iter().find(|found| found.again && found.at >= last);
    general
        .clone()
        .rfind(is_special)
        .filter(|general| again.is_none_or(|again| again.at < general.at))
        .or(again)
        // What sums up says at least of what.
        .or_else(|| {
            let mut summed_up = found.iter().filter(|found| found.is(Weight::Consequence));
            summed_up.find(is_special)
        })
        .or_else(|| general.next())
        .or_else(|| found.iter().find(is_special))
        .copied()
}

/// What an exception tells, or the network's failure that it wraps; with where the exception begins.
fn wrapped(found: Found, all: &[Found]) -> Found {
    let is_exception = |found: &Found| {
        found.known.family == EXCEPTIONS
            && found.known.rule.kind == Kind::UncaughtException
            && found.is(Weight::Cause)
    };
    let is_inner = |inner: &Found, outer: &Found| {
        inner.known.family == NETWORK
            && !inner.again
            && (outer.at..outer.at + AROUND).contains(&inner.at)
    };
    let within = match is_exception(&found) {
        true => all.iter().find(|inner| is_inner(inner, &found)),
        false => Some(&found),
    };
    let outer = within.and_then(|inner| {
        let mut outers = all.iter().filter(|outer| is_exception(outer));
        outers.rfind(|outer| is_inner(inner, outer))
    });
    within.map_or(found, |inner| Found {
        within: outer.map(|outer| outer.at),
        ..*inner
    })
}

/// The decisive line, which is another where the one that was told follows from what the environment did; and whether
/// it may be the environment's fault.
fn doubt(told: Option<Found>, kind: Kind, texts: &[&str], text: &str) -> (Option<Found>, bool) {
    let Some(found) = told else {
        let last = texts.len().saturating_sub(AROUND)..texts.len();
        let is_doubtful =
            kind == Kind::CommandFailed && environment(texts, last, text, |_| true).is_some();
        return (told, is_doubtful);
    };
    if found.known.rule.kind != kind {
        return (told, false);
    }
    let trust = found.known.rule.trust();
    let before = match trust {
        Trust::Sure => return (told, false),
        Trust::Own => beginning(texts, &found),
        Trust::Near | Trust::Follows => found.at.saturating_sub(AROUND),
    };
    let around = before..(found.at + AROUND).min(texts.len());
    let again = found.known.rule.follows_from_retries();
    let of_python = ["E  ", "AssertionError", "FAIL: ", "ERROR: "];
    let is_python = (texts.get(found.at))
        .is_some_and(|line| of_python.iter().any(|begin| line.starts_with(begin)));
    let other = environment(texts, around, text, |line| {
        let is_quoted = match kind {
            Kind::CompileError => is_of_a_source(line),
            Kind::TestFailed => is_of_a_test(line, is_python),
            _ => false,
        };
        !is_quoted && (again || !rules::tells_of_a_retry(line))
    });
    match (trust, other) {
        (Trust::Follows, Some(other)) => (Some(other), true),
        (_, other) => (told, other.is_some()),
    }
}

/// The first of these lines that speaks of the environment.
fn environment(
    texts: &[&str],
    of: Range<usize>,
    text: &str,
    counts: impl Fn(&str) -> bool,
) -> Option<Found> {
    let lines = texts.get(of.clone()).unwrap_or_default();
    of.zip(lines).find_map(|(at, line)| {
        if is_as_buildah(line) || !counts(line) || is_forgiven(line, text) {
            return None;
        }
        let known = rules::of_environment(met(line))?;
        Some(Found {
            at,
            known,
            again: false,
            within: None,
        })
    })
}

/// What was met, of a line that ends with what was wanted, as tests of Go say it.
fn met(line: &str) -> &str {
    line.split_once(", want ").map_or(line, |(met, _)| met)
}

/// Whether a compiler quotes a source here, or speaks of a place in one: names of errors in it are only names.
fn is_of_a_source(line: &str) -> bool {
    let is_pointer = line.trim_start().starts_with(['|', '│', '^', '~']);
    let is_code = line.ends_with([';', '{', '}', '(', ')', ',', '^', '~']);
    is_quoted(line) || is_pointer || is_code || rules::is_of_a_compiler(line)
}

/// Whether it names a test, tells what it expected, or quotes it, as those of Python do by indentation. What it met may
/// be the environment's.
fn is_of_a_test(line: &str, is_python: bool) -> bool {
    is_quoted(line) || (is_python && line.starts_with("    ")) || rules::is_expected(line)
}

/// Whether it is a line of a source behind its number, `   3 |   x();`, or a command that a shell is about to run
/// (`set -x`).
fn is_quoted(line: &str) -> bool {
    let is_traced = line.starts_with('+') && line.trim_start_matches('+').starts_with(' ');
    let numbered = line.trim_start_matches([' ', '>']);
    let rest = numbered.trim_start_matches(|c: char| c.is_ascii_digit());
    is_traced || rest.len() < numbered.len() && rest.trim_start().starts_with(['|', '│'])
}

/// Whether the command line goes on when the program fails that printed this: `wget … || true`.
fn is_forgiven(line: &str, text: &str) -> bool {
    let Some((program, _)) = line
        .split_once(": ")
        .filter(|(program, _)| !program.is_empty())
    else {
        return false;
    };
    // A program that is called once only.
    let mut calls = text.match_indices(program);
    let (Some((at, _)), None) = (calls.next(), calls.next()) else {
        return false;
    };
    let (before, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    // Its own status is not the one that the command line ends with.
    if before.contains("=$?") && rest.contains("exit ") {
        return true;
    }
    let rest = rest.get(program.len()..).unwrap_or_default();
    let end = rest.find([';', '&', '|', '\n']).unwrap_or(rest.len());
    let after = rest.get(end..).unwrap_or_default();
    let otherwise = after.strip_prefix("||").map(str::trim_start);
    otherwise.is_some_and(|word| {
        ["true", ":", "echo"]
            .iter()
            .any(|go_on| word.starts_with(go_on))
    })
}

fn kind_of(decisive: Option<Found>, command: &Command<'_>) -> Kind {
    let told = decisive.map(|found| (found.known.rule.kind, found.known.rule.weight));
    let cause = matches!(told, Some((_, Weight::Cause)));
    match (told, command.status) {
        (Some((kind, _)), NOT_EXECUTABLE | NOT_FOUND) => kind,
        (None, NOT_EXECUTABLE) => Kind::CommandNotExecutable,
        (None, NOT_FOUND) => Kind::CommandNotFound,
        (Some((Kind::OutOfMemory, Weight::Cause)), _) => Kind::OutOfMemory,
        (Some((Kind::OutOfMemory, _)), _) | (_, KILLED) if calls(command.text, "timeout") => {
            Kind::CommandTimedOut
        }
        (_, KILLED) if is_made_up(Kind::CommandFailed, command) => Kind::CommandFailed,
        (_, KILLED) => Kind::OutOfMemory,
        (_, status) if !cause && CRASHED.contains(&status) => Kind::CommandCrashed,
        (_, status) if !cause && TIMED_OUT.contains(&status) && calls(command.text, "timeout") => {
            Kind::CommandTimedOut
        }
        (Some((Kind::CommandCrashed, _)), _) if calls(command.text, "timeout") => {
            Kind::CommandTimedOut
        }
        (Some((kind, _)), _) if kind != Kind::CommandFailed => kind,
        (_, status) => SILENT
            .iter()
            .find(|(program, with, _)| *with == status && calls(command.text, program))
            .map_or(Kind::CommandFailed, |(_, _, kind)| *kind),
    }
}

/// Whether the command line itself ends with the status of a kill, so that it tells nothing.
fn is_made_up(kind: Kind, command: &Command<'_>) -> bool {
    kind == Kind::CommandFailed
        && command.status == KILLED
        && command.text.contains(&format!("exit {KILLED}"))
}

/// Whether a command line calls a program.
fn calls(text: &str, program: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .any(|word| word == program)
}

fn hint(kind: Kind, status: i32) -> Option<&'static str> {
    match (kind, status) {
        (Kind::CommandNotExecutable, NOT_EXECUTABLE) => {
            Some("Make the file executable, or use one built for this machine.")
        }
        (Kind::CommandNotFound, NOT_FOUND) => {
            Some("Install the command in an earlier step, or correct its name.")
        }
        (Kind::OutOfMemory, KILLED) => {
            Some("A KILL signal ended it; want of memory is the usual cause.")
        }
        _ => None,
    }
}

/// The first line that is shown.
fn shown_from(texts: &[&str], begins: usize, decisive: &Found) -> usize {
    let nearest = decisive.at.saturating_sub(BEFORE);
    if begins >= nearest || !decisive.known.rule.far {
        return begins.max(nearest);
    }
    // What stands between is of others: the line that failed, as pytest marks it, has to do.
    let marked = (nearest..decisive.at).rev();
    let marked = marked.take_while(|index| texts.get(*index).is_some_and(|line| !line.is_empty()));
    let marked = marked.filter(|index| texts.get(*index).is_some_and(|line| line.starts_with('>')));
    marked.last().unwrap_or(decisive.at)
}

/// The first line that belongs to the decisive one.
fn beginning(texts: &[&str], decisive: &Found) -> usize {
    let (at, known) = (decisive.at, decisive.known);
    let before = match (known.rule.weight, known.rule.kind) {
        // What sums up stands behind what it sums up.
        (Weight::Consequence, _)
        | (Weight::General, Kind::CommandFailed | Kind::CommandCrashed) => {
            known.rule.before.max(SUMMED_UP)
        }
        _ => known.rule.before,
    };
    head(texts, decisive).unwrap_or_else(|| at.saturating_sub(before))
}

/// The line that heads what the decisive one belongs to.
fn head(texts: &[&str], decisive: &Found) -> Option<usize> {
    if decisive.within.is_some() {
        return decisive.within;
    }
    let (at, known) = (decisive.at, decisive.known);
    let begins = |index: &usize| texts.get(*index).is_some_and(|line| known.begins_at(line));
    let is_within = |index: &usize| {
        let line = texts.get(*index);
        line.is_some_and(|line| line.is_empty() || line.starts_with([' ', '\t']))
    };
    let near = match known.rule.far {
        true => LONGEST,
        false => BEFORE,
    };
    let near = (at.saturating_sub(near)..at).rev().find(begins);
    // Whatever ends a traceback, it is indented to its first line.
    let is_head = |index: &usize| {
        begins(index)
            || texts
                .get(*index)
                .is_some_and(|line| line.starts_with(TRACEBACK))
    };
    let far = || {
        let mut before = (at.saturating_sub(LONGEST)..at).rev();
        before.find(|index| !is_within(index)).filter(is_head)
    };
    near.filter(|head| is_open(texts, *head, at)).or_else(far)
}

/// Whether nothing was raised yet between the head of a traceback and a line; other heads are always open.
fn is_open(texts: &[&str], head: usize, at: usize) -> bool {
    let is_traceback =
        (texts.get(head)).is_some_and(|line| line.trim_start().starts_with(TRACEBACK));
    let between = texts.get(head + 1..at).unwrap_or_default();
    !is_traceback
        || between
            .iter()
            .all(|line| line.is_empty() || line.starts_with([' ', '\t']))
}

#[cfg(test)]
pub(super) mod tests;

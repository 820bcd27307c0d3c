//! What the output of a command that failed means: which line is the reason, and who can mend it.
//!
//! ```text
//! lines ─▶ a rule for each ─▶ the family that spoke last ─▶ its first cause ─▶ kind, fault, excerpt
//! ```
//! Programs that failed before and were forgiven speak earlier than the one that ended the command: so the last
//! family to speak counts, and of what it says the first cause. Output can be made up; only the status is beyond
//! doubt. So whatever output blames on anything but the code has the fault `unknown`.

use crate::build::{Fault, Kind};
use crate::log::Line;

use super::rules::{self, Known, Weight};

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
/// Lines behind the decisive one that may tell of the environment.
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
    /// Indices of the first line that belongs to the reason, and of the decisive one.
    pub at: Option<(usize, usize)>,
}

/// A line that has a rule.
type Found = (usize, &'static Known);

/// Reads the output.
pub fn read(command: &Command<'_>) -> Reading {
    let texts: Vec<&str> = command
        .lines
        .iter()
        .map(|(_, line)| line.text.as_str())
        .collect();
    let found: Vec<Found> = texts
        .iter()
        .enumerate()
        .filter_map(|(index, line)| {
            let next = texts.get(index + 1..).unwrap_or_default();
            let next = next.get(..NEXT.min(next.len())).unwrap_or_default();
            Some((index, rules::for_command(line, next, command.status)?))
        })
        .collect();
    let found: Vec<Found> = found
        .into_iter()
        .filter(|(index, _)| !is_forgiven(texts.get(*index).unwrap_or(&""), command.text))
        .collect();
    let decisive = decide(&found, command.status, texts.len());
    let kind = kind_of(decisive, command);
    let rule = decisive
        .map(|(_, known)| &known.rule)
        .filter(|rule| rule.kind == kind);
    let at = decisive.map(|(index, known)| (beginning(&texts, index, known), index));
    let usual = rule
        .and_then(|rule| rule.fault)
        .unwrap_or_else(|| kind.fault());
    let is_code = usual == Fault::Code
        && !(may_be_environment(kind) && environment(&texts, at, command.text));
    Reading {
        kind,
        fault: if is_code { Fault::Code } else { Fault::Unknown },
        hint: rule
            .and_then(|rule| rule.hint.as_deref())
            .or_else(|| hint(kind, command.status)),
        at,
    }
}

fn decide(found: &[Found], status: i32, count: usize) -> Option<Found> {
    let of = |weight| move |found: &&Found| found.1.rule.weight == weight;
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
            .rfind(|(_, known)| start(known.rule.kind))
            .copied();
    }
    let mut causes = found.iter().filter(of(Weight::Cause));
    let spoke = |family: &str| {
        let mut causes = found.iter().filter(of(Weight::Cause));
        causes.any(|(_, known)| known.family == family)
    };
    if let Some((_, last)) = found.iter().rfind(|(_, known)| spoke(known.family)) {
        let first = causes.find(|(_, known)| known.family == last.family);
        return first.map(|(index, known)| wrapped(*index, known, found));
    }
    let last = count.saturating_sub(GENERAL);
    let mut general = found
        .iter()
        .filter(of(Weight::General))
        .filter(|(index, _)| *index >= last);
    general
        .clone()
        .rfind(|(_, known)| known.rule.kind != Kind::CommandFailed)
        .or_else(|| general.next())
        .or_else(|| {
            found
                .iter()
                .find(|(_, known)| known.rule.kind != Kind::CommandFailed)
        })
        .copied()
}

/// What an exception tells, or the network's failure that it wraps.
fn wrapped(index: usize, known: &'static Known, found: &[Found]) -> Found {
    let within = found.iter().find(|(at, inner)| {
        known.family == EXCEPTIONS
            && known.rule.kind == Kind::UncaughtException
            && inner.family == NETWORK
            && (index..index + AROUND).contains(at)
    });
    within.map_or((index, known), |(_, inner)| (index, *inner))
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
    let rest = text.get(at + program.len()..).unwrap_or_default();
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
    let told = decisive.map(|(_, known)| (known.rule.kind, known.rule.weight));
    let cause = matches!(told, Some((_, Weight::Cause)));
    match (told, command.status) {
        (Some((kind, _)), NOT_EXECUTABLE | NOT_FOUND) => kind,
        (None, NOT_EXECUTABLE) => Kind::CommandNotExecutable,
        (None, NOT_FOUND) => Kind::CommandNotFound,
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
        (Kind::OutOfMemory, KILLED) => Some("Use less memory, or a profile with more."),
        _ => None,
    }
}

/// The first line that belongs to the decisive one.
fn beginning(texts: &[&str], decisive: usize, known: &Known) -> usize {
    let nearest = decisive.saturating_sub(known.rule.before);
    if !known.has_beginning() {
        return nearest;
    }
    (decisive.saturating_sub(BEFORE)..decisive)
        .rev()
        .find(|index| texts.get(*index).is_some_and(|line| known.begins_at(line)))
        .unwrap_or(nearest)
}

/// Kinds behind which anything can stand.
fn may_be_environment(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CommandFailed | Kind::TestFailed | Kind::UncaughtException | Kind::BuildToolError
    )
}

/// Whether the lines of the reason, or the last ones where there is none, speak of the environment.
fn environment(texts: &[&str], at: Option<(usize, usize)>, text: &str) -> bool {
    let (from, to) = match at {
        Some((from, decisive)) => (from, (decisive + AROUND).min(texts.len())),
        None => (texts.len().saturating_sub(AROUND), texts.len()),
    };
    let lines = texts.get(from..to).unwrap_or_default();
    lines
        .iter()
        .any(|line| rules::tells_of_environment(line) && !is_forgiven(line, text))
}

#[cfg(test)]
pub(super) mod tests;

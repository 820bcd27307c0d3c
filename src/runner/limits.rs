//! A failure of the code that was built, and whether a limit of its profile was the reason. Pure.
//!
//! Where the kernel counts, its counters decide, not what a command prints; either way the fault
//! stays the code's.

use std::sync::LazyLock;

use regex::Regex;

use crate::build::kind::Origin;
use crate::build::{Failure, Fault, Kind};
use crate::config::DEFAULT_PROFILE;
use crate::log::Line;

use super::cgroup::Counters;
use super::settings::Limits;
use super::usage::Over;

/// 128 and SIGXFSZ, as a shell tells that a command wrote beyond the size of a file (signal(7)).
const FILE_SIZE_STATUS: i32 = 153;
/// 128 and SIGKILL.
const KILLED_STATUS: i32 = 137;
/// How many of the last lines may tell of a limit.
const LAST: usize = 12;
const MIB: u64 = 1 << 20;

/// As programs print EFBIG (errno(3)) and shells SIGXFSZ; others complain of files that are too large for themselves.
static FILE_TOO_LARGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(": File too large( \\(os error 27\\))?$|\\bEFBIG\\b|(?i)\\bfile size limit exceeded")
        .ok()
});
static FORK_REFUSED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        "(?i)(fork|clone|thread|process|spawn).*resource temporarily unavailable|can't fork|cannot fork|failed to create new OS thread",
    )
    .ok()
});

/// What is known beside the failure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// What the kernel counted since the step or test began.
    pub counted: Counters,
    /// Whether the build's own limit of memory was in the way.
    pub memory_full: bool,
    /// The limit on the disk for which everything was ended.
    pub over: Option<Over>,
    /// The last lines of the step or test.
    pub lines: &'a [(u64, Line)],
}

/// A limit that was reached.
enum Reached {
    Memory(u64),
    /// The host, or whoever limits this server, has no more memory.
    HostMemory,
    Processes,
    Disk,
    Files,
    File,
}

/// The same failure, or the one that names the limit which was its reason.
#[must_use]
pub fn explain(
    failure: Failure,
    evidence: &Evidence<'_>,
    limits: &Limits,
    profile: &str,
) -> Failure {
    match reached(&failure, evidence, limits) {
        Some(reached) => reached.named(failure, limits, profile),
        None => failure,
    }
}

fn reached(failure: &Failure, evidence: &Evidence<'_>, limits: &Limits) -> Option<Reached> {
    let told = failure.exit_code.is_some()
        && matches!(
            failure.kind,
            Kind::UserNotFound
                | Kind::ArchiveInvalid
                | Kind::SandboxUnavailable
                | Kind::GitAuthFailed
                | Kind::GitRepositoryNotFound
                | Kind::GitRefNotFound
                | Kind::GitUnreachable
        );
    let by_a_command = matches!(
        failure.kind,
        Kind::OutOfMemory
            | Kind::LimitReached
            | Kind::DiskFull
            | Kind::BuildError
            | Kind::GitFailed
            | Kind::TestFailed
            | Kind::TestNotStarted
    ) || failure.kind.origin() == Origin::Command
        || told;
    if !by_a_command {
        return None;
    }
    let counted = &evidence.counted;
    let some = |count: Option<u64>| count.is_some_and(|count| count > 0);
    let said = |pattern: &LazyLock<Option<Regex>>| {
        let last = evidence.lines.iter().rev().take(LAST);
        let is_it = |text: &str| pattern.as_ref().is_some_and(|regex| regex.is_match(text));
        last.into_iter().any(|(_, line)| is_it(&line.text))
    };
    match evidence.over {
        Some(Over::Bytes) => return Some(Reached::Disk),
        Some(Over::Entries) => return Some(Reached::Files),
        None => {}
    }
    // A compiler that objects to the code was neither killed nor refused anything.
    if failure.kind == Kind::CompileError && failure.exit_code != Some(KILLED_STATUS) {
        return None;
    }
    if some(counted.killed) {
        let own = limits.memory_bytes.filter(|_| evidence.memory_full);
        return Some(own.map_or(Reached::HostMemory, Reached::Memory));
    }
    match counted.refused {
        Some(0) => {}
        Some(_) => return Some(Reached::Processes),
        None if said(&FORK_REFUSED) => return Some(Reached::Processes),
        None => {}
    }
    let file = failure.exit_code == Some(FILE_SIZE_STATUS) || said(&FILE_TOO_LARGE);
    file.then_some(Reached::File)
}

impl Reached {
    fn named(self, failure: Failure, limits: &Limits, profile: &str) -> Failure {
        let key = |name: &str| match profile {
            DEFAULT_PROFILE => format!("limits.{name} of the profile default"),
            other => format!("profiles.{other}.{name}"),
        };
        let (kind, message, hint) = match self {
            Reached::Memory(bytes) => (
                Kind::OutOfMemory,
                format!(
                    "a process was killed: the build reached its limit of {} MiB memory ({})",
                    bytes / MIB,
                    key("memory_mb")
                ),
                "Use less memory, for example fewer parallel jobs, or a profile with more.",
            ),
            Reached::HostMemory => {
                let mut failure = failure;
                failure.kind = Kind::OutOfMemory;
                failure.message = "a process was killed: this host has no more memory; it was not a limit of the build's profile".into();
                return failure.with_fault(Fault::Unknown).with_hint(
                    "Use less memory, or ask the operator for fewer builds at the same time.",
                );
            }
            Reached::Processes => (
                Kind::LimitReached,
                format!(
                    "the build reached its limit of {} processes ({})",
                    limits.processes,
                    key("processes")
                ),
                "Start fewer processes and threads at the same time, or choose a profile with more.",
            ),
            Reached::Disk => (
                Kind::LimitReached,
                format!(
                    "the build reached its limit of {} MiB on the disk ({})",
                    limits.disk_bytes / MIB,
                    key("disk_mb")
                ),
                "Write less, or remove in the same RUN what is not needed, or choose a profile with more.",
            ),
            Reached::Files => (
                Kind::LimitReached,
                format!(
                    "the build reached its limit of {} files and directories ({})",
                    limits.files,
                    key("files")
                ),
                "Make fewer files, or choose a profile with more.",
            ),
            Reached::File => (
                Kind::LimitReached,
                format!(
                    "a file reached the limit of {} MiB ({})",
                    limits.file_bytes / MIB,
                    key("file_mb")
                ),
                "Write smaller files, or choose a profile with a higher limit.",
            ),
        };
        Failure {
            kind,
            message,
            ..failure
        }
        .with_fault(Fault::Code)
        .with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Phase;
    use crate::build::request::Stream;

    fn limits() -> Limits {
        Limits {
            memory_bytes: Some(1024 * MIB),
            processes: 512,
            ..Limits::default()
        }
    }

    fn failed(kind: Kind, status: i32) -> Failure {
        let mut failure =
            Failure::new(Phase::Build, kind, "the command ended").at("Containerfile", 3);
        failure.exit_code = Some(status);
        failure.excerpt = Some("words".into());
        failure
    }

    fn lines(texts: &[&str]) -> Vec<(u64, Line)> {
        let line = |text: &&str| Line {
            phase: Phase::Build,
            step: None,
            test: None,
            stream: Stream::Output,
            text: (*text).into(),
        };
        texts.iter().map(|text| (1, line(text))).collect()
    }

    fn counted(killed: u64, refused: u64) -> Counters {
        Counters {
            killed: Some(killed),
            refused: Some(refused),
        }
    }

    /// Kind, fault and message for a command that failed.
    fn told(
        counted: Counters,
        over: Option<Over>,
        status: i32,
        texts: &[&str],
    ) -> (Kind, Fault, String) {
        let lines = lines(texts);
        let evidence = Evidence {
            counted,
            memory_full: true,
            over,
            lines: &lines,
        };
        let failure = explain(
            failed(Kind::CommandFailed, status),
            &evidence,
            &limits(),
            "default",
        );
        (failure.kind, failure.fault, failure.message)
    }

    #[test]
    fn each_limit_is_named_with_its_value_and_key() {
        let none = counted(0, 0);
        for (got, kind, message) in [
            (
                told(counted(1, 5), None, 137, &[]),
                Kind::OutOfMemory,
                "a process was killed: the build reached its limit of 1024 MiB memory (limits.memory_mb of the profile default)",
            ),
            (
                told(counted(0, 5), None, 1, &[]),
                Kind::LimitReached,
                "the build reached its limit of 512 processes (limits.processes of the profile default)",
            ),
            (
                told(none, Some(Over::Bytes), 137, &[]),
                Kind::LimitReached,
                "the build reached its limit of 20480 MiB on the disk (limits.disk_mb of the profile default)",
            ),
            (
                told(none, Some(Over::Entries), 137, &[]),
                Kind::LimitReached,
                "the build reached its limit of 2000000 files and directories (limits.files of the profile default)",
            ),
            (
                told(none, None, 153, &[]),
                Kind::LimitReached,
                "a file reached the limit of 8192 MiB (limits.file_mb of the profile default)",
            ),
            (
                told(none, None, 1, &["dd: write error: File too large"]),
                Kind::LimitReached,
                "a file reached the limit of 8192 MiB (limits.file_mb of the profile default)",
            ),
        ] {
            assert_eq!(got, (kind, Fault::Code, message.to_owned()));
        }
        for others in [
            "logo.png: file too large (max 100 KiB)",
            "error: File too large for upload",
        ] {
            assert_eq!(told(none, None, 1, &[others]).0, Kind::CommandFailed);
        }
    }

    #[test]
    fn a_limit_that_its_output_speaks_of_is_named() {
        let words = lines(&["/bin/sh: can't fork: Resource temporarily unavailable"]);
        let evidence = Evidence {
            counted: counted(0, 3),
            lines: &words,
            ..Evidence::default()
        };
        let read = failed(Kind::LimitReached, 2).with_fault(Fault::Unknown);
        let failure = explain(read, &evidence, &limits(), "default");
        assert_eq!(
            (failure.kind, failure.fault),
            (Kind::LimitReached, Fault::Code)
        );
        assert!(failure.message.contains("limits.processes"), "{failure:?}");
    }

    #[test]
    fn what_was_forgiven_is_no_reason() {
        let evidence = Evidence {
            counted: counted(1, 1),
            ..Evidence::default()
        };
        let kind = |status| {
            explain(
                failed(Kind::CompileError, status),
                &evidence,
                &limits(),
                "default",
            )
            .kind
        };
        assert_eq!(
            (kind(1), kind(137)),
            (Kind::CompileError, Kind::OutOfMemory)
        );
    }

    #[test]
    fn counters_decide_where_there_are_any() {
        let words = ["sh: can't fork: Resource temporarily unavailable"];
        assert_eq!(told(counted(0, 0), None, 2, &words).0, Kind::CommandFailed);
        assert_eq!(
            told(Counters::default(), None, 2, &words).0,
            Kind::LimitReached
        );
        for words in [
            "bash: fork: retry: Resource temporarily unavailable",
            "runtime: failed to create new OS thread (have 11 already; errno=11)",
        ] {
            assert_eq!(
                told(Counters::default(), None, 2, &[words]).0,
                Kind::LimitReached,
                "{words}"
            );
        }
        let long_ago: Vec<&str> = words.into_iter().chain([""; LAST]).collect();
        assert_eq!(
            told(Counters::default(), None, 2, &long_ago).0,
            Kind::CommandFailed
        );
    }

    #[test]
    fn a_host_without_memory_is_not_a_limit_of_the_profile() {
        let evidence = Evidence {
            counted: counted(1, 0),
            ..Evidence::default()
        };
        let killed = failed(Kind::CommandFailed, 137);
        let failure = explain(killed, &evidence, &limits(), "default");
        assert_eq!(
            (failure.kind, failure.fault),
            (Kind::OutOfMemory, Fault::Unknown)
        );
        assert!(!failure.message.contains("1024"), "{failure:?}");
    }

    #[test]
    fn the_place_stays_and_other_failures_stay_as_they_are() {
        let evidence = Evidence {
            counted: counted(1, 1),
            memory_full: true,
            ..Evidence::default()
        };
        let explained = |kind| explain(failed(kind, 1), &evidence, &limits(), "large");
        let failure = explained(Kind::TestFailed);
        assert!(failure.message.ends_with("(profiles.large.memory_mb)"));
        assert_eq!((failure.line, failure.exit_code), (Some(3), Some(1)));
        assert_eq!(failure.excerpt.as_deref(), Some("words"));
        assert!(failure.hint.is_some() && !failure.retryable);
        for kind in [
            Kind::CopySourceMissing,
            Kind::TimedOut,
            Kind::RegistryError,
            Kind::Internal,
        ] {
            assert_eq!(explained(kind), failed(kind, 1));
        }
    }
}

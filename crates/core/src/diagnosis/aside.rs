//! Failures that a program tells of and goes on after, and what passing and pending tests print.

use std::ops::Range;

use super::rules;

/// How Python heads an exception that ends nothing.
const HEADS: &[&str] = &[
    "Exception ignored in",
    "--- Logging error ---",
    "Task exception was never retrieved",
];
/// What the module `logging` says of such an exception behind it.
const BEHIND: &[&str] = &["Call stack:", "Message:", "Arguments:"];

/// How Python heads a traceback.
pub const TRACEBACK: &str = "Traceback (most recent call last)";
/// What it says between two exceptions, of which one came of the other.
const CHAINED: &[&str] = &[
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
];

/// Sections of test frameworks, how each begins, and with what the next one does: jest, RSpec.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "  ● Console",
        &["PASS ", "FAIL ", "  ● ", "Tests:", "Test Suites:"],
    ),
    (
        "Pending: (Failures listed here are expected",
        &["Failures:", "Finished in "],
    ),
];

/// The lines that tell of nothing that ends the program.
pub fn asides(lines: &[&str]) -> Vec<Range<usize>> {
    let mut found = panics_of_passing_tests(lines);
    let mut next = 0;
    while let Some(line) = lines.get(next) {
        let section = SECTIONS.iter().find(|(begin, _)| line.starts_with(begin));
        let end = match section {
            Some((_, ends)) => {
                let mut behind = lines.iter().enumerate().skip(next + 1);
                let end = behind.find(|(_, line)| ends.iter().any(|end| line.starts_with(end)));
                Some(end.map_or(lines.len(), |(at, _)| at))
            }
            None if HEADS.iter().any(|head| line.starts_with(head)) => Some(end(lines, next)),
            None => logged(lines, next),
        };
        let Some(end) = end else {
            next += 1;
            continue;
        };
        found.push(next..end);
        next = end;
    }
    found
}

/// Panics of Rust in tests that pass, as `--nocapture` shows them: `failures:` lists those that do not.
fn panics_of_passing_tests(lines: &[&str]) -> Vec<Range<usize>> {
    fn thread(line: &str) -> Option<&str> {
        let (name, rest) = line.strip_prefix("thread '")?.split_once('\'')?;
        rest.contains("panicked at ").then_some(name)
    }
    // Without it each failed test has a section of its own, which has what its threads said.
    if (lines.iter()).any(|line| line.starts_with("---- ") && line.ends_with(" stdout ----")) {
        return Vec::new();
    }
    let listed = lines.iter().skip_while(|line| **line != "failures:");
    let failed: Vec<&str> = listed
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let panics = lines.iter().enumerate();
    let panics = panics.filter_map(|(at, line)| Some((at, thread(line)?)));
    let (own, others): (Vec<_>, Vec<_>) = panics.partition(|(_, thread)| failed.contains(thread));
    // Where none is of a test that failed, threads of such a test have panicked.
    let others = others.into_iter().filter(|_| !own.is_empty());
    others.map(|(at, _)| at..at + 2).collect()
}

/// The end of an exception that a program's log warns of, where the log goes on behind it.
fn logged(lines: &[&str], head: usize) -> Option<usize> {
    if !lines.get(head + 1)?.starts_with(TRACEBACK) || !rules::is_logged_warning(lines.get(head)?) {
        return None;
    }
    let end = end(lines, head);
    rules::is_logged(lines.get(end)?).then_some(end)
}

/// Behind the exception: the first line that is not indented behind its traceback, and what `logging` adds.
fn end(lines: &[&str], head: usize) -> usize {
    let at = |index: usize| lines.get(index).copied();
    let mut next = head + 1;
    // asyncio names the task.
    if at(next).is_some_and(|line| line.starts_with("future: ")) {
        next += 1;
    }
    if !at(next).is_some_and(|line| line.starts_with(TRACEBACK)) {
        return head + 1;
    }
    loop {
        next += 1;
        while at(next).is_some_and(|line| line.starts_with(' ') || line.is_empty()) {
            next += 1;
        }
        // Behind what was raised.
        next += 1;
        let is_blank = |index: &usize| at(*index).is_some_and(str::is_empty);
        let after = |from: usize| (from..).find(|index| !is_blank(index)).unwrap_or(from);
        let chain = after(next);
        let follows = after(chain + 1);
        let is_chained = at(chain).is_some_and(|line| CHAINED.contains(&line))
            && at(follows).is_some_and(|line| line.starts_with(TRACEBACK));
        if !is_chained {
            break;
        }
        next = follows;
    }
    let is_added =
        |line: &str| line.starts_with(' ') || BEHIND.iter().any(|word| line.starts_with(word));
    while at(next).is_some_and(is_added) {
        next += 1;
    }
    next.min(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str]) -> Vec<(usize, usize)> {
        let asides = asides(lines);
        asides
            .iter()
            .map(|aside| (aside.start, aside.end))
            .collect()
    }

    #[test]
    fn what_python_ignores_ends_with_what_was_raised() {
        let lines = [
            "Exception ignored in: <function Conn.__del__ at 0x7f0>",
            "Traceback (most recent call last):",
            "  File \"/app/conn.py\", line 30, in __del__",
            "    self.sock.close()",
            "AttributeError: 'Conn' object has no attribute 'sock'",
            "Traceback (most recent call last):",
            "  File \"/app/tool.py\", line 9, in <module>",
            "ValueError: bad manifest",
            "--- Logging error ---",
            "Traceback (most recent call last):",
            "  File \"/usr/lib/python3/logging/__init__.py\", line 1160, in emit",
            "TypeError: not all arguments converted during string formatting",
            "Call stack:",
            "  File \"/app/log.py\", line 3, in warn",
            "Message: 'x'",
            "Arguments: (1,)",
            "check: 2 invariants violated",
        ];
        assert_eq!(found(&lines), [(0, 5), (8, 16)]);
        assert_eq!(found(lines.get(..3).unwrap()), [(0, 3)]);
        assert_eq!(found(&["Exception ignored in: x", "and so on"]), [(0, 1)]);
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn what_jest_and_rspec_tell_of_tests_that_do_not_fail_is_aside() {
        let jest = [
            "PASS src/api.test.ts",
            "  ● Console",
            "    console.error",
            "      connect ECONNREFUSED",
            "FAIL src/user.test.ts",
            "  ● adds",
        ];
        assert_eq!(found(&jest), [(1, 4)]);
        let rspec = [
            "Pending: (Failures listed here are expected and do not affect your suite's status)",
            "  1) User is old",
            "Failures:",
            "  1) User is valid",
        ];
        assert_eq!(found(&rspec), [(0, 2)]);
    }

    #[test]
    fn what_a_log_warns_of_with_its_traceback_is_aside() {
        let lines = [
            "2026-11-29 10:00:00,100 WARNING importer.cache: cache is not reachable, going on without",
            "Traceback (most recent call last):",
            "  File \"/app/importer/cache.py\", line 22, in get",
            "ConnectionRefusedError: [Errno 111] Connection refused",
            "",
            "The above exception was the direct cause of the following exception:",
            "",
            "Traceback (most recent call last):",
            "  File \"/app/importer/cache.py\", line 30, in get",
            "redis.exceptions.ConnectionError: Error 111 connecting to cache:6379. Connection refused.",
            "2026-11-29 10:00:00,200 INFO importer: 117 records",
            "importer: error: data/feed.json: record 118: price is negative",
        ];
        assert_eq!(found(&lines), [(0, 10)]);
        let ended = [
            "INFO  [alembic.runtime.migration] Running upgrade",
            "Traceback (most recent call last):",
            "ValueError: price is negative",
            "make: *** [Makefile:2: migrate] Error 1",
        ];
        assert_eq!(found(&ended), []);
    }

    #[test]
    fn a_panic_of_a_test_that_passes_is_aside() {
        let lines = [
            "thread '<unnamed>' panicked at src/ring.rs:88:9:",
            "poisoned",
            "test ring::tests::survives_a_panic ... ok",
            "thread 'ring::tests::is_empty' (7) panicked at src/ring.rs:210:9:",
            "assertion failed",
            "failures:",
            "    ring::tests::is_empty",
        ];
        assert_eq!(found(&lines), [(0, 2)]);
        assert_eq!(found(&lines[..3]), []);
        let of_its_worker = [
            "---- ring::tests::is_empty stdout ----",
            lines[0],
            lines[1],
            lines[3],
            lines[5],
            lines[6],
        ];
        assert_eq!(found(&of_its_worker), []);
    }
}

//! Failures that a program tells of and goes on after, and what passing and pending tests print.

use std::ops::Range;

/// How Python heads an exception that ends nothing.
const HEADS: &[&str] = &[
    "Exception ignored in",
    "--- Logging error ---",
    "Task exception was never retrieved",
];
/// What the module `logging` says of such an exception behind it.
const BEHIND: &[&str] = &["Call stack:", "Message:", "Arguments:"];

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
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(line) = lines.get(next) {
        let section = SECTIONS.iter().find(|(begin, _)| line.starts_with(begin));
        let end = match section {
            Some((_, ends)) => lines
                .iter()
                .enumerate()
                .skip(next + 1)
                .find(|(_, line)| ends.iter().any(|end| line.starts_with(end)))
                .map_or(lines.len(), |(at, _)| at),
            None if HEADS.iter().any(|head| line.starts_with(head)) => end(lines, next),
            None => {
                next += 1;
                continue;
            }
        };
        found.push(next..end);
        next = end;
    }
    found
}

/// Behind the exception: the first line that is not indented behind its traceback, and what `logging` adds.
fn end(lines: &[&str], head: usize) -> usize {
    let is_traceback = |line: &&str| line.starts_with("Traceback (most recent call last)");
    let mut rest = lines.iter().enumerate().skip(head + 1).peekable();
    // asyncio names the task.
    rest.next_if(|(_, line)| line.starts_with("future: "));
    if rest.next_if(|(_, line)| is_traceback(line)).is_none() {
        return head + 1;
    }
    while rest
        .next_if(|(_, line)| line.starts_with(' ') || line.is_empty())
        .is_some()
    {}
    // What was raised.
    rest.next();
    let is_added =
        |line: &str| line.starts_with(' ') || BEHIND.iter().any(|word| line.starts_with(word));
    while rest.next_if(|(_, line)| is_added(line)).is_some() {}
    rest.peek().map_or(lines.len(), |(at, _)| *at)
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
}

//! Failures that a program tells of and goes on after.

use std::ops::Range;

/// How Python heads an exception that ends nothing.
const HEADS: &[&str] = &[
    "Exception ignored in",
    "--- Logging error ---",
    "Task exception was never retrieved",
];
/// What the module `logging` says of such an exception behind it.
const BEHIND: &[&str] = &["Call stack:", "Message:", "Arguments:"];

/// The lines that tell of nothing that ends the program.
pub fn asides(lines: &[&str]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(head) = lines.iter().skip(next).position(|line| is_head(line)) {
        let head = next + head;
        next = end(lines, head);
        found.push(head..next);
    }
    found
}

fn is_head(line: &str) -> bool {
    HEADS.iter().any(|head| line.starts_with(head))
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

    #[test]
    fn what_python_ignores_ends_with_what_was_raised() {
        let found = |lines: &[&str]| -> Vec<(usize, usize)> {
            let asides = asides(lines);
            asides
                .iter()
                .map(|aside| (aside.start, aside.end))
                .collect()
        };
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
}

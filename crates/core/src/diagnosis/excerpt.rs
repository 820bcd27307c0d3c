//! The decisive lines of a log, fit to be quoted.

use crate::build::request::Stream;
use crate::log::Line;

/// Lines of an excerpt at most.
const LINES: usize = 20;
/// Characters of a line in an excerpt.
const WIDTH: usize = 300;

/// Lines to quote, and the cursor with which `logs` opens there.
pub type Excerpt = Option<(String, String)>;

/// The last lines of output among `lines`.
pub fn last<'a>(lines: impl DoubleEndedIterator<Item = &'a (u64, Line)>) -> Excerpt {
    let mut last: Vec<&(u64, Line)> = lines
        .rev()
        .filter(|line| is_shown(line))
        .take(LINES)
        .collect();
    last.reverse();
    quoted(&last)
}

/// The last lines of output, and the cursor with which `logs` opens there.
pub fn tail(lines: &[(u64, Line)]) -> Excerpt {
    last(lines.iter())
}

/// The lines from the first of `lines` on, as far as none is missing between them.
pub fn first(lines: &[(u64, Line)]) -> Excerpt {
    let mut expected = lines.first().map_or(0, |(n, _)| *n);
    let together = lines.iter().take_while(|(n, _)| {
        let follows = *n == expected;
        expected = n + 1;
        follows
    });
    let first: Vec<&(u64, Line)> = together.filter(|line| is_shown(line)).take(LINES).collect();
    quoted(&first)
}

fn is_shown((_, line): &(u64, Line)) -> bool {
    line.stream == Stream::Output && !line.text.trim().is_empty()
}

fn quoted(lines: &[&(u64, Line)]) -> Excerpt {
    let (first, _) = lines.first()?;
    let text: Vec<String> = lines.iter().map(|(_, line)| quote(&line.text)).collect();
    Some((text.join("\n"), first.saturating_sub(1).to_string()))
}

/// One foreign line, cut to a bearable width: in the middle, for why something failed stands at its end.
pub fn quote(text: &str) -> String {
    crate::build::clean::abridged(text, WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_it_failed_is_shown_of_a_long_line() {
        let line = format!(
            "[ERROR] Could not resolve {}: Connect timed out",
            "x, ".repeat(200)
        );
        let quoted = quote(&line);
        assert!(quoted.chars().count() <= WIDTH + 3);
        assert!(quoted.starts_with("[ERROR] Could") && quoted.ends_with("timed out"));
    }
}

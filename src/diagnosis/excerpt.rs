//! The decisive lines of a log, fit to be quoted.

use crate::build::request::Stream;
use crate::log::Line;

/// Lines of an excerpt at most.
const LINES: usize = 20;
/// Characters of a line in an excerpt.
const WIDTH: usize = 300;

/// The last lines of output among `lines`, and the cursor with which `logs` opens there.
pub fn excerpt<'a>(
    lines: impl DoubleEndedIterator<Item = &'a (u64, Line)>,
) -> Option<(String, String)> {
    let mut last: Vec<&(u64, Line)> = lines
        .rev()
        .filter(|(_, line)| line.stream == Stream::Output && !line.text.trim().is_empty())
        .take(LINES)
        .collect();
    last.reverse();
    let (first, _) = last.first()?;
    let text: Vec<String> = last.iter().map(|(_, line)| quote(&line.text)).collect();
    Some((text.join("\n"), first.saturating_sub(1).to_string()))
}

/// One foreign line, cut to a bearable width.
pub fn quote(text: &str) -> String {
    crate::build::clean::short(text, WIDTH)
}

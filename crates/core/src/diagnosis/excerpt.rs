//! The decisive lines of a log, fit to be quoted.

use crate::build::request::Stream;
use crate::log::Line;

/// Lines of an excerpt at most.
const LINES: usize = 20;
/// Characters of a line in an excerpt.
const WIDTH: usize = 300;

/// How pip begins to quote the build of a package, of which the end tells why it failed, and how it ends that.
const QUOTED: &str = "lines of output]";
const QUOTED_TO: &str = "[end of output]";
/// Advice for every such failure: how it begins, and what stands behind it. Of jest.
const ADVICE: &[(&str, &str)] = &[("Jest encountered an unexpected token", "Details:")];

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

/// The lines from the first of `lines` on, as far as none is missing between them, without advice. What is quoted of the
/// build of a package is shown with its end.
pub fn first(lines: &[(u64, Line)]) -> Excerpt {
    let mut expected = lines.first().map_or(0, |(n, _)| *n);
    let together = lines.iter().take_while(|(n, _)| {
        let follows = *n == expected;
        expected = n + 1;
        follows
    });
    let mut advice = None;
    let is_news = |line: &&(u64, Line)| {
        let said = line.1.text.trim_start();
        advice = match advice {
            Some(end) if said.starts_with(end) => None,
            None => begun(said, lines),
            going_on => going_on,
        };
        advice.is_none()
    };
    let shown = together.filter(|line| is_shown(line) && !has_passed(&line.1.text));
    let shown = shown.filter(is_news);
    let first: Vec<&(u64, Line)> = shown.take(LINES).collect();
    quoted(&with_end(lines, &first).unwrap_or(first))
}

/// What is shown of `lines`, with the end of what pip quotes of the build of a package instead of its beginning; `None`:
/// it quotes none.
fn with_end<'a>(
    lines: &'a [(u64, Line)],
    shown: &[&'a (u64, Line)],
) -> Option<Vec<&'a (u64, Line)>> {
    let at = (shown.iter()).position(|(_, line)| line.text.ends_with(QUOTED))?;
    let (head, _) = shown.get(at)?;
    let mut behind = lines.iter().filter(|(n, _)| n > head);
    let (end, _) = behind.find(|(_, line)| line.text.trim() == QUOTED_TO)?;
    let within = lines.iter().rev().filter(|(n, _)| n > head && n < end);
    let within = within.filter(|line| is_shown(line)).take(LINES - at - 1);
    let mut last: Vec<&(u64, Line)> = within.collect();
    last.reverse();
    Some([shown.get(..=at)?, &last].concat())
}

/// How advice that begins with a line ends, where it does.
fn begun(said: &str, lines: &[(u64, Line)]) -> Option<&'static str> {
    let (_, end) = ADVICE.iter().find(|(begin, _)| said.starts_with(begin))?;
    let mut texts = lines.iter().map(|(_, line)| line.text.trim_start());
    texts.any(|text| text.starts_with(end)).then_some(end)
}

fn is_shown((_, line): &(u64, Line)) -> bool {
    line.stream == Stream::Output && !line.text.trim().is_empty()
}

/// Whether a line says only that something passed, or begins: of GoogleTest, TAP, go test, cargo test, vitest and pytest.
fn has_passed(text: &str) -> bool {
    let said = text.trim_start();
    let begins = [
        "[ RUN      ]",
        "[       OK ]",
        "ok  \t",
        "?   \t",
        "--- PASS",
        "✓ ",
        "✔ ",
    ];
    begins.iter().any(|begin| said.starts_with(begin))
        || (said.starts_with("test ") && said.ends_with(" ... ok"))
        || said.ends_with(" PASSED")
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

    fn shown(texts: &[&str]) -> Vec<String> {
        let lines = super::super::command::tests::lines(texts);
        let (text, _) = first(&lines).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_end_of_what_pip_quotes_is_shown() {
        let mut texts = vec![
            "× did not run successfully.",
            "╰─> [40 lines of output]",
            "    begin",
        ];
        texts.extend(["    in between"; 38]);
        texts.extend(["    OSError: why", "    [end of output]", "note: x"]);
        let shown = shown(&texts);
        assert_eq!(shown.len(), LINES);
        assert_eq!(shown[..2], texts[..2]);
        assert_eq!(shown[LINES - 1], "    OSError: why");
        assert!(!shown.contains(&"    begin".to_owned()));
    }

    #[test]
    fn a_short_quotation_is_shown_once() {
        let texts = [
            "╰─> [2 lines of output]",
            "    one",
            "    two",
            "    [end of output]",
        ];
        assert_eq!(shown(&texts), texts[..3]);
        assert_eq!(shown(&texts[..2]), texts[..2]);
    }

    #[test]
    fn advice_of_jest_is_left_out() {
        let texts = [
            "  ● Test suite failed to run",
            "    Jest encountered an unexpected token",
            "    Out of the box Jest supports Babel",
            "    Details:",
            "    SyntaxError: Cannot use import statement outside a module",
        ];
        assert_eq!(shown(&texts), [texts[0], texts[3], texts[4]]);
    }

    #[test]
    fn what_passed_is_left_out() {
        let texts = [
            "7/9 Test #7: cache ....***Failed",
            "[ RUN      ] cache.keeps",
            "[       OK ] cache.keeps (0 ms)",
            "test ring::tests::fills ... ok",
            "ok  \texample.com/a\t0.01s",
            "tests/test_a.py::test_x PASSED",
            "tests/cache_test.cpp:73: Failure",
        ];
        assert_eq!(shown(&texts), [texts[0], texts[6]]);
    }
}

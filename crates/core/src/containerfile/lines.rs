//! From physical lines to instructions on one line: byte-order mark, `# escape=`, comments,
//! blank lines and continuations, as `imagebuilder` reads them.
//!
//! The escape character is only looked for on the first lines, and any other first line ends the
//! search: `# escape=` after `# syntax=` is a comment to Buildah.

use super::fault::{Fault, FaultKind, excerpt};

/// Lines from this length on make Buildah 1.28 drop the rest of the file without a word
/// (`bufio.Scanner` at its default buffer, its error ignored).
const LONG_LINE: usize = 64 * 1024 - 1;

/// An instruction with its continuation lines joined.
pub(super) struct Joined {
    pub text: String,
    /// First line, counted from 1.
    pub line: u32,
}

/// Reads instructions from the text of a file.
pub(super) struct Lines<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    /// Number of lines read.
    pub number: u32,
    pub escape: char,
    directives_over: bool,
    escape_seen: bool,
    pub faults: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            rest: text.split_inclusive('\n'),
            number: 0,
            escape: '\\',
            directives_over: false,
            escape_seen: false,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The next line without its end, exactly as written otherwise.
    pub fn raw(&mut self) -> Option<&'a str> {
        let line = self.rest.next()?;
        self.number = self.number.saturating_add(1);
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.len() >= LONG_LINE {
            self.warnings.push(Fault::new(
                self.number,
                FaultKind::LongLine,
                "the line is longer than 64 KiB: Buildah 1.28 ignores it and all lines after it",
            ));
        }
        Some(line)
    }

    /// The next instruction; blank and comment lines are passed over.
    pub fn next_instruction(&mut self) -> Option<Joined> {
        loop {
            let line = self.raw()?.trim_start();
            self.directive(line);
            let line = without_comment(line);
            let start = self.number;
            match self.continued(line) {
                None if line.is_empty() => {}
                None => {
                    return Some(Joined {
                        text: line.to_owned(),
                        line: start,
                    });
                }
                Some(first) => {
                    let text = self.join(first);
                    return Some(Joined { text, line: start });
                }
            }
        }
    }

    /// Joins the lines that continue `first`: blank and comment lines in between are dropped and
    /// do not end the instruction.
    fn join(&mut self, first: &str) -> String {
        let mut text = first.to_owned();
        while let Some(line) = self.raw() {
            self.directive(line);
            if without_comment(line.trim_start()).is_empty() {
                continue;
            }
            match self.continued(line) {
                Some(more) => text.push_str(more),
                None => {
                    text.push_str(line);
                    break;
                }
            }
        }
        text
    }

    /// The line without its continuation character, if it ends in one.
    fn continued<'l>(&self, line: &'l str) -> Option<&'l str> {
        line.trim_end_matches([' ', '\t']).strip_suffix(self.escape)
    }

    fn directive(&mut self, line: &str) {
        if self.directives_over {
            return;
        }
        let Some(value) = escape_directive(line) else {
            self.directives_over = true;
            return;
        };
        let message = match value {
            _ if self.escape_seen => "only one `# escape=` line is allowed".to_owned(),
            '\\' | '`' => {
                self.escape = value;
                self.escape_seen = true;
                return;
            }
            other => format!(
                "`# escape={}`: must be ` or \\",
                excerpt(&other.to_string())
            ),
        };
        self.escape_seen = true;
        self.faults
            .push(Fault::new(self.number, FaultKind::BadDirective, message));
    }
}

fn without_comment(line: &str) -> &str {
    if line.starts_with('#') { "" } else { line }
}

/// The character of `# escape=X`; what follows it does not matter.
fn escape_directive(line: &str) -> Option<char> {
    const BLANK: [char; 2] = [' ', '\t'];
    let name = line.strip_prefix('#')?.trim_start_matches(BLANK);
    let (name, value) = name.split_once('=')?;
    if !name.trim_end_matches(BLANK).eq_ignore_ascii_case("escape") {
        return None;
    }
    // With nothing but blanks after the `=`, the last blank is the value (and a bad one).
    value
        .trim_start_matches(BLANK)
        .chars()
        .next()
        .or_else(|| value.chars().next_back())
}

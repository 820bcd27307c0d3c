//! The lines of a log that a diagnosis will want, while nobody knows yet whether it fails.
//!
//! ```text
//! line ─▶ the last ones ─▶ (falls out) ─▶ told of a failure? ─▶ kept until the next step begins
//! ```
//! Memory is bounded whatever is printed. The first error of a long output is kept: the first lines that tell of a
//! failure, and some behind each.

use std::collections::VecDeque;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::log::{Line, Prefilter};

/// Last lines that are kept in any case.
const LAST: usize = 400;
/// Lines before them that are kept because they tell of a failure.
const TOLD: usize = 400;
/// Lines behind such a line that are kept with it.
const BEHIND: usize = 12;

/// Words of lines that may tell of a failure; none is shorter than four bytes.
const WORDS: &[&str] = &[
    "error",
    "fail",
    "fatal",
    "panic",
    "exception",
    "traceback",
    "undefined",
    "not found",
    "cannot",
    "can't",
    "could not",
    "couldn't",
    "unable",
    "denied",
    "no such",
    "refused",
    "timed out",
    "timeout",
    "resolv",
    "err:",
    "err!",
    "e   ",
    "retrying",
    "no space",
    "killed",
    "missing",
    "mismatch",
    "invalid",
    "unknown",
    "conflict",
];

static TELLS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(WORDS)
        .ok()
});

/// How an error of apt begins.
const APT: &[u8] = b"E: ";

/// Most lines have no such word, and are not searched: that would take as long as all else that is done with them.
static MAY_TELL: LazyLock<Option<Prefilter>> =
    LazyLock::new(|| Prefilter::ignoring_case(WORDS.iter().map(|word| word.as_bytes())));

/// Whether a line may tell of a failure.
fn tells(text: &[u8]) -> bool {
    let may_tell = (MAY_TELL.as_ref()).is_none_or(|words| words.may_match(text));
    (may_tell && TELLS.as_ref().is_some_and(|words| words.is_match(text))) || text.starts_with(APT)
}

/// See the module.
#[derive(Debug, Default)]
pub struct Recent {
    told: Vec<(u64, Line)>,
    last: VecDeque<(u64, Line)>,
    /// The line that fell out before.
    before: Option<(u64, Line)>,
    /// How many more lines are kept with the one that told.
    behind: usize,
    /// Lines up to this number belong to what has ended.
    ended: u64,
}

impl Recent {
    /// Takes the next line in.
    pub fn push(&mut self, number: u64, line: &Line) {
        let oldest = match self.last.len() {
            LAST => self.last.pop_front(),
            _ => None,
        };
        let line = match oldest.and_then(|old| self.fall(old)) {
            None => line.clone(),
            Some((_, mut spare)) => {
                spare.clone_from(line);
                spare
            }
        };
        self.last.push_back((number, line));
    }

    /// Takes a line from the last ones; returns one that nobody will want.
    fn fall(&mut self, old: (u64, Line)) -> Option<(u64, Line)> {
        if self.told.len() >= TOLD || old.0 <= self.ended {
            return Some(old);
        }
        if tells(old.1.text.as_bytes()) {
            self.told.extend(self.before.take());
            self.behind = BEHIND;
            self.told.push(old);
            None
        } else if self.behind > 0 {
            self.behind -= 1;
            self.told.push(old);
            None
        } else {
            self.before.replace(old)
        }
    }

    /// A step, a test or a phase begins: what was told before belongs to another.
    pub fn begin(&mut self) {
        self.told.clear();
        self.before = None;
        self.behind = 0;
        self.ended = self.last.back().map_or(self.ended, |(number, _)| *number);
    }

    /// The last line.
    pub fn last(&self) -> Option<&Line> {
        self.last.back().map(|(_, line)| line)
    }

    /// The lines, in order.
    pub fn lines(&self) -> Vec<(u64, Line)> {
        self.told.iter().chain(&self.last).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Phase;
    use crate::build::request::Stream;

    fn line(text: &str) -> Line {
        Line {
            phase: Phase::Build,
            step: None,
            test: None,
            stream: Stream::Output,
            text: text.to_owned(),
        }
    }

    #[test]
    fn each_word_tells_wherever_it_stands() {
        for word in WORDS {
            for word in [word.to_ascii_uppercase(), (*word).to_owned()] {
                assert!(tells(word.as_bytes()), "{word}");
                assert!(tells(format!("--{word}").as_bytes()), "{word}");
                assert!(tells(format!("-{word} --").as_bytes()), "{word}");
            }
        }
        assert!(tells(b"E: Package 'x' has no installation candidate"));
        // Its hash is that of a word.
        assert!(!tells(b"fa) 2/3"));
        assert!(!tells(b"cc -O2 -Wall -Iinclude -c src/module_1042.c"));
        assert!(!tells(b""));
    }

    #[test]
    fn the_first_error_of_a_long_output_is_kept_and_memory_is_bounded() {
        let mut recent = Recent::default();
        recent.push(1, &line("an error of the step before"));
        recent.begin();
        recent.push(2, &line("a.c: In function 'f':"));
        recent.push(3, &line("a.c:1:2: error: first"));
        for number in 4..100_000 {
            recent.push(
                number,
                &line(if number % 50 == 0 {
                    "error again"
                } else {
                    "gcc -c x.c"
                }),
            );
        }
        let lines = recent.lines();
        assert!(lines.len() <= LAST + TOLD + 1, "{}", lines.len());
        assert_eq!(lines.first().map(|(n, _)| *n), Some(2));
        assert_eq!(lines.last().map(|(n, _)| *n), Some(99_999));
        assert!(
            lines
                .iter()
                .zip(lines.iter().skip(1))
                .all(|(a, b)| a.0 < b.0)
        );
        recent.begin();
        assert_eq!(recent.lines().len(), LAST);
    }
}

//! The lines of a log that a diagnosis will want, while nobody knows yet whether it fails.
//!
//! ```text
//! line ─▶ the last ones ─▶ (falls out) ─▶ told of a failure? ─▶ kept until the next step begins
//! ```
//! Memory is bounded whatever is printed. The first error of a long output is kept: the first lines that tell of a
//! failure, and some behind each. Where these are many, as where each line has a word of a failure, only those count
//! further that a rule knows as a cause.

use std::collections::VecDeque;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::build::Phase;
use crate::build::request::Stream;
use crate::log::{Line, Origin, Prefilter};

use super::rules;

/// Last lines that are kept in any case.
const LAST: usize = 400;
/// Lines before them that are kept because they tell of a failure.
const TOLD: usize = 400;
/// So many of them may be any that have a word; the others have a rule.
const ANY: usize = 200;
/// Lines behind such a line that are kept with it.
const BEHIND: usize = 12;
/// The same of one that has a rule.
const BEHIND_RULED: usize = 3;
/// Lines of a step that rules are asked about: they take longer than words.
const ASKED: usize = 20_000;

/// Words of lines that may tell of a failure, or parts of them; none is shorter than five bytes: the longer the shortest
/// one, the fewer places of a line are looked at. The first five should be rare in what is printed by builds that succeed.
const WORDS: &[&str] = &[
    "error",
    "faile",
    "failu",
    "failin",
    "fails",
    "fail ",
    "fail:",
    " fail",
    "_fail",
    "[fail",
    "(fail",
    "=fail",
    "\"fail",
    "fatal",
    "panic",
    "ception",
    "ceback",
    "efined",
    "ot found",
    "annot",
    "can't",
    "ould not",
    "ldn't",
    "unable",
    "enied",
    "o such",
    "efused",
    "d out",
    "meout",
    "esolv",
    " err:",
    " err!",
    "rying",
    "o space",
    "killed",
    "missing",
    "ismatch",
    "invalid",
    "unknown",
    "nflict",
    "wrote only",
    "orarily",
    "f memory",
    "dn't exit",
    "segmentation",
    "dumped",
    "aborted",
    "exited on",
    "teway",
    "idden",
    "eaks: ",
    "ch for arg",
    "ovider of",
    "ovides",
    "gnificantly",
    "ificate",
    "unexpected",
    "updates to",
    " match",
    "offline mode",
    "tale ",
    "nsistent",
    "quired module",
    "quired by",
    "ot in std",
    "quires ",
    "olchain",
    "roblem",
    "ur ruby",
    "loyment mode",
    "te with",
    "tiple def",
    "inst `",
    "imported and not",
    "declared",
    "expected",
    "o make",
    "s spec",
    "o package '",
    "tdout ----",
    "a race",
    "ot ok ",
    "nsfer closed",
    "esponse",
    "ceeded",
    "enpgp",
    "gzip form",
    "like a tar",
    "inate called",
    "would reform",
    "plied by",
    "llegal option",
    "diff in /",
    "ubstitution",
    "not set",
    "unbound",
    "ot exist",
    "t permitted",
    "more space",
    " memory for",
    "terminated",
    "err_pnpm",
    "uthentic",
    "ad username",
    "ot available",
    "crashed",
    ", charac",
    " -1: ",
    "yle issues",
    " lint/",
    "nrecognized",
    "d file '",
    "sigkill",
    "violation",
    "not installed",
    "t compatible",
    "platform than",
    "no child",
    "%) not met",
    "e named ",
    "heap space",
    "metaspace",
    "out of resources",
    "andshake",
    "effective uid",
];

static TELLS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(WORDS)
        .ok()
});

/// How such lines begin, behind spaces: errors of apt, what pytest says of an assertion, names of tests that failed.
const BEGINNINGS: &[&str] = &["E: ", "E  ", "Err:", "FAIL", "● ", "✖ ", "✗ ", "✘ ", "× "];

/// Most lines have no such word, and are not searched: that would take as long as all else that is done with them.
static MAY_TELL: LazyLock<Option<Prefilter>> =
    LazyLock::new(|| Prefilter::ignoring_case(WORDS.iter().map(|word| word.as_bytes())));

/// Whether a line may tell of a failure.
fn tells(text: &[u8]) -> bool {
    let may_tell = (MAY_TELL.as_ref()).is_none_or(|words| words.may_match(text));
    begins_so(text.trim_ascii_start())
        || (may_tell
            && TELLS.as_ref().is_some_and(|words| {
                words
                    .find_iter(text)
                    .any(|found| !is_within_a_name(text, found.start(), found.end()))
            }))
}

fn begins_so(text: &[u8]) -> bool {
    let mut beginnings = BEGINNINGS.iter().map(|beginning| beginning.as_bytes());
    // The first byte alone tells nearly all of them apart.
    beginnings.any(|beginning| beginning.first() == text.first() && text.starts_with(beginning))
}

/// Whether a word is but a part of an option or of a file's name: `-Werror`, `error.o`, `test_errors.py`.
fn is_within_a_name(text: &[u8], start: usize, end: usize) -> bool {
    // A word may begin with the space before it.
    let start = start + usize::from(text.get(start) == Some(&b' '));
    let before = text.get(..start).unwrap_or_default();
    let after = text.get(end..).unwrap_or_default();
    let from = before.iter().rposition(u8::is_ascii_whitespace);
    let begun = before.get(from.map_or(0, |from| from + 1)..);
    if matches!(begun, Some([b'-', b'-' | b'A'..=b'Z' | b'a'..=b'z', ..])) {
        return true;
    }
    let rest = after
        .iter()
        .position(|c| !c.is_ascii_alphanumeric() && *c != b'_');
    let rest = rest.and_then(|at| after.get(at..)).unwrap_or_default();
    // An extension, behind which nothing is said of the file.
    let [b'.', extension @ ..] = rest else {
        return false;
    };
    let long = extension
        .iter()
        .position(|c| !c.is_ascii_alphanumeric())
        .unwrap_or(extension.len());
    (1..=4).contains(&long) && !matches!(extension.get(long), Some(b':' | b'('))
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
    /// How many lines rules were asked about.
    asked: usize,
    /// Lines up to this number belong to what has ended.
    ended: u64,
}

impl Recent {
    /// Takes the next line in.
    pub fn push(&mut self, number: u64, origin: &Origin<'_>, text: &str) -> &Line {
        let oldest = match self.last.len() {
            LAST => self.last.pop_front(),
            _ => None,
        };
        let spare = oldest.and_then(|old| self.fall(old));
        let mut line = spare.map_or_else(blank, |(_, line)| line);
        line.become_other(origin, text);
        &self.last.push_back_mut((number, line)).1
    }

    /// Takes a line from the last ones; returns one that nobody will want.
    fn fall(&mut self, old: (u64, Line)) -> Option<(u64, Line)> {
        if self.told.len() >= TOLD || old.0 <= self.ended {
            return Some(old);
        }
        if self.counts(&old.1.text) {
            self.told.extend(self.before.take());
            self.behind = match self.told.len() < ANY {
                true => BEHIND,
                false => BEHIND_RULED,
            };
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

    /// Whether a line is kept for what it tells.
    fn counts(&mut self, text: &str) -> bool {
        if self.asked == ASKED || !tells(text.as_bytes()) {
            return false;
        }
        if self.told.len() < ANY {
            return true;
        }
        self.asked += 1;
        rules::tells_a_cause(text)
    }

    /// A step, a test or a phase begins: what was told before belongs to another.
    pub fn begin(&mut self) {
        self.told.clear();
        self.before = None;
        self.behind = 0;
        self.asked = 0;
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

fn blank() -> Line {
    Line {
        phase: Phase::Source,
        step: None,
        test: None,
        stream: Stream::Output,
        text: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Recent {
        fn take(&mut self, number: u64, line: Line) {
            self.push(number, &line.origin(), &line.text);
        }
    }

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
                assert!(tells(format!("##{word}").as_bytes()), "{word}");
                assert!(tells(format!("#{word} --").as_bytes()), "{word}");
            }
        }
        assert!(tells(b"E: Package 'x' has no installation candidate"));
        for line in [
            "[FAIL] adds",
            "result=FAIL",
            "1) adds ... FAIL",
            "FAIL",
            "{\"outcome\": \"fail\"}",
        ] {
            assert!(tells(line.as_bytes()), "{line}");
        }
        // Its hash is that of a word.
        assert!(!tells(b"fa) 2/3"));
        assert!(!tells(b"cc -O2 -Wall -Iinclude -c src/module_1042.c"));
        assert!(!tells(b""));
        for name in [
            "gcc -Wall -Werror -fmax-errors=3 -c src/error.c -o error.o",
            "tests/test_errors.py PASSED",
            "  inflating: x/failure.html",
        ] {
            assert!(!tells(name.as_bytes()), "{name}");
        }
        // What builds print by the thousand is not searched for words.
        let searched = (0..1000)
            .map(|n| {
                format!(
                    "[ 42%] cc -O2 -Wall -Iinclude -c src/module_{n}.c -o build/obj/module_{n}.o"
                )
            })
            .filter(|line| {
                MAY_TELL
                    .as_ref()
                    .is_some_and(|words| words.may_match(line.as_bytes()))
            });
        assert!(searched.count() < 100);
        assert!(tells(b"src/error.c:3:5: expected ';'"));
        assert!(tells(b"cc1: all warnings being treated as errors"));
    }

    #[test]
    fn each_line_that_can_decide_is_kept() {
        // Each stands behind a line that tells, or is one of a list that ends with such a line.
        let others = [
            "  curl-8.9.1-r1:",
            "  1) adds one and one:",
            "1) adds(AppTest)",
            "app/x.py:1:1: F401 `os` imported but unused",
            "In script.sh line 3:",
            "F401 [*] `os` imported but unused",
            "Dockerfile.prod:3 DL3008 warning: Pin versions in apt get install.",
            "order.proto:11:10:Field name \"OrderId\" should be lower_snake_case, such as \"order_id\".",
            "# [example.com/app/store]",
            "   = help: for further information visit https://rust-lang.github.io/rust-clippy/rust-1.95.0/index.html#needless_return",
            "  Line   src/Http/Kernel.php",
            "/app/src/routes/+page.svelte:9:14",
            "build.sh:3:6: note: Double quote to prevent globbing and word splitting. [SC2086]",
        ];
        let lost: Vec<String> = rules::tests::deciding()
            .into_iter()
            .filter(|line| !tells(line.as_bytes()) && !others.contains(&line.as_str()))
            .collect();
        assert!(lost.is_empty(), "{}:\n{}", lost.len(), lost.join("\n"));
    }

    #[test]
    fn a_cause_among_words_of_failures_is_kept() {
        let mut recent = Recent::default();
        for number in 1..5000 {
            recent.take(
                number,
                line(match number {
                    3000 => "a.c:1:2: error: first",
                    _ if number % 2 == 0 => "error-prone: 17 of 99",
                    _ => "gcc -Werror -c error.c",
                }),
            );
        }
        let lines = recent.lines();
        assert!(lines.len() <= LAST + TOLD + 1, "{}", lines.len());
        assert!(lines.iter().any(|(n, _)| *n == 3000));
    }

    #[test]
    fn the_first_error_of_a_long_output_is_kept_and_memory_is_bounded() {
        let mut recent = Recent::default();
        recent.take(1, line("an error of the step before"));
        recent.begin();
        recent.take(2, line("a.c: In function 'f':"));
        recent.take(3, line("a.c:1:2: error: first"));
        for number in 4..100_000 {
            recent.take(
                number,
                line(if number % 50 == 0 {
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

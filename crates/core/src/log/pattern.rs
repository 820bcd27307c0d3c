//! What `grep` looks for: a regular expression, and the literals that each match must have in it.
//!
//! The literals are looked for in the bytes of a log, before anything of it is decoded. They only leave
//! out what cannot match; what does is decided by the expression itself, on the text.

use std::sync::Arc;

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, MatchKind};
use grep_matcher::Matcher as _;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use memchr::memmem::Finder;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::{Extractor, Seq};
use regex_syntax::hir::{Hir, HirKind};

use super::frame;

/// Bytes a compiled expression may take: a pattern that explodes is refused.
const REGEX_BYTES: usize = 1 << 20;
/// Bytes its lazy automaton may take while it searches; a smaller one is made anew more often.
const AUTOMATON_BYTES: usize = 2 << 20;
/// Most literals that are looked for at the same time: so many are found by vector instructions.
const MOST_LITERALS: usize = 64;
/// So many are found fast; rather shorter ones than more.
const FEW_LITERALS: usize = 16;
/// Unless they were shorter than this.
const SHORT: usize = 3;
/// Longest part of a literal that is looked for.
const LONGEST_LITERAL: usize = 12;
/// So many parts of an expression are looked at for literals.
const MOST_PARTS: usize = 64;
/// What every line's record has of its own: such a literal would find them all.
const IN_EVERY_RECORD: &[u8] =
    br#"{"v":1,"n":0123456789,"s":0,"t":,"phase":"sourcebuildtestpublish","step":[,],"test":"","stream":"outputrunner","text":""}"#;

/// A regular expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: RegexMatcher,
    literals: Option<Arc<Literals>>,
}

/// Finds the first of some literals.
#[derive(Debug)]
pub enum Literals {
    /// One.
    One(Box<Finder<'static>>),
    /// Several, by vector instructions.
    Some(Box<Searcher>),
    /// Several, where the processor has none, or not for so many.
    Slowly(Box<AhoCorasick>),
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is none, too big, or has a line break in it: each line is looked at alone.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self, grep_regex::Error> {
        let regex = RegexMatcherBuilder::new()
            .case_insensitive(ignore_case)
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(AUTOMATON_BYTES)
            .line_terminator(Some(b'\n'))
            .build(pattern)?;
        let hir = ParserBuilder::new()
            .case_insensitive(ignore_case)
            .build()
            .parse(pattern);
        let literals = hir.ok().and_then(|hir| best(&hir)).and_then(Literals::new);
        Ok(Self {
            regex,
            literals: literals.map(Arc::new),
        })
    }

    /// The same, found without literals.
    #[cfg(test)]
    pub fn without_literals(&self) -> Self {
        Self {
            literals: None,
            ..self.clone()
        }
    }

    /// Whether it matches.
    pub fn is_match(&self, text: &str) -> bool {
        matches!(self.regex.is_match(text.as_bytes()), Ok(true))
    }

    /// Where its first match begins.
    pub fn find(&self, text: &str) -> Option<usize> {
        let found = self.regex.find(text.as_bytes()).ok()?;
        found.map(|found| found.start())
    }

    /// What finds the literals, where there are any that help.
    pub fn literals(&self) -> Option<&Literals> {
        self.literals.as_deref()
    }
}

impl Literals {
    /// What finds these.
    pub fn new(all: Vec<Vec<u8>>) -> Option<Self> {
        if let [one] = all.as_slice() {
            return Some(Self::One(Box::new(Finder::new(one).into_owned())));
        }
        // The automaton would look for the first byte of each, where these are few: common letters mostly.
        let searcher = packed::Config::new().builder().extend(&all).build();
        if let Some(searcher) = searcher {
            return Some(Self::Some(Box::new(searcher)));
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(all)
            .ok()?;
        Some(Self::Slowly(Box::new(automaton)))
    }

    /// Where the first one stands.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::One(finder) => finder.find(bytes),
            Self::Some(finder) => finder.find(bytes).map(|found| found.start()),
            Self::Slowly(finder) => finder.find(bytes).map(|found| found.start()),
        }
    }
}

/// The literals of which every match has at least one, as a record has them; the rarest where there is
/// a choice.
fn best(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let mut choices = Vec::new();
    collect(hir, &mut choices);
    choices.into_iter().max_by_key(|all| {
        let shortest = all.iter().map(Vec::len).min().unwrap_or(0).min(6);
        (shortest, std::cmp::Reverse(all.len()))
    })
}

/// All the choices that an expression offers: each match of a sequence has a match of each of its parts.
fn collect(hir: &Hir, choices: &mut Vec<Vec<Vec<u8>>>) {
    choices.extend(usable(&Extractor::new().extract(hir)));
    match hir.kind() {
        HirKind::Capture(capture) => collect(&capture.sub, choices),
        HirKind::Repetition(repetition) if repetition.min > 0 => collect(&repetition.sub, choices),
        HirKind::Concat(parts) => {
            for at in 0..parts.len().min(MOST_PARTS) {
                let rest = parts.get(at..).unwrap_or_default();
                choices.extend(usable(
                    &Extractor::new().extract(&Hir::concat(rest.to_vec())),
                ));
                if let Some(HirKind::Capture(_) | HirKind::Repetition(_)) =
                    rest.first().map(Hir::kind)
                {
                    rest.first().iter().for_each(|part| collect(part, choices));
                }
            }
        }
        _ => {}
    }
}

/// Literals with which every match of something begins, where looking for them helps.
fn usable(begins: &Seq) -> Option<Vec<Vec<u8>>> {
    let literals = begins.literals()?;
    let mut all: Vec<Vec<u8>> = Vec::new();
    for length in (2..=LONGEST_LITERAL).rev() {
        all = literals
            .iter()
            .map(|one| one.as_bytes().get(..length).unwrap_or(one.as_bytes()))
            .map(frame::escaped)
            .collect();
        all.sort_unstable();
        all.dedup();
        let most = if length > SHORT {
            FEW_LITERALS
        } else {
            MOST_LITERALS
        };
        if all.len() <= most {
            break;
        }
    }
    let helps =
        |one: &Vec<u8>| one.len() > 1 && memchr::memmem::find(IN_EVERY_RECORD, one).is_none();
    let digits = |one: &Vec<u8>| one.len() < 6 && one.iter().all(u8::is_ascii_digit);
    let fits = (1..=MOST_LITERALS).contains(&all.len());
    (fits && all.iter().all(|one| helps(one) && !digits(one))).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(pattern: &str, ignore_case: bool) -> Option<Vec<String>> {
        let parser = ParserBuilder::new().case_insensitive(ignore_case).build();
        let mut found = best(&parser.clone().parse(pattern).unwrap())?;
        found.sort();
        let text = |one: Vec<u8>| String::from_utf8(one).unwrap();
        Some(found.into_iter().map(text).collect())
    }

    #[test]
    fn what_each_match_must_have() {
        let some = |all: &[&str]| Some(all.iter().map(|one| (*one).to_owned()).collect());
        assert_eq!(literals("error", false), some(&["error"]));
        assert_eq!(
            literals("error|warning", false),
            some(&["error", "warning"])
        );
        assert_eq!(literals(r"^\d+: undefined$", false), some(&[": undefined"]));
        assert_eq!(literals(r"\w+(panicked)+ at", false), some(&["panicked"]));
        assert_eq!(literals(r#"say "x""#, false), some(&[r#"say \"x\""#]));
        assert_eq!(literals("ab|c", false), None);
        assert_eq!(literals("(fatal)?", false), None);
        assert_eq!(literals("[a-z]+", false), None);
        assert_eq!(literals("output", false), None, "every record has it");
        assert_eq!(literals("oom", true).map(|all| all.len()), Some(8));
        assert!(literals("cannot find symbol", true).unwrap().len() <= MOST_LITERALS);
    }

    #[test]
    fn what_explodes_is_refused() {
        assert!(Pattern::new("(a{1000}){1000}", false).is_err());
        assert!(Pattern::new("(", false).is_err());
        assert!(Pattern::new(r"a\nb", false).is_err());
    }
}

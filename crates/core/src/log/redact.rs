//! Secrets removed from everything before it is written.
//!
//! A secret is known as it is, and by its lines and the values in them, each also in base64 (whatever
//! stands before it), in hexadecimal, percent-encoded and escaped, as a whole or in part.
//!
//! ```text
//! text ─┬─────────────────────────────▶ automaton ─▶ places ─▶ [secret]
//!       └▶ escapes undone (some times) ─▶    │          │
//!                                            └ encoded: the whole word around it
//! ```
//! What is found in a word of base64 or hexadecimal takes the word with it: so a secret is also found
//! where the lines of its encoding are broken, and nothing of its neighbours' bits remains.

use std::borrow::Cow;
use std::ops::Range;

use crate::build::clean;
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

mod encodings;
mod undone;

use super::prefilter::Prefilter;
use encodings::{Form, Patterns};
use undone::{Escapes, Undone, has_escapes};

/// What stands where a secret was.
const MASK: &[u8] = b"[secret]";
/// Shorter texts are not taken for secrets: they would mask ordinary words.
const SHORTEST: usize = 4;
/// Patterns of so many bytes together are searched by the fastest automaton, which takes the most memory.
const SMALL: usize = 8 * 1024;
/// Longest form of one byte of a secret: `\u0041`.
const LONGEST_FORM: usize = 6;
/// How often escapes are undone: a text may be escaped within an escaped one.
const DEPTH: usize = 3;

/// Finds the secrets the runner knows.
#[derive(Clone, Default)]
pub struct Redactor {
    finder: Option<AhoCorasick>,
    prefilter: Option<Prefilter>,
    forms: Vec<Form>,
    longest: usize,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("longest", &self.longest)
            .finish()
    }
}

impl Redactor {
    /// A redactor for these secrets. One that is no text (a PKCS #12 file, a keytab) can only be printed encoded.
    pub fn new<'a, S: AsRef<[u8]> + ?Sized + 'a>(secrets: impl IntoIterator<Item = &'a S>) -> Self {
        let mut patterns = Patterns::default();
        for secret in secrets {
            let secret = secret.as_ref();
            match std::str::from_utf8(secret) {
                Ok(text) => parts(text).into_iter().for_each(|text| patterns.add(text)),
                Err(_) => patterns.add_encoded(secret),
            }
        }
        let longest = patterns.longest * LONGEST_FORM;
        let (bytes, forms): (Vec<Vec<u8>>, Vec<Form>) = patterns.all.into_iter().unzip();
        let is_small = bytes.iter().map(Vec::len).sum::<usize>() <= SMALL;
        let finder = (!bytes.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::Standard)
                    .kind(is_small.then_some(AhoCorasickKind::DFA))
                    .build(&bytes)
                    .ok()
            })
            .flatten();
        let prefilter = Prefilter::new(bytes.iter().map(Vec::as_slice));
        Self {
            finder,
            prefilter,
            forms,
            longest,
        }
    }

    /// The longest form of a secret in one line, in bytes: how much a reader must hold back at a cut.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Whether it is certain, at a glance, that nothing is to be masked in any of these lines.
    pub fn has_none(&self, lines: &[u8]) -> bool {
        // What is an escape in a line is one among lines, too.
        self.finder.is_none() || !(self.may_match(lines) || has_escapes(lines))
    }

    fn may_match(&self, bytes: &[u8]) -> bool {
        let prefilter = self.prefilter.as_ref();
        prefilter.is_none_or(|prefilter| prefilter.may_match(bytes))
    }

    /// The bytes with every secret masked.
    pub fn apply<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(finder) = &self.finder else {
            return Cow::Borrowed(bytes);
        };
        let has_escapes = has_escapes(bytes);
        if !has_escapes && (!self.may_match(bytes) || !finder.is_match(bytes)) {
            return Cow::Borrowed(bytes);
        }
        let mut places = Vec::new();
        self.find(finder, bytes, &mut |place| places.push(place));
        if has_escapes {
            self.find_escaped(finder, &Undone::nothing(bytes), DEPTH, &mut places);
        }
        if places.is_empty() {
            return Cow::Borrowed(bytes);
        }
        Cow::Owned(masked(bytes, places))
    }

    fn find(&self, finder: &AhoCorasick, bytes: &[u8], tell: &mut dyn FnMut(Range<usize>)) {
        // Standard search: secrets may overlap, and none may leave an end of another.
        let Ok(found) = finder.try_find_overlapping_iter(Input::new(bytes)) else {
            return;
        };
        for found in found {
            let form = self.forms.get(found.pattern().as_usize());
            tell(form.map_or(found.range(), |form| form.around(bytes, found.range())));
        }
    }

    /// Finds what is there when escapes are undone, in whatever order they were made.
    fn find_escaped(
        &self,
        finder: &AhoCorasick,
        text: &Undone,
        depth: usize,
        places: &mut Vec<Range<usize>>,
    ) {
        for escapes in [Escapes::Percent, Escapes::Backslash] {
            if let Some(inner) = text.undo(escapes) {
                self.find(finder, &inner.bytes, &mut |found| {
                    places.push(inner.origin(found))
                });
                if depth > 1 {
                    self.find_escaped(finder, &inner, depth - 1, places);
                }
            }
        }
    }

    /// The same for text.
    pub fn text(&self, text: &str) -> String {
        match self.apply(text.as_bytes()) {
            Cow::Borrowed(_) => text.to_owned(),
            Cow::Owned(masked) => String::from_utf8_lossy(&masked).into_owned(),
        }
    }

    /// One line of foreign text, harmless and without secrets. Cleaned first: what is removed may stand
    /// within a secret.
    pub fn line(&self, text: &str) -> String {
        self.text(&clean::line(text))
    }
}

/// What of a secret is a secret by itself: all of it, its lines, and the values in them.
fn parts(secret: &str) -> Vec<&str> {
    let mut parts = vec![secret.trim()];
    for line in secret.lines() {
        parts.push(line.trim());
        // NAME=VALUE, "name": "value", name: value
        let ends = ["=", ": ", "\":"]
            .map(|sign| line.match_indices(sign).map(move |(at, _)| at + sign.len()));
        for end in ends.into_iter().flatten() {
            let is_around = |c: char| c.is_whitespace() || "\"',;".contains(c);
            let value = line.get(end..).unwrap_or_default().trim_matches(is_around);
            let is_telling = value.len() >= 16
                || (value.len() >= 8 && value.bytes().any(|byte| byte.is_ascii_digit()));
            if is_telling {
                parts.push(value);
            }
        }
    }
    parts.retain(|part| part.len() >= SHORTEST);
    parts
}

/// The bytes without these places.
fn masked(bytes: &[u8], mut places: Vec<Range<usize>>) -> Vec<u8> {
    places.sort_unstable_by_key(|place| place.start);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let mut rest = places.into_iter().peekable();
    while let Some(mut place) = rest.next() {
        while let Some(next) = rest.next_if(|next| next.start <= place.end) {
            place.end = place.end.max(next.end);
        }
        out.extend_from_slice(bytes.get(at..place.start).unwrap_or_default());
        out.extend_from_slice(MASK);
        at = place.end;
    }
    out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests;

//! Splitting an instruction into its word, flags and arguments, as `imagebuilder` does.

use serde::de::{DeserializeOwned, IgnoredAny};

/// An instruction before its arguments are looked at.
pub(super) struct Split<'a> {
    pub word: &'a str,
    /// Words starting with `--` before the first argument, quotes removed.
    pub flags: Vec<String>,
    pub rest: &'a str,
}

/// What separates words; other Unicode spaces do not.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at the first run of blanks.
fn split_first(text: &str) -> (&str, Option<&str>) {
    match text.split_once(is_blank) {
        Some((first, rest)) => (first, Some(rest.trim_start_matches(is_blank))),
        None => (text, None),
    }
}

pub(super) fn split(line: &str) -> Split<'_> {
    let (word, rest) = split_first(line.trim());
    let (flags, rest) = flags(rest.unwrap_or_default());
    Split {
        word,
        flags,
        rest: rest.trim(),
    }
}

/// Takes the leading `--flag` words off `line`. A lone `--` ends them. The backslash is the escape
/// here, whatever `# escape=` says.
fn flags(line: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start_matches(is_blank);
    while rest.starts_with("--") {
        let (word, after) = unquoted_word(rest);
        if word == "--" {
            return (flags, after);
        }
        flags.push(word);
        rest = after.trim_start_matches(is_blank);
    }
    (flags, rest)
}

/// The first word of `line` without its quotes and escapes, and the rest.
fn unquoted_word(line: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line.chars();
    loop {
        let before = chars.as_str();
        let Some(c) = chars.next() else {
            return (word, "");
        };
        match (quote, c) {
            (None, c) if is_blank(c) => return (word, before),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => word.extend(chars.next()),
            (_, c) => word.push(c),
        }
    }
}

/// Splits at blanks.
pub(super) fn whitespace(rest: &str) -> Vec<String> {
    if rest.is_empty() {
        return Vec::new();
    }
    let mut words = Vec::new();
    let mut rest = Some(rest);
    while let Some(text) = rest {
        let (word, after) = split_first(text);
        words.push(word.to_owned());
        rest = after;
    }
    words
}

/// Splits at white space outside quotes; quotes and escapes stay in the words.
pub(super) fn shell_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            if let Some(next) = chars.next() {
                word.extend([c, next]);
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Why the arguments of `ENV` or `LABEL` cannot be read.
pub(super) enum PairFault {
    /// One word and no `=`.
    NoValue,
    /// A later word without `=`.
    NoEquals(String),
}

/// Names and values of `ENV` and `LABEL`, alternating. The first word decides between the forms
/// `NAME=VALUE …` and `NAME VALUE`.
pub(super) fn pairs(rest: &str, escape: char) -> Result<Vec<String>, PairFault> {
    let words = shell_words(rest, escape);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.contains('=') {
        return match split_first(rest) {
            (name, Some(value)) => Ok(vec![name.to_owned(), value.to_owned()]),
            (_, None) => Err(PairFault::NoValue),
        };
    }
    let mut pairs = Vec::with_capacity(words.len() * 2);
    for word in words {
        match word.split_once('=') {
            Some((name, value)) => pairs.extend([name.to_owned(), value.to_owned()]),
            None => return Err(PairFault::NoEquals(word)),
        }
    }
    Ok(pairs)
}

/// The outcome of reading arguments as a JSON array.
pub(super) enum Json {
    /// An array of strings. What follows the array is ignored, as Buildah does.
    Strings(Vec<String>),
    /// An array that has something else in it: Buildah refuses the file.
    NotStrings,
    /// No JSON array: the arguments are plain text.
    No,
}

pub(super) fn json(rest: &str) -> Json {
    let rest = rest.trim_start();
    if !rest.starts_with('[') {
        return Json::No;
    }
    if let Some(strings) = first_json(rest) {
        return Json::Strings(strings);
    }
    match first_json::<Vec<IgnoredAny>>(rest) {
        Some(_) => Json::NotStrings,
        None => Json::No,
    }
}

fn first_json<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::Deserializer::from_str(text)
        .into_iter()
        .next()?
        .ok()
}

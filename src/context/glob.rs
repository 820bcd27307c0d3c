//! One pattern of an ignore file as a regular expression.
//!
//! The language is that of Docker's pattern matcher: `*` and `?` stay within a name, `**` spans
//! directories, `[a-z]` and `[^a-z]` are classes, a backslash takes the next character literally.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use thiserror::Error;

/// Longest pattern in bytes; what matching a path costs grows with it.
const MAX_PATTERN: usize = 1024;

/// Why a pattern is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GlobFault {
    #[error("a `[` is not closed, or its class is empty or has a stray `-`")]
    Class,
    #[error("a range in `[…]` runs backwards")]
    Range,
    #[error("it ends in a lone backslash")]
    Backslash,
    #[error("a `!` stands alone")]
    Nothing,
    #[error("it is longer than {MAX_PATTERN} bytes")]
    TooLong,
}

/// Characters that mean more than themselves.
pub(super) const SPECIAL: [char; 5] = ['*', '?', '[', ']', '\\'];

/// The regular expression of a cleaned pattern, without anchors.
pub(super) fn translate(pattern: &str) -> Result<String, GlobFault> {
    if pattern.len() > MAX_PATTERN {
        return Err(GlobFault::TooLong);
    }
    // `**name` alone matches any ending, not only whole names: Docker compares suffixes here.
    if let Some(suffix) = pattern.strip_prefix("**")
        && !suffix.starts_with('/')
        && !suffix.contains(SPECIAL)
    {
        return Ok(format!(".*{}", regex::escape(suffix)));
    }
    let mut regex = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                regex.push_str(if rest.peek().is_none() {
                    ".*"
                } else {
                    "(?:.*/)?"
                });
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => class(&mut rest, &mut regex)?,
            '\\' => literal(rest.next().ok_or(GlobFault::Backslash)?, &mut regex),
            other => literal(other, &mut regex),
        }
    }
    Ok(regex)
}

fn class(rest: &mut Peekable<Chars<'_>>, regex: &mut String) -> Result<(), GlobFault> {
    regex.push('[');
    if rest.next_if_eq(&'^').is_some() {
        regex.push('^');
    }
    let mut empty = true;
    while empty || rest.next_if_eq(&']').is_none() {
        let low = member(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() {
            member(rest)?
        } else {
            low
        };
        if high < low {
            return Err(GlobFault::Range);
        }
        literal(low, regex);
        regex.push('-');
        literal(high, regex);
        empty = false;
    }
    regex.push(']');
    Ok(())
}

fn member(rest: &mut Peekable<Chars<'_>>) -> Result<char, GlobFault> {
    match rest.next() {
        None | Some('-' | ']') => Err(GlobFault::Class),
        Some('\\') => rest.next().ok_or(GlobFault::Class),
        Some(other) => Ok(other),
    }
}

/// By its number, which needs no escaping inside or outside of a class.
fn literal(character: char, regex: &mut String) {
    if character.is_alphanumeric() || character == '/' {
        regex.push(character);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(regex, "\\x{{{:x}}}", u32::from(character));
    }
}

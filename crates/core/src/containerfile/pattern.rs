//! Cutting and replacing by shell pattern: `${X#p}`, `${X%p}`, `${X/p/r}` as Buildah 1.43 does them.
//!
//! Patterns are those of Go's `path.Match`: `*` and `?` do not match `/`. Which pieces of the value
//! are tried is copied from `imagebuilder`: a prefix or suffix never reaches the last character.

use super::expand::{ExpandError, Fuel};

/// The end of a value that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Start,
    End,
}

/// `value` without the shortest or longest piece at `edge` that matches.
pub(super) fn strip(
    value: &str,
    pattern: &str,
    edge: Edge,
    longest: bool,
    fuel: &mut Fuel,
) -> Result<String, ExpandError> {
    let Some(pattern) = Pattern::new(pattern) else {
        return Ok(value.to_owned());
    };
    let last = value.len().saturating_sub(1);
    // The piece shrinks or grows at its inner end, `at`.
    let ascending = (edge == Edge::Start) != longest;
    let range = if ascending { 0..last } else { 0..value.len() };
    for step in range {
        let at = if ascending { step } else { last - step };
        let Some((head, tail)) = value.split_at_checked(at) else {
            continue;
        };
        let (piece, rest) = match edge {
            Edge::Start => (head, tail),
            Edge::End => (tail, head),
        };
        if pattern.matches(piece, fuel)? {
            return Ok(rest.to_owned());
        }
    }
    Ok(value.to_owned())
}

/// `value` with the first match replaced; `how` is `/` for all matches, `#` for one at the start
/// and `%` for one at the end.
pub(super) fn replace(
    value: &str,
    pattern: &str,
    replacement: &str,
    how: Option<char>,
    fuel: &mut Fuel,
) -> Result<String, ExpandError> {
    let Some(pattern) = Pattern::new(pattern) else {
        return Ok(value.to_owned());
    };
    let mut result = String::new();
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        let at_start = rest.len() == value.len();
        let found = match how {
            Some('#') if !at_start => None,
            Some('%') => pattern.matches(rest, fuel)?.then_some(rest.len()),
            _ => pattern.longest_prefix(rest, fuel)?,
        };
        match found.and_then(|length| rest.split_at_checked(length)) {
            Some((_, after)) => {
                fuel.burn(replacement.len())?;
                result.push_str(replacement);
                rest = after;
                if how != Some('/') {
                    break;
                }
            }
            None => {
                result.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    result.push_str(rest);
    Ok(result)
}

enum Token {
    Star,
    Single,
    Literal(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    /// Comparisons made for one character.
    fn cost(&self) -> usize {
        match self {
            Self::Class { ranges, .. } => ranges.len(),
            _ => 1,
        }
    }

    fn matches(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Single => c != '/',
            Self::Literal(literal) => *literal == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

struct Pattern(Vec<Token>);

impl Pattern {
    /// `None` if the pattern is malformed: it then matches nothing.
    fn new(pattern: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Single,
                '\\' => Token::Literal(chars.next()?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                        let low = class_char(&mut chars)?;
                        let high = match chars.next_if_eq(&'-') {
                            Some(_) => class_char(&mut chars)?,
                            None => low,
                        };
                        ranges.push((low, high));
                    }
                    Token::Class { negated, ranges }
                }
                literal => Token::Literal(literal),
            });
        }
        Some(Self(tokens))
    }

    /// Whether the pattern matches all of `text`.
    fn matches(&self, text: &str, fuel: &mut Fuel) -> Result<bool, ExpandError> {
        Ok(self.ends(text, fuel)?.last() == Some(&text.len()))
    }

    /// Length of the longest non-empty start of `text` that matches.
    fn longest_prefix(&self, text: &str, fuel: &mut Fuel) -> Result<Option<usize>, ExpandError> {
        Ok(self
            .ends(text, fuel)?
            .last()
            .copied()
            .filter(|end| *end > 0))
    }

    /// The offsets in `text` up to which the pattern matches, ascending: all states of the
    /// automaton are followed at once, so the work is the product of the lengths.
    fn ends(&self, text: &str, fuel: &mut Fuel) -> Result<Vec<usize>, ExpandError> {
        let mut offsets: Vec<usize> = vec![0];
        for token in &self.0 {
            fuel.burn((text.len() + 1).saturating_mul(token.cost()))?;
            let mut next = Vec::new();
            for &offset in &offsets {
                let rest = text.get(offset..).unwrap_or_default();
                match token {
                    Token::Star => {
                        // Offsets already reached by an earlier star are reached again.
                        if next.last().is_some_and(|last| *last >= offset) {
                            continue;
                        }
                        let length = rest.find('/').unwrap_or(rest.len());
                        let run = rest.get(..length).unwrap_or_default();
                        next.extend(run.char_indices().map(|(at, _)| offset + at));
                        next.push(offset + length);
                    }
                    single => {
                        if let Some(c) = rest.chars().next().filter(|c| single.matches(*c)) {
                            next.push(offset + c.len_utf8());
                        }
                    }
                }
            }
            offsets = next;
        }
        Ok(offsets)
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

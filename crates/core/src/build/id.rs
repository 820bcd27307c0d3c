//! Build ids: short, hard to mistype, safe in file names, URLs and job names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// No vowels (no words), no `0 1 l o` (no look-alikes).
const ALPHABET: &[u8; 26] = b"23456789bcdfghjkmnpqrstvwx";
/// One weight a symbol, each a unit modulo 26: a substitution always changes the sum.
const WEIGHTS: [usize; 9] = [1, 3, 5, 7, 9, 11, 15, 17, 19];
const BODY: usize = WEIGHTS.len();

/// An id such as `b7k2m-9xqdt`: nine random symbols (42 bits) and a check symbol.
///
/// The check symbol catches every single mistyped symbol and nearly every swap of neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildId(String);

/// Why a text is no build id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildIdError {
    /// Not of the form `xxxxx-xxxxx`.
    #[error("a build id has the form xxxxx-xxxxx, of the symbols 2-9 and consonants")]
    Form,
    /// The form is right, the check symbol is not.
    #[error("this id is mistyped: its check symbol does not fit the rest")]
    Check,
}

fn value(symbol: u8) -> Option<usize> {
    ALPHABET.iter().position(|&a| a == symbol)
}

fn check_symbol(body: &[usize]) -> usize {
    let sum: usize = body.iter().zip(WEIGHTS).map(|(v, weight)| v * weight).sum();
    sum % ALPHABET.len()
}

fn symbol(value: usize) -> char {
    ALPHABET
        .get(value % ALPHABET.len())
        .map_or('2', |&b| char::from(b))
}

impl BuildId {
    /// Makes an id from random bytes; equal bytes give equal ids.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        let mut number = u128::from_le_bytes(bytes);
        let mut body = Vec::with_capacity(BODY);
        for _ in 0..BODY {
            body.push((number % 26) as usize);
            number /= 26;
        }
        body.push(check_symbol(&body));
        let mut text: String = body.into_iter().map(symbol).collect();
        text.insert(5, '-');
        Self(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` can be the beginning of an id (for unique prefixes; at least four symbols).
    pub fn is_prefix(text: &str) -> bool {
        (4..=11).contains(&text.len())
            && text.bytes().enumerate().all(|(i, b)| {
                if i == 5 {
                    b == b'-'
                } else {
                    value(b).is_some()
                }
            })
    }
}

impl FromStr for BuildId {
    type Err = BuildIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().to_ascii_lowercase();
        let (left, right) = text.split_once('-').ok_or(BuildIdError::Form)?;
        if left.len() != 5 || right.len() != 5 {
            return Err(BuildIdError::Form);
        }
        let mut values = Vec::with_capacity(BODY + 1);
        for byte in left.bytes().chain(right.bytes()) {
            values.push(value(byte).ok_or(BuildIdError::Form)?);
        }
        let check = values.pop().ok_or(BuildIdError::Form)?;
        if check_symbol(&values) != check {
            return Err(BuildIdError::Check);
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for BuildId {
    type Error = BuildIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BuildId> for String {
    fn from(id: BuildId) -> Self {
        id.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_parses_and_mistyping_is_caught(bytes: [u8; 16], at in 0usize..8, other in 0usize..26) {
            let id = BuildId::from_random(bytes);
            prop_assert_eq!(id.as_str().parse::<BuildId>().unwrap(), id.clone());
            let mut symbols: Vec<u8> = id.as_str().bytes().filter(|&b| b != b'-').collect();
            let mut mistyped = symbols.clone();
            mistyped[at] = ALPHABET[other];
            if mistyped != symbols {
                mistyped.insert(5, b'-');
                prop_assert_eq!(String::from_utf8(mistyped).unwrap().parse::<BuildId>(), Err(BuildIdError::Check));
            }
            symbols.swap(at, at + 1);
            // Weights differ by an even number: a swap of symbols 13 apart goes unseen.
            let (a, b) = (value(symbols[at]).unwrap(), value(symbols[at + 1]).unwrap());
            if a != b && a.abs_diff(b) != 13 {
                symbols.insert(5, b'-');
                let swapped = String::from_utf8(symbols).unwrap();
                prop_assert_eq!(swapped.parse::<BuildId>(), Err(BuildIdError::Check));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = text.parse::<BuildId>();
            let _ = BuildId::is_prefix(&text);
        }
    }

    #[test]
    fn form_is_checked() {
        for bad in [
            "",
            "abc",
            "22222222222",
            "2222-22222",
            "aaaaa-aaaaa",
            "../..-22222",
        ] {
            assert_eq!(bad.parse::<BuildId>(), Err(BuildIdError::Form), "{bad}");
        }
    }
}

//! Quotes and variables in a word, as `imagebuilder`'s `ProcessWord` handles them.
//!
//! `$X`, `${X}`, `${X:-d}`, `${X:+d}` and `${X:?d}` work with every Buildah, `${X#p}`, `${X%p}` and
//! `${X/p/r}` with 1.43. `${X-d}`, common in shells, is refused by all of them and therefore here.
//!
//! Values can be made of values, so a short file can ask for an exponential one: every character
//! produced and every pattern step is taken from a [`Fuel`] that one question shares.

use super::pattern::{self, Edge};
use thiserror::Error;

/// Depth of `${X:-${Y:-…}}` that is followed.
const MAX_DEPTH: u32 = 64;
/// Work allowed for one question about a file; the largest real files need some thousands.
const FUEL: usize = 1 << 24;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum ExpandError {
    #[error("the quote {0} is not closed")]
    OpenQuote(char),
    #[error("`${{` is not closed")]
    OpenBrace,
    #[error(
        "`${{{0}…` is no substitution Buildah knows; it has ${{X:-default}}, ${{X:+value}} and \
         ${{X:?message}}, always with the colon"
    )]
    Unsupported(String),
    #[error("`{0}` must have a value")]
    Required(String),
    #[error("the pattern in `${{{0}…}}` is empty")]
    EmptyPattern(String),
    #[error("the values of the variables are too large or too deeply nested")]
    TooLarge,
}

impl ExpandError {
    /// Whether the word is wrong whatever values the variables have.
    pub fn is_syntax(&self) -> bool {
        matches!(
            self,
            Self::OpenQuote(_) | Self::OpenBrace | Self::Unsupported(_)
        )
    }
}

/// What is left of the work allowed.
pub(super) struct Fuel(usize);

impl Fuel {
    pub fn new() -> Self {
        Self(FUEL)
    }

    pub fn burn(&mut self, amount: usize) -> Result<(), ExpandError> {
        self.0 = self.0.checked_sub(amount).ok_or(ExpandError::TooLarge)?;
        Ok(())
    }
}

/// A word with its variables replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub text: String,
    /// Variables that were asked for and have no value, or an empty one.
    pub missing: Vec<String>,
}

/// Expands `word` with the variables `lookup` knows.
pub(super) fn expand<'v>(
    word: &str,
    lookup: &dyn Fn(&str) -> Option<&'v str>,
    fuel: &mut Fuel,
) -> Result<Expanded, ExpandError> {
    let mut expander = Expander {
        chars: word.chars().peekable(),
        lookup,
        fuel,
        missing: Vec::new(),
        depth: 0,
    };
    let (text, _) = expander.until(&[])?;
    Ok(Expanded {
        text,
        missing: expander.missing,
    })
}

struct Expander<'a, 'v> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    lookup: &'a dyn Fn(&str) -> Option<&'v str>,
    fuel: &'a mut Fuel,
    missing: Vec<String>,
    depth: u32,
}

impl Expander<'_, '_> {
    /// Reads up to one of `stops`, or to the end if there are none.
    fn until(&mut self, stops: &[char]) -> Result<(String, Option<char>), ExpandError> {
        let mut text = String::new();
        while let Some(&c) = self.chars.peek() {
            if stops.contains(&c) {
                self.chars.next();
                return Ok((text, Some(c)));
            }
            match c {
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => self.dollar(&mut text)?,
                _ => {
                    self.chars.next();
                    let literal = if c == '\\' {
                        self.chars.next()
                    } else {
                        Some(c)
                    };
                    self.fuel.burn(1)?;
                    text.extend(literal);
                }
            }
        }
        if stops.is_empty() {
            Ok((text, None))
        } else {
            Err(ExpandError::OpenBrace)
        }
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), ExpandError> {
        self.chars.next();
        loop {
            self.fuel.burn(1)?;
            match self.chars.next().ok_or(ExpandError::OpenQuote('\''))? {
                '\'' => return Ok(()),
                c => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), ExpandError> {
        self.chars.next();
        loop {
            self.fuel.burn(1)?;
            match *self.chars.peek().ok_or(ExpandError::OpenQuote('"'))? {
                '"' => {
                    self.chars.next();
                    return Ok(());
                }
                '$' => self.dollar(text)?,
                '\\' => {
                    self.chars.next();
                    let escaped = self.chars.next_if(|c| matches!(c, '"' | '$' | '\\'));
                    text.push(escaped.unwrap_or('\\'));
                }
                c => {
                    self.chars.next();
                    text.push(c);
                }
            }
        }
    }

    fn dollar(&mut self, text: &mut String) -> Result<(), ExpandError> {
        self.chars.next();
        let value = if self.chars.next_if_eq(&'{').is_some() {
            if self.depth == MAX_DEPTH {
                return Err(ExpandError::TooLarge);
            }
            self.depth += 1;
            let value = self.braced()?;
            self.depth -= 1;
            value
        } else {
            match self.name() {
                name if name.is_empty() => "$".to_owned(),
                name => self.value(&name)?,
            }
        };
        self.fuel.burn(value.len())?;
        text.push_str(&value);
        Ok(())
    }

    /// What stands between `${` and `}`, the latter included.
    fn braced(&mut self) -> Result<String, ExpandError> {
        let name = self.name();
        match self.chars.next().ok_or(ExpandError::OpenBrace)? {
            '}' => self.value(&name),
            ':' => self.defaulted(&name),
            '#' => self.stripped(&name, '#', Edge::Start),
            '%' => self.stripped(&name, '%', Edge::End),
            '/' => self.replaced(&name),
            other => Err(ExpandError::Unsupported(format!("{name}{other}"))),
        }
    }

    /// `${NAME:-word}`, `${NAME:+word}`, `${NAME:?word}`.
    fn defaulted(&mut self, name: &str) -> Result<String, ExpandError> {
        let modifier = self.chars.next().ok_or(ExpandError::OpenBrace)?;
        let mark = self.missing.len();
        let (word, _) = self.until(&['}'])?;
        let value = self.peek_value(name)?;
        match modifier {
            '-' | '?' if !value.is_empty() => {
                // The default is not used: what it lacks does not matter.
                self.missing.truncate(mark);
                Ok(value)
            }
            '-' => {
                if word.is_empty() {
                    self.missing.push(name.to_owned());
                }
                Ok(word)
            }
            // Odd but so: `imagebuilder` takes the message for the value.
            '?' if !word.is_empty() => Ok(word),
            '?' => Err(ExpandError::Required(name.to_owned())),
            '+' if !value.is_empty() => Ok(word),
            '+' => Ok(String::new()),
            other => Err(ExpandError::Unsupported(format!("{name}:{other}"))),
        }
    }

    /// `${NAME#pattern}` and its like.
    fn stripped(&mut self, name: &str, op: char, edge: Edge) -> Result<String, ExpandError> {
        let longest = self.chars.next_if_eq(&op).is_some();
        let (pattern, _) = self.until(&['}'])?;
        if pattern.is_empty() {
            return Err(ExpandError::EmptyPattern(format!("{name}{op}")));
        }
        let value = self.value(name)?;
        pattern::strip(&value, &pattern, edge, longest, self.fuel)
    }

    /// `${NAME/pattern/replacement}` and its like.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let how = self.chars.next_if(|c| matches!(c, '/' | '#' | '%'));
        let (pattern, end) = self.until(&['/', '}'])?;
        if pattern.is_empty() {
            return Err(ExpandError::EmptyPattern(format!("{name}/")));
        }
        let replacement = match end {
            Some('/') => self.until(&['}'])?.0,
            _ => String::new(),
        };
        let value = self.value(name)?;
        pattern::replace(&value, &pattern, &replacement, how, self.fuel)
    }

    /// The value of a variable, noted as missing if there is none.
    fn value(&mut self, name: &str) -> Result<String, ExpandError> {
        let value = self.peek_value(name)?;
        if value.is_empty() {
            self.missing.push(name.to_owned());
        }
        Ok(value)
    }

    fn peek_value(&mut self, name: &str) -> Result<String, ExpandError> {
        let value = (self.lookup)(name).unwrap_or_default();
        self.fuel.burn(value.len() + 1)?;
        Ok(value.to_owned())
    }

    /// One digit, or letters, digits and underscores.
    fn name(&mut self) -> String {
        if let Some(digit) = self.chars.next_if(|c| c.is_numeric()) {
            return digit.to_string();
        }
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }
}

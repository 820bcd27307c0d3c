//! How a secret looks in base64 and in hexadecimal.

use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::build::clean;

/// A pattern of fewer symbols says nothing.
const LEAST: usize = 4;
/// What is longer is known by its ends, and by pieces in between that every line of its encoding has.
const WHOLE: usize = 12;
/// Symbols of an end.
const END: usize = 8;
/// Symbols of a piece: a line of twice as many has one as a whole.
const PIECE: usize = 30;

/// How a secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As it is.
    Plain,
    /// In base64, standard or for URLs.
    Base64,
    /// In hexadecimal.
    Hex,
}

impl Form {
    /// What has to go when a pattern of this form was found: in an encoded text, the whole word.
    pub fn around(self, bytes: &[u8], found: Range<usize>) -> Range<usize> {
        let is_part = |byte: &u8| match self {
            Form::Plain => false,
            Form::Base64 => byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte),
            Form::Hex => byte.is_ascii_hexdigit(),
        };
        let before = bytes.get(..found.start).unwrap_or_default();
        let behind = bytes.get(found.end..).unwrap_or_default();
        let before = before.iter().rev().take_while(|byte| is_part(byte)).count();
        let behind = behind.iter().take_while(|byte| is_part(byte)).count();
        found.start - before..found.end + behind
    }
}

/// What is looked for.
#[derive(Debug, Default)]
pub struct Patterns {
    /// Each with its form.
    pub all: BTreeMap<Vec<u8>, Form>,
    /// Bytes of the longest secret that fits into a line.
    pub longest: usize,
}

impl Patterns {
    /// Adds all forms of a text.
    pub fn add(&mut self, text: &str) {
        let plain = clean::line(text);
        if !text.contains('\n') {
            self.longest = self.longest.max(text.len()).max(plain.len());
        }
        // As a form sends it.
        let sent = text.contains(' ').then(|| text.replace(' ', "+"));
        for plain in [Some(text.to_owned()), Some(plain), sent]
            .into_iter()
            .flatten()
        {
            if plain.len() >= LEAST {
                self.all.insert(plain.into_bytes(), Form::Plain);
            }
        }
        self.add_encoded(text.as_bytes());
    }

    /// Adds the encoded forms alone, for what is no text.
    pub fn add_encoded(&mut self, bytes: &[u8]) {
        for shift in 0..3 {
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                self.add_pieces(&base64_within(engine, bytes, shift), Form::Base64);
            }
        }
        let hex = hex::encode(bytes);
        self.add_pieces(hex.to_ascii_uppercase().as_bytes(), Form::Hex);
        self.add_pieces(hex.as_bytes(), Form::Hex);
    }

    fn add_pieces(&mut self, encoded: &[u8], form: Form) {
        let mut add = |part: Option<&[u8]>| {
            if let Some(part) = part.filter(|part| part.len() >= LEAST) {
                self.all.entry(part.to_vec()).or_insert(form);
            }
        };
        if encoded.len() <= WHOLE {
            return add(Some(encoded));
        }
        add(encoded.get(..END));
        add(encoded.get(encoded.len() - END..));
        if encoded.len() > 2 * PIECE {
            encoded
                .chunks_exact(PIECE)
                .for_each(|piece| add(Some(piece)));
        }
    }
}

/// The symbols that hold bits of a text alone, when `shift` bytes stand before it.
fn base64_within(engine: &impl Engine, text: &[u8], shift: usize) -> Vec<u8> {
    let mut padded = vec![0u8; shift];
    padded.extend_from_slice(text);
    let mut encoded = engine.encode(&padded).into_bytes();
    encoded.truncate(padded.len() * 8 / 6);
    encoded.drain(..(shift * 8).div_ceil(6));
    encoded
}

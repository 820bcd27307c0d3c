//! A text with its escapes undone, which still knows where its bytes came from.

use std::ops::Range;

/// Which escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// `%2F`, of any character.
    Percent,
    /// `\"`, `\n`, `\x41`, `\u0041`: of JSON, and of most languages.
    Backslash,
}

/// Whether there is an escape of any kind.
pub fn has_escapes(bytes: &[u8]) -> bool {
    let next = bytes.get(1..).unwrap_or_default();
    let second = bytes.get(2..).unwrap_or_default();
    let may_have = (bytes.iter().zip(next).zip(second)).fold(false, |found, ((a, b), c)| {
        let is_percent = (*a == b'%') & b.is_ascii_hexdigit() & c.is_ascii_hexdigit();
        found | is_percent | (*a == b'\\')
    });
    // The last two bytes have no third.
    let at_end = bytes.iter().rev().take(2).any(|byte| *byte == b'\\');
    (may_have || at_end)
        && memchr::memchr2_iter(b'%', b'\\', bytes).any(|at| {
            let rest = bytes.get(at + 1..).unwrap_or_default();
            match bytes.get(at) {
                Some(b'%') => hex(rest, 2).is_some(),
                _ => backslash(rest).is_some(),
            }
        })
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Undone {
    /// The text.
    pub bytes: Vec<u8>,
    /// Where each byte began in the first text, and where the last one ended.
    begins: Vec<usize>,
}

impl Undone {
    /// A text as it is.
    pub fn nothing(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            begins: (0..=bytes.len()).collect(),
        }
    }

    /// Where a part of it stands in the first text.
    pub fn origin(&self, part: Range<usize>) -> Range<usize> {
        let at = |index: usize| self.begins.get(index).copied().unwrap_or(0);
        at(part.start)..at(part.end)
    }

    /// With one layer of escapes less; `None` when there is none.
    pub fn undo(&self, escapes: Escapes) -> Option<Self> {
        let sign = match escapes {
            Escapes::Percent => b'%',
            Escapes::Backslash => b'\\',
        };
        memchr::memchr(sign, &self.bytes)?;
        let mut undone = Self {
            bytes: Vec::with_capacity(self.bytes.len()),
            begins: Vec::with_capacity(self.begins.len()),
        };
        let mut at = 0;
        let mut is_changed = false;
        while let Some((&byte, rest)) = self.bytes.get(at..).and_then(<[u8]>::split_first) {
            let escape = (byte == sign)
                .then_some(rest)
                .and_then(|rest| match escapes {
                    Escapes::Percent => Some((char::from(hex(rest, 2)?), 2)),
                    Escapes::Backslash => backslash(rest),
                });
            let begin = self.begins.get(at).copied().unwrap_or(0);
            let mut push = |byte| {
                undone.bytes.push(byte);
                undone.begins.push(begin);
            };
            match escape {
                None => push(byte),
                // One byte, not one character: the next escape may be the rest of it.
                Some((c, 2)) if escapes == Escapes::Percent => push(low_byte(c)),
                Some((c, 3)) => push(low_byte(c)),
                Some((c, _)) => {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8).bytes().for_each(&mut push);
                }
            }
            is_changed |= escape.is_some();
            at += 1 + escape.map_or(0, |(_, length)| length);
        }
        undone.begins.push(self.begins.last().copied().unwrap_or(0));
        is_changed.then_some(undone)
    }
}

fn low_byte(c: char) -> u8 {
    u8::try_from(u32::from(c)).unwrap_or(b'?')
}

fn hex(bytes: &[u8], digits: usize) -> Option<u8> {
    let text = std::str::from_utf8(bytes.get(..digits)?).ok()?;
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(text, 16).ok())?
}

/// What stands behind a backslash, and how many bytes that takes.
fn backslash(rest: &[u8]) -> Option<(char, usize)> {
    let unit = |rest: &[u8]| {
        let bytes = rest.strip_prefix(b"u")?;
        let (high, low) = (hex(bytes, 2)?, hex(bytes.get(2..)?, 2)?);
        Some(u16::from_be_bytes([high, low]))
    };
    Some(match rest.first()? {
        b'n' => ('\n', 1),
        b't' => ('\t', 1),
        b'r' => ('\r', 1),
        b'b' => ('\u{8}', 1),
        b'f' => ('\u{c}', 1),
        // One byte, as it is of three.
        b'x' => (char::from(hex(rest.get(1..)?, 2)?), 3),
        b'u' => {
            let first = unit(rest)?;
            let second = rest
                .get(5..)
                .and_then(|more| unit(more.strip_prefix(b"\\")?));
            let pair = [first, second.unwrap_or(0)];
            match char::decode_utf16(pair).next()?.ok()? {
                c if c.len_utf16() == 2 => (c, 11),
                c => (c, 5),
            }
        }
        &byte if byte.is_ascii_punctuation() => (char::from(byte), 1),
        _ => return None,
    })
}

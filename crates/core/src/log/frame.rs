//! The bytes of a record: lines are written by hand, and judged without being decoded.
//!
//! A line's fields stand in a fixed order, so that numbers are found at its beginning and the text at
//! its end. Quotes within a text are escaped: nothing that is printed can look like a field.
//!
//! ```text
//! {"v":1,"n":1042,"s":980,"t":1732634093123,"phase":"build","step":[3,7],"stream":"output","text":"cc -O2 a.c"}
//! └──────── head ────────┘                  └──────────────── origin ──────────────┘       └── text ──┘
//! ```
//! `s` is the number of the first line of the unbroken run of lines of the same phase, step and test. It
//! only grows along the file, as `n` does: runs that nobody asked for are skipped by bisection, without
//! an index beside the log.

use std::borrow::Cow;
use std::io::Write;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::build::request::Stream;

use super::record::{Line, LogRecord};

static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b",\"text\":\""));

/// How a record begins.
const BEGIN: &[u8] = b"{\"v\":1,\"n\":";

/// What does not change from line to line of one origin, as it stands in a record.
pub fn origin(line: &Line, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"phase\":\"");
    out.extend_from_slice(line.phase.as_str().as_bytes());
    out.push(b'"');
    if let Some((step, of)) = line.step {
        out.extend_from_slice(b",\"step\":[");
        number(step.into(), out);
        out.push(b',');
        number(of.into(), out);
        out.push(b']');
    }
    if let Some(test) = &line.test {
        out.extend_from_slice(b",\"test\":");
        quoted(test, out);
    }
    out.extend_from_slice(of_stream(line.stream));
    out.extend_from_slice(b",\"text\":");
}

/// How a record names its stream.
pub fn of_stream(stream: Stream) -> &'static [u8] {
    match stream {
        Stream::Output => b",\"stream\":\"output\"",
        Stream::Runner => b",\"stream\":\"runner\"",
    }
}

/// Writes a whole record of a line; `middle` is what [`middle`] gives.
pub fn line(n: u64, middle: &[u8], text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(BEGIN);
    number(n, out);
    out.extend_from_slice(middle);
    quoted(text, out);
    out.extend_from_slice(b"}\n");
}

/// What stands between the number of a line, whose [`origin`] is given, and its text.
pub fn middle(since: u64, t: i64, origin: &[u8], out: &mut Vec<u8>) {
    if since > 0 {
        out.extend_from_slice(b",\"s\":");
        number(since, out);
    }
    out.extend_from_slice(b",\"t\":");
    if t < 0 {
        out.push(b'-');
    }
    number(t.unsigned_abs(), out);
    out.extend_from_slice(origin);
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A string as JSON has it.
fn quoted(text: &str, out: &mut Vec<u8>) {
    let special = |found: bool, &b: &u8| found | (b < b' ') | (b == b'"') | (b == b'\\');
    if text.as_bytes().iter().fold(false, special) {
        // Writing into memory cannot fail.
        let _ = serde_json::to_writer(&mut *out, text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// A part of a text as it stands between the quotes; it need not be whole characters.
pub fn escaped(part: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.len());
    for &byte in part {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            8 => out.extend(b"\\b"),
            12 => out.extend(b"\\f"),
            0..=31 => _ = write!(out, "\\u{byte:04x}"),
            _ => out.push(byte),
        }
    }
    out
}

/// The numbers of a record, and whether it is a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the line; for an event that of the line before it.
    pub n: u64,
    /// First line of its run; 0: not told.
    pub since: u64,
    /// It is a line, no event.
    pub is_line: bool,
}

/// The head of a record; `None` for what is no record.
pub fn head(record: &[u8]) -> Option<Head> {
    quick_head(record).or_else(|| {
        let record = LogRecord::decode(record)?;
        Some(Head {
            n: record.n,
            since: record.since,
            is_line: record.line().is_some(),
        })
    })
}

fn quick_head(record: &[u8]) -> Option<Head> {
    let (n, rest) = digits(record.strip_prefix(BEGIN)?)?;
    let (since, rest) = match rest.strip_prefix(b",\"s\":") {
        Some(rest) => digits(rest)?,
        None => (0, rest),
    };
    let (_, rest) = digits(rest.strip_prefix(b",\"t\":")?)?;
    let is_line = rest.starts_with(b",\"phase\":\"") && rest.ends_with(b"\"}");
    is_line.then_some(Head { n, since, is_line })
}

/// A number, and what is behind it.
fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let count = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, rest) = bytes.split_at_checked(count)?;
    let mut value = 0u64;
    for digit in digits {
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    (1..20).contains(&count).then_some((value, rest))
}

/// The two parts of a record of a line: up to its text, and the text as it stands between the quotes.
pub fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = TEXT.find(record)?;
    let (front, text) = record.split_at_checked(at)?;
    let text = text.get(TEXT.needle().len()..)?;
    Some((front, text.strip_suffix(b"\"}")?))
}

/// The text of a record of a line, as it stands between its quotes; `None` where its [`origin`] is another.
pub fn text_of<'a>(record: &'a [u8], of: &Finder<'_>) -> Option<&'a [u8]> {
    // A quote within a text is escaped, so an origin is found nowhere else.
    let at = of.find(record.strip_prefix(BEGIN)?)?;
    let text = record.get(BEGIN.len() + at + of.needle().len()..)?;
    text.strip_prefix(b"\"")?.strip_suffix(b"\"}")
}

/// A text from between its quotes; `None` when it is none.
pub fn unescaped(text: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', text).is_none() {
        return std::str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let mut quoted = Vec::with_capacity(text.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(text);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted)
        .ok()
        .map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Phase;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_by_hand_is_what_serde_writes(
            text in "(?s).*", test in prop::option::of("(?s).{0,9}"), step: Option<(u32, u32)>, n: u64, since: u64,
            t: i64, runner: bool) {
            let stream = if runner { Stream::Runner } else { Stream::Output };
            let line = Line { phase: Phase::Test, step, test, stream, text };
            let record = LogRecord::of_line(n, since, t, line.clone());
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let body = bytes.strip_suffix(b"\n").unwrap();
            prop_assert_eq!(LogRecord::decode(body), Some(record.clone()));
            let parsed: serde_json::Value = serde_json::from_slice(body).unwrap();
            prop_assert_eq!(serde_json::to_vec(&parsed).unwrap(), body);
            let (front, text) = split(body).unwrap();
            prop_assert!(front.ends_with(of_stream(stream)));
            prop_assert_eq!(unescaped(text).unwrap(), line.text.as_str());
            prop_assert_eq!(escaped(line.text.as_bytes()), text);
            prop_assert_eq!(head(body), Some(Head { n, since, is_line: true }));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = (head(&bytes), split(&bytes), unescaped(&bytes), escaped(&bytes));
        }
    }
}

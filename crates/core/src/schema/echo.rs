//! Showing a caller's own input back: bounded, on one line, without characters that mislead a
//! reader.

use std::io;

use serde_json::Value;

/// The most characters of one value that are echoed.
const MAX_ECHO: usize = 80;
/// The most characters of one unknown name that are echoed.
const MAX_NAME: usize = 40;

/// The value as JSON, at most 80 characters. Work does not grow with the value.
pub(super) fn excerpt(value: &Value) -> String {
    let mut head = Head(Vec::new());
    let cut = serde_json::to_writer(&mut head, value).is_err();
    shorten(&String::from_utf8_lossy(&head.0), MAX_ECHO, cut)
}

/// A name in a path: as it is when plain, else as a quoted index.
pub(super) fn step(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain) {
        return format!(".{name}");
    }
    let head: String = name.chars().take(MAX_NAME + 1).collect();
    let quoted = Value::String(shorten(&head, MAX_NAME, false)).to_string();
    format!("[{quoted}]")
}

/// Type and length only.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(text) => format!("string of {} characters", text.chars().count()),
        Value::Array(items) => format!("list of {} items", items.len()),
        Value::Object(map) => format!("object with {} properties", map.len()),
    }
}

fn shorten(text: &str, limit: usize, cut: bool) -> String {
    let mut shown: String = text.chars().take(limit).map(visible).collect();
    if cut || text.chars().nth(limit).is_some() {
        shown = shown.chars().take(limit - 1).collect();
        shown.push('…');
    }
    shown
}

fn visible(c: char) -> char {
    if misleads(c) {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// Controls, line separators, bidi controls, zero-width characters, fillers, variation selectors
/// and tags.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Keeps the first bytes written to it, enough for [`MAX_ECHO`] characters of any width and one
/// more, then fails.
struct Head(Vec<u8>);

impl io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (4 * (MAX_ECHO + 1)).saturating_sub(self.0.len());
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(room);
        self.0.extend(bytes.iter().take(taken));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn excerpt_is_json_of_at_most_80_characters() {
        assert_eq!(
            excerpt(&json!({"a": [1, "x", null]})),
            r#"{"a":[1,"x",null]}"#
        );
        assert_eq!(excerpt(&json!("a".repeat(78))).chars().count(), 80);
        assert!(!excerpt(&json!("a".repeat(78))).ends_with('…'));
        for text in [
            "a".repeat(79),
            "ä".repeat(500),
            "💥".repeat(500),
            "\n".repeat(500),
        ] {
            let shown = excerpt(&json!(text));
            assert_eq!(shown.chars().count(), 80, "{shown}");
            assert!(shown.ends_with('…'));
        }
    }

    #[test]
    fn misleading_characters_are_replaced() {
        let text = "a\u{202e}b\u{200b}c\u{feff}d\u{2028}e\u{85}f\u{e0041}g\u{fe0f}h\u{7f}i";
        assert_eq!(
            excerpt(&json!(text)),
            format!("\"{}\"", "a b c d e f g h i".replace(' ', "\u{fffd}"))
        );
        assert_eq!(excerpt(&json!("a\nb\u{1b}[0m")), r#""a\nb\u001b[0m""#);
    }

    #[test]
    fn names_in_paths_are_plain_or_quoted() {
        assert_eq!(step("no-cache_2"), ".no-cache_2");
        assert_eq!(step("a.b"), r#"["a.b"]"#);
        assert_eq!(step(""), r#"[""]"#);
        assert_eq!(step("a\nb\u{202e}\"]"), "[\"a\u{fffd}b\u{fffd}\\\"]\"]");
        assert!(step(&"x".repeat(1_000_000)).chars().count() < 50);
    }
}

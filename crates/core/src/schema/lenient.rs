//! The forms that are taken for others, one value at a time.

use serde_json::{Number, Value};

/// Longer strings (in bytes) are not parsed as JSON: a value takes many times the memory of its
/// text.
pub const MAX_JSON_TEXT: usize = 1 << 20;
/// Deeper arguments are refused.
pub const MAX_DEPTH: usize = 64;
/// The longest text of a number, in bytes.
const MAX_NUMBER: usize = 64;

pub(super) fn is_absent(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// An object or array out of a string, or why there is none.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return Err("and not JSON for one".to_owned());
    }
    if text.len() > MAX_JSON_TEXT {
        return Err(format!(
            "and as JSON too long: {} bytes, at most {MAX_JSON_TEXT}",
            text.len()
        ));
    }
    let value = serde_json::from_str(text).map_err(|e| {
        format!(
            "and does not parse as JSON at line {} column {}",
            e.line(),
            e.column()
        )
    })?;
    if deeper_than(&value, MAX_DEPTH) {
        return Err(format!("and as JSON nested deeper than {MAX_DEPTH}"));
    }
    Ok(value)
}

pub(super) fn deeper_than(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return matches!(value, Value::Array(_) | Value::Object(_));
    };
    match value {
        Value::Array(items) => items.iter().any(|v| deeper_than(v, below)),
        Value::Object(map) => map.values().any(|v| deeper_than(v, below)),
        _ => false,
    }
}

pub(super) fn number_of(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) if text.len() <= MAX_NUMBER => text.parse().ok(),
        _ => None,
    }
}

/// The exact integer; floats beyond `i128` saturate, which lies outside all bounds.
pub(super) fn whole(number: &Number) -> Option<i128> {
    number.as_i128().or_else(|| {
        let float = number.as_f64().filter(|f| f.fract() == 0.0)?;
        Some(float as i128)
    })
}

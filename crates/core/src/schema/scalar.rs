//! Decoding strings, numbers and booleans, and the bounds of lengths.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Number, Value};

use super::decode::Decoder;
use super::fault::{Clamped, MAX_FAULTS};
use super::lenient;
use super::mark;
use super::spot::Spot;
use super::suggest;

/// The greatest integer that every JSON implementation reads exactly (RFC 8259, section 6).
const MAX_INTEGER: i128 = (1 << 53) - 1;

impl<'s> Decoder<'s, '_> {
    pub(super) fn string(&mut self, spot: &Spot<'_, 's>, value: Value) -> Option<Value> {
        let Value::String(text) = &value else {
            return self.refuse(spot, &value, format_args!("not a string"));
        };
        if let Some(mut allowed) = spot.node.allowed()
            && !allowed.any(|name| name == text)
        {
            self.faults.add(|| {
                let near = spot
                    .node
                    .allowed()
                    .and_then(|names| suggest::nearest(text, names));
                spot.fault(
                    "not an allowed value".to_owned(),
                    spot.got(&value),
                    near.map(str::to_owned),
                )
            });
            return None;
        }
        let length = text.chars().count() as u64;
        if !self.fits(
            spot,
            &value,
            length,
            ["minLength", "maxLength"],
            "characters",
        ) {
            return None;
        }
        if let Some(pattern) = spot.node.text("pattern") {
            let compiled = self
                .patterns
                .entry(pattern)
                .or_insert_with(|| Regex::new(pattern).ok());
            if !compiled.as_ref().is_some_and(|regex| regex.is_match(text)) {
                return self.refuse(spot, &value, format_args!("not of the required form"));
            }
        }
        Some(value)
    }

    /// Whether a length lies within the node's bounds; a fault when not.
    pub(super) fn fits(
        &mut self,
        spot: &Spot<'_, 's>,
        got: &Value,
        length: u64,
        bounds: [&str; 2],
        unit: &str,
    ) -> bool {
        let [low, high] = bounds.map(|keyword| spot.node.size(keyword));
        let outside = match (low, high) {
            (_, Some(high)) if length > high => {
                format!("too long: {length} {unit}, at most {high}")
            }
            (Some(low), _) if length < low => format!("too short: {length} {unit}, at least {low}"),
            _ => return true,
        };
        self.refuse::<()>(spot, got, format_args!("{outside}"));
        false
    }

    pub(super) fn integer(&mut self, spot: &Spot<'_, 's>, value: Value) -> Option<Value> {
        let Some(number) = lenient::number_of(&value) else {
            return self.refuse(spot, &value, format_args!("not an integer"));
        };
        let Some(whole) = lenient::whole(&number) else {
            return self.refuse(spot, &value, format_args!("not a whole number"));
        };
        let low = exact(spot.node.bound("minimum"))
            .unwrap_or(-MAX_INTEGER)
            .max(-MAX_INTEGER);
        let high = exact(spot.node.bound("maximum"))
            .unwrap_or(MAX_INTEGER)
            .min(MAX_INTEGER);
        let mut kept = whole;
        if whole > high && spot.node.flag(mark::CLAMP) {
            kept = high;
            if self.notes.len() < MAX_FAULTS {
                let to = Number::from_i128(high)?;
                self.notes.push(Clamped {
                    path: spot.path.to_string(),
                    from: number,
                    to,
                });
            }
        }
        if kept > high {
            return self.refuse(spot, &value, format_args!("above the maximum of {high}"));
        }
        if kept < low {
            return self.refuse(spot, &value, format_args!("below the minimum of {low}"));
        }
        Number::from_i128(kept).map(Value::Number)
    }

    pub(super) fn number(&mut self, spot: &Spot<'_, 's>, value: Value) -> Option<Value> {
        let Some(number) = lenient::number_of(&value) else {
            return self.refuse(spot, &value, format_args!("not a number"));
        };
        let size = number.as_f64();
        for (keyword, wrong) in [("minimum", Ordering::Less), ("maximum", Ordering::Greater)] {
            let Some(bound) = spot.node.bound(keyword) else {
                continue;
            };
            if size.partial_cmp(&bound.as_f64()) == Some(wrong) {
                return self.refuse(
                    spot,
                    &value,
                    format_args!("beyond the {keyword} of {bound}"),
                );
            }
        }
        Some(Value::Number(number))
    }

    pub(super) fn boolean(&mut self, spot: &Spot<'_, 's>, value: Value) -> Option<Value> {
        match value.as_str() {
            Some("true") => Some(Value::Bool(true)),
            Some("false") => Some(Value::Bool(false)),
            _ if value.is_boolean() => Some(value),
            _ => self.refuse(spot, &value, format_args!("not a boolean")),
        }
    }
}

/// The bounds of an integer are integers, by the rules.
fn exact(bound: Option<&Number>) -> Option<i128> {
    bound?.as_i128()
}

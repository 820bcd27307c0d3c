//! Reading arguments by their schema: lenient in, strict out.
//!
//! Only these forms are taken for others, and only where the schema declares the target:
//! - `null` and `""` for an optional argument: absent; a missing, `null` or `""` whole: no
//!   arguments
//! - a string holding a JSON object or array, for an object or list; a string holding a JSON
//!   number, for a number; `"true"` and `"false"` for a boolean; a whole number in any notation
//!   (`40.0`) for an integer
//! - one string for a list of strings
//! - what a [`mark`] allows: maps for `KEY=VALUE` lists and for files, a list for a command, a
//!   value to cut
//!
//! Everything else is a fault. The recursion follows the schema, so its depth is the schema's.

use crate::schema::error_code::ErrorCode;
use std::collections::HashMap;
use std::fmt;

use regex::Regex;
use serde_json::{Map, Value};

use super::echo;
use super::fault::{ArgFault, Clamped, Faults};
use super::lenient::{MAX_DEPTH, deeper_than, is_absent, parse};
use super::mark;
use super::node::{Kind, Node};
use super::spot::{Path, Spot};
use super::suggest::{self, Synonyms};

/// Arguments that are valid against the published schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// What was cut to its maximum; at most [`super::MAX_FAULTS`].
    pub notes: Vec<Clamped>,
}

/// Decodes `raw` by `schema` (from [`super::tool_schema`], marks included). `Value::Null` stands
/// for no arguments.
pub fn decode(
    schema: &Map<String, Value>,
    raw: Value,
    synonyms: Synonyms<'_>,
) -> Result<Decoded, Faults> {
    let mut decoder = Decoder {
        root: Node(schema),
        synonyms,
        faults: Faults::default(),
        notes: Vec::new(),
        patterns: HashMap::new(),
    };
    let whole = Spot {
        path: Path::Root,
        node: Node(schema),
        private: Node(schema).flag(mark::PRIVATE),
    };
    let raw = if is_absent(&raw) {
        Value::Object(Map::new())
    } else {
        raw
    };
    let value = if deeper_than(&raw, MAX_DEPTH) {
        decoder.refuse(&whole, &raw, format_args!("nested deeper than {MAX_DEPTH}"))
    } else {
        decoder.value(&whole, raw)
    };
    match value {
        Some(value) if decoder.faults.listed.is_empty() => Ok(Decoded {
            value,
            notes: decoder.notes,
        }),
        _ => Err(decoder.faults),
    }
}

pub(super) struct Decoder<'s, 't> {
    root: Node<'s>,
    synonyms: Synonyms<'t>,
    pub(super) faults: Faults,
    pub(super) notes: Vec<Clamped>,
    /// Compiled once a call; a pattern that does not compile matches nothing.
    pub(super) patterns: HashMap<&'s str, Option<Regex>>,
}

impl<'s> Decoder<'s, '_> {
    /// Records a fault; always `None`, so that it can end a decoding function.
    pub(super) fn refuse<T>(
        &mut self,
        spot: &Spot<'_, 's>,
        got: &Value,
        problem: fmt::Arguments<'_>,
    ) -> Option<T> {
        self.faults
            .add(|| spot.fault(problem.to_string(), spot.got(got), None));
        None
    }

    fn value(&mut self, spot: &Spot<'_, 's>, value: Value) -> Option<Value> {
        match spot.node.kind() {
            Some(Kind::Object) => self.object(spot, value),
            Some(Kind::Array) => self.list(spot, value),
            Some(Kind::String) => self.string(spot, value),
            Some(Kind::Integer) => self.integer(spot, value),
            Some(Kind::Number) => self.number(spot, value),
            Some(Kind::Boolean) => self.boolean(spot, value),
            None => Some(value),
        }
    }

    fn object(&mut self, spot: &Spot<'_, 's>, value: Value) -> Option<Value> {
        let given = match value {
            Value::Object(given) => given,
            Value::String(text) => match parse(&text) {
                Ok(Value::Object(given)) => given,
                Ok(other) => return self.refuse(spot, &other, format_args!("not an object")),
                Err(why) => {
                    return self.refuse(
                        spot,
                        &Value::String(text),
                        format_args!("not an object, {why}"),
                    );
                }
            },
            other => return self.refuse(spot, &other, format_args!("not an object")),
        };
        let mut known = HashMap::new();
        let mut other = Map::new();
        for (name, value) in given {
            match spot
                .node
                .0
                .get("properties")
                .and_then(|p| p.as_object()?.get_key_value(&name))
            {
                Some((declared, _)) => {
                    drop(known.insert(declared.as_str(), (declared.as_str(), value)))
                }
                None if spot.node.closed() => self.unknown(spot, &name, &value),
                None => drop(other.insert(name, value)),
            }
        }
        self.redirect_argv(spot, &mut known);
        let mut out = Map::new();
        for (name, node) in spot.node.properties() {
            let (shown, value) = known
                .remove(name)
                .map_or((name, None), |(shown, value)| (shown, Some(value)));
            let below = spot.key(shown, node);
            let required = spot.node.requires(name);
            let decoded = match value {
                None if required => {
                    self.faults.add(|| {
                        below.fault("required, but missing".into(), "nothing".into(), None)
                    });
                    None
                }
                Some(Value::Null) if required => {
                    self.refuse(&below, &Value::Null, format_args!("required, but null"))
                }
                Some(value) if required || !is_absent(&value) => self.value(&below, value),
                _ => None,
            };
            if let Some(value) = decoded {
                out.insert(name.to_owned(), value);
            }
        }
        out.extend(other);
        Some(Value::Object(out))
    }

    fn unknown(&mut self, spot: &Spot<'_, 's>, name: &str, value: &Value) {
        let (root, synonyms) = (self.root, self.synonyms);
        self.faults.add(|| ArgFault {
            code: ErrorCode::InvalidArgument,
            path: Path::Key(&spot.path, name).to_string(),
            problem: "unknown argument".to_owned(),
            suggestion: suggestion(root, spot.node, synonyms, name),
            expected: format!(
                "one of {}",
                spot.node.names().collect::<Vec<_>>().join(", ")
            ),
            // It may be a private value under a misspelt name.
            got: echo::describe(value),
            example: None,
        });
    }

    /// Lists given for a string that is marked `x-argv` go to the sibling that the mark names, but
    /// keep their path.
    fn redirect_argv(
        &mut self,
        spot: &Spot<'_, 's>,
        known: &mut HashMap<&'s str, (&'s str, Value)>,
    ) {
        for (name, node) in spot.node.properties() {
            let Some(target) = node.text(mark::ARGV) else {
                continue;
            };
            if !matches!(known.get(name), Some((_, Value::Array(_)))) {
                continue;
            }
            let Some(moved) = known.remove(name) else {
                continue;
            };
            if known
                .get(target)
                .is_some_and(|(_, value)| !is_absent(value))
            {
                let problem =
                    format_args!("a list here stands for {target}, which is given as well");
                self.refuse::<()>(&spot.key(name, node), &moved.1, problem);
            } else {
                known.insert(target, moved);
            }
        }
    }

    fn list(&mut self, spot: &Spot<'_, 's>, value: Value) -> Option<Value> {
        let takes_map = spot.node.flag(mark::KEY_VALUE) || spot.node.flag(mark::PATH_MAP);
        let of_strings = spot.node.items().and_then(Node::kind) == Some(Kind::String);
        let value = match value {
            Value::String(text) => match parse(&text) {
                Ok(list @ Value::Array(_)) => list,
                Ok(map @ Value::Object(_)) if takes_map => map,
                _ if of_strings && !text.is_empty() => Value::Array(vec![Value::String(text)]),
                Ok(other) => other,
                Err(why) => {
                    return self.refuse(
                        spot,
                        &Value::String(text),
                        format_args!("not a list, {why}"),
                    );
                }
            },
            other => other,
        };
        let length = match &value {
            Value::Array(items) => items.len(),
            Value::Object(map) if takes_map => map.len(),
            other => return self.refuse(spot, other, format_args!("not a list")),
        };
        if !self.fits(
            spot,
            &value,
            length as u64,
            ["minItems", "maxItems"],
            "items",
        ) {
            return None;
        }
        let item = spot.node.items()?;
        let items: Vec<Value> = match value {
            Value::Array(items) => (items.into_iter().enumerate())
                .filter_map(|(index, value)| self.value(&spot.index(index, item), value))
                .collect(),
            Value::Object(map) if spot.node.flag(mark::KEY_VALUE) => (map.into_iter())
                .filter_map(|(key, value)| self.key_value(&spot.key(&key, item), &key, value))
                .collect(),
            Value::Object(map) => (map.into_iter())
                .filter_map(|(key, text)| {
                    let file = [
                        ("path".to_owned(), Value::String(key.clone())),
                        ("text".to_owned(), text),
                    ];
                    self.value(
                        &spot.key(&key, item),
                        Value::Object(file.into_iter().collect()),
                    )
                })
                .collect(),
            _ => return None,
        };
        Some(Value::Array(items))
    }

    fn key_value(&mut self, spot: &Spot<'_, 's>, key: &str, value: Value) -> Option<Value> {
        if key.is_empty() || key.contains('=') {
            return self.refuse(
                spot,
                &value,
                format_args!("a key that is empty or contains ="),
            );
        }
        let pair = match &value {
            Value::String(text) => format!("{key}={text}"),
            Value::Number(_) | Value::Bool(_) => format!("{key}={value}"),
            _ => {
                return self.refuse(
                    spot,
                    &value,
                    format_args!("not a string, number or boolean"),
                );
            }
        };
        self.string(spot, Value::String(pair))
    }
}

/// The argument that an unknown name most likely stands for: the same but for case and separators,
/// a synonym that exists, the nearest.
fn suggestion(root: Node<'_>, here: Node<'_>, table: Synonyms<'_>, name: &str) -> Option<String> {
    let exists = |target: &&str| {
        let from = if target.contains('.') { root } else { here };
        target.split('.').try_fold(from, Node::property).is_some()
    };
    suggest::same(name, here.names())
        .or_else(|| suggest::synonyms(name, table).find(exists))
        .or_else(|| suggest::nearest(name, here.names()))
        .map(str::to_owned)
}

//! An independent check of the rules that keep a schema acceptable to every host. It shares no
//! code with the generator, and lists what is allowed rather than what is not.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::node::{Kind, escape};

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON pointer (RFC 6901) to the node.
    pub pointer: String,
    pub rule: String,
}

impl Violation {
    pub(super) fn new(pointer: &str, rule: impl Into<String>) -> Self {
        Self {
            pointer: pointer.to_owned(),
            rule: rule.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.pointer, self.rule)
    }
}

/// Checks a published schema. Whether objects must all be closed or all be open is taken from the
/// root.
pub fn check_rules(schema: &Value) -> Vec<Violation> {
    let closed = schema.get("additionalProperties").is_some();
    check(schema, closed)
}

/// Checks the published schema of arguments: as [`check_rules`], and every object is closed.
pub fn check_input_rules(schema: &Value) -> Vec<Violation> {
    check(schema, true)
}

fn check(schema: &Value, closed: bool) -> Vec<Violation> {
    let mut checker = Checker {
        closed,
        found: Vec::new(),
    };
    if schema.get("type") != Some(&Value::from("object")) {
        checker
            .found
            .push(Violation::new("", "the root is not an object"));
    }
    checker.node("", schema);
    checker.found
}

struct Checker {
    closed: bool,
    found: Vec<Violation>,
}

impl Checker {
    fn flag(&mut self, pointer: &str, rule: impl Into<String>) {
        self.found.push(Violation::new(pointer, rule));
    }

    fn node(&mut self, pointer: &str, value: &Value) {
        let Some(node) = value.as_object() else {
            return self.flag(pointer, "a schema is an object");
        };
        let kind = node
            .get("type")
            .and_then(Value::as_str)
            .and_then(Kind::parse);
        if kind.is_none() {
            self.flag(
                pointer,
                "`type` is one of object, array, string, integer, number, boolean",
            );
        }
        for (keyword, value) in node {
            self.keyword(pointer, kind, keyword, value);
        }
        match kind {
            Some(Kind::Object) => self.object(pointer, node),
            Some(Kind::Array) if !node.contains_key("items") => {
                self.flag(pointer, "an array has `items`")
            }
            _ => {}
        }
        // Below nodes of the wrong type, too: all violations at once.
        if let Some(properties) = node.get("properties").and_then(Value::as_object) {
            for (name, below) in properties {
                self.node(&format!("{pointer}/properties/{}", escape(name)), below);
            }
        }
        if let Some(items) = node.get("items") {
            self.node(&format!("{pointer}/items"), items);
        }
    }

    fn keyword(&mut self, pointer: &str, kind: Option<Kind>, keyword: &str, value: &Value) {
        let fits = match keyword {
            "type" | "examples" => true,
            "description" => value.as_str().is_some_and(is_normal),
            "default" => kind.is_some_and(|kind| is_of(value, kind)),
            "properties" => kind == Some(Kind::Object) && value.is_object(),
            "required" => kind == Some(Kind::Object) && value.is_array(),
            "additionalProperties" => kind == Some(Kind::Object) && value == &Value::Bool(false),
            "items" => kind == Some(Kind::Array),
            "minItems" | "maxItems" => kind == Some(Kind::Array) && value.is_u64(),
            "enum" => kind == Some(Kind::String) && is_choice(value),
            "minLength" | "maxLength" => kind == Some(Kind::String) && value.is_u64(),
            "pattern" => {
                kind == Some(Kind::String)
                    && value.as_str().is_some_and(|p| regex::Regex::new(p).is_ok())
            }
            "format" => kind == Some(Kind::String) && value.is_string(),
            "minimum" | "maximum" => {
                matches!(kind, Some(k @ (Kind::Integer | Kind::Number)) if is_of(value, k))
            }
            _ => false,
        };
        if !fits {
            self.flag(
                pointer,
                format!("`{keyword}` is not allowed here, or not with this value"),
            );
        }
    }

    fn object(&mut self, pointer: &str, node: &Map<String, Value>) {
        let properties = node.get("properties").and_then(Value::as_object);
        if properties.is_none() {
            self.flag(pointer, "an object has `properties`");
        }
        if node.contains_key("additionalProperties") != self.closed {
            let rule = if self.closed {
                "`additionalProperties` is false"
            } else {
                "objects stay open"
            };
            self.flag(pointer, rule);
        }
        let required = node
            .get("required")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        for (index, name) in required.iter().enumerate() {
            let declared = name
                .as_str()
                .is_some_and(|n| properties.is_some_and(|p| p.contains_key(n)));
            if !declared || required.iter().take(index).any(|n| n == name) {
                self.flag(
                    pointer,
                    format!("`required` names {name}, which is no property or named twice"),
                );
            }
        }
    }
}

fn is_normal(text: &str) -> bool {
    !text.is_empty() && text == text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_choice(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|v| !v.is_empty() && v.iter().all(Value::is_string))
}

fn is_of(value: &Value, kind: Kind) -> bool {
    match kind {
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Integer => value.is_i64() || value.is_u64(),
        Kind::Number => value.is_number(),
        Kind::Boolean => value.is_boolean(),
    }
}

//! The form of a tool's arguments that OpenAI's strict function calling takes.
//!
//! Every property is required there, so what may be left out may be `null` instead, which the decoder takes for
//! absent; and only a few keywords are known (developers.openai.com, "Structured model outputs", "Supported
//! schemas"). The others only narrow what is taken: the decoder enforces them.

use serde_json::{Map, Value, json};

/// What is known there, and stands here.
const KNOWN: [&str; 6] = [
    "type",
    "description",
    "properties",
    "items",
    "enum",
    "additionalProperties",
];

/// A published schema in that form.
pub fn strict(schema: &Map<String, Value>) -> Map<String, Value> {
    let mut out: Map<String, Value> = KNOWN
        .iter()
        .filter_map(|keyword| Some(((*keyword).to_owned(), schema.get(*keyword)?.clone())))
        .collect();
    if let Some(Value::Object(item)) = schema.get("items") {
        out.insert("items".into(), strict(item).into());
    }
    if let Some(Value::Object(all)) = schema.get("properties") {
        let needed = schema.get("required").and_then(Value::as_array);
        let is_needed = |name: &str| needed.is_some_and(|names| names.iter().any(|n| n == name));
        let properties: Map<String, Value> = (all.iter())
            .filter_map(|(name, node)| {
                let mut node = strict(node.as_object()?);
                if !is_needed(name) {
                    allow_null(&mut node);
                }
                Some((name.clone(), node.into()))
            })
            .collect();
        let names: Vec<&String> = properties.keys().collect();
        out.insert("required".into(), json!(names));
        out.insert("properties".into(), properties.into());
    }
    out
}

fn allow_null(node: &mut Map<String, Value>) {
    if let Some(kind) = node.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    if let Some(Value::Array(values)) = node.get_mut("enum") {
        values.push(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_left_out_may_be_null() {
        let schema = json!({
            "type": "object",
            "properties": {
                "id": {"type": "string", "minLength": 1, "examples": ["x"]},
                "state": {"type": "string", "enum": ["on"], "default": "on"},
                "list": {"type": "array", "maxItems": 3, "items": {
                    "type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "additionalProperties": false,
                }},
            },
            "required": ["id"],
            "additionalProperties": false,
        });
        let want = json!({
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "state": {"type": ["string", "null"], "enum": ["on", null]},
                "list": {"type": ["array", "null"], "items": {
                    "type": "object", "properties": {"n": {"type": ["integer", "null"]}}, "additionalProperties": false,
                    "required": ["n"],
                }},
            },
            "additionalProperties": false,
            "required": ["id", "state", "list"],
        });
        assert_eq!(Value::Object(strict(schema.as_object().unwrap())), want);
    }
}

//! Rust type → schema that every host takes.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// The order of a node's keywords; others follow as they come.
const ORDER: [&str; 16] = [
    "type",
    "description",
    "properties",
    "required",
    "items",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "examples",
    "additionalProperties",
];

/// The schema of a tool's arguments, marks included: closed objects, only what must be given is
/// required.
///
/// What has no form within the rules (maps, tagged unions, recursion, `serde_json::Value`) is left
/// as it is, for [`super::check_rules`] to find. schemars writes a `default` only for field types
/// that are `Serialize`, and puts variants without a comment first.
pub fn tool_schema<T: JsonSchema>() -> Map<String, Value> {
    generate::<T>(SchemaSettings::draft2020_12().for_deserialize(), true)
}

/// The schema of a tool's result: open objects. An `Option` is never required, so give it
/// `skip_serializing_if`: there is no `null`.
pub fn output_schema<T: JsonSchema>() -> Map<String, Value> {
    generate::<T>(SchemaSettings::draft2020_12().for_serialize(), false)
}

/// The schema without the marks, as callers get it.
pub fn published(schema: &Map<String, Value>) -> Map<String, Value> {
    let kept = schema
        .iter()
        .filter(|(keyword, _)| !keyword.starts_with("x-"));
    kept.map(|(keyword, value)| {
        let value = match (keyword.as_str(), value) {
            ("items", Value::Object(item)) => Value::Object(published(item)),
            ("properties", Value::Object(all)) => all
                .iter()
                .map(|(name, node)| {
                    (
                        name.clone(),
                        node.as_object()
                            .map_or_else(|| node.clone(), |n| published(n).into()),
                    )
                })
                .collect::<Map<_, _>>()
                .into(),
            _ => value.clone(),
        };
        (keyword.clone(), value)
    })
    .collect()
}

fn generate<T: JsonSchema>(settings: SchemaSettings, closed: bool) -> Map<String, Value> {
    let settings = settings
        .with(|s| {
            s.inline_subschemas = true;
            s.meta_schema = None;
        })
        .with_transform(Plain { closed });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    std::mem::take(schema.ensure_object())
}

/// Rewrites what schemars emits into the few keywords that every host takes.
#[derive(Debug, Clone)]
struct Plain {
    closed: bool,
}

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(node) = schema.as_object_mut() {
            require_only_non_null(node);
            drop_null(node);
        }
        transform_subschemas(self, schema);
        if let Some(node) = schema.as_object_mut() {
            fold_named_variants(node);
            self.tidy(node);
            sort_keywords(node);
        }
    }
}

impl Plain {
    fn tidy(&self, node: &mut Map<String, Value>) {
        for keyword in ["title", "$schema"] {
            node.shift_remove(keyword);
        }
        if let Some(constant) = node.shift_remove("const") {
            node.insert("enum".into(), json!([constant]));
        }
        if let Some(Value::String(text)) = node.shift_remove("description") {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if !text.is_empty() {
                node.insert("description".into(), text.into());
            }
        }
        if let Some(mut default) = node.shift_remove("default").filter(|d| !d.is_null()) {
            strip_nulls(&mut default);
            node.insert("default".into(), default);
        }
        match node.get("type").and_then(Value::as_str) {
            Some("integer" | "number") => self.bound_number(node),
            Some("object") => self.close(node),
            _ => {}
        }
    }

    /// `format` goes; for arguments the range it stood for stays where schemars gives none.
    fn bound_number(&self, node: &mut Map<String, Value>) {
        let format = node.shift_remove("format");
        let (low, high) = match format.as_ref().and_then(Value::as_str) {
            Some("uint32") => (u32::MIN.into(), u32::MAX.into()),
            Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
            _ => return,
        };
        if self.closed {
            node.entry("minimum").or_insert(low.into());
            node.entry("maximum").or_insert(high.into());
        }
    }

    /// A schema in `additionalProperties` is a map, which stays for the checker to find.
    fn close(&self, node: &mut Map<String, Value>) {
        for keyword in ["additionalProperties", "unevaluatedProperties"] {
            if node.get(keyword) == Some(&Value::Bool(false)) {
                node.shift_remove(keyword);
            }
        }
        if node.contains_key("additionalProperties") {
            return;
        }
        node.entry("properties").or_insert_with(|| json!({}));
        if self.closed {
            node.insert("additionalProperties".into(), false.into());
        }
    }
}

/// A property that may be null is one that may be left out.
fn require_only_non_null(node: &mut Map<String, Value>) {
    let nullable: Vec<String> = match node.get("properties").and_then(Value::as_object) {
        Some(all) => all
            .iter()
            .filter(|(_, p)| may_be_null(p))
            .map(|(name, _)| name.clone())
            .collect(),
        None => return,
    };
    if let Some(Value::Array(required)) = node.get_mut("required") {
        required.retain(|name| !nullable.iter().any(|n| name == n));
        if required.is_empty() {
            node.shift_remove("required");
        }
    }
}

fn may_be_null(node: &Value) -> bool {
    let lists_null = |keyword: &str, null: &Value| {
        let list = node.get(keyword).and_then(Value::as_array);
        list.is_some_and(|list| list.contains(null))
    };
    lists_null("type", &json!("null")) || lists_null("anyOf", &null_schema())
}

fn null_schema() -> Value {
    json!({"type": "null"})
}

/// `Option<T>` → `T`. What the field says (its description) goes before what the type says.
fn drop_null(node: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            node.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = node.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    if let Some(Value::Array(branches)) = node.get_mut("anyOf") {
        branches.retain(|b| b != &null_schema());
        if let [Value::Object(only)] = branches.as_mut_slice() {
            let only = std::mem::take(only);
            node.shift_remove("anyOf");
            for (keyword, value) in only {
                node.entry(keyword).or_insert(value);
            }
        }
    }
}

/// A unit enum whose variants have doc comments comes as `oneOf`: one `enum`, and the comments in
/// the description.
fn fold_named_variants(node: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = node.get("oneOf") else {
        return;
    };
    let mut names = Vec::new();
    let mut told = Vec::new();
    for branch in branches {
        let Some(values) = branch.get("enum").and_then(Value::as_array) else {
            return;
        };
        if let (Some(text), [Value::String(name)]) = (
            branch.get("description").and_then(Value::as_str),
            values.as_slice(),
        ) {
            told.push(format!("`{name}`: {}", text.trim_end_matches('.')));
        }
        names.extend(values.iter().cloned());
    }
    if !names.iter().all(Value::is_string) {
        return;
    }
    node.shift_remove("oneOf");
    node.insert("type".into(), "string".into());
    node.insert("enum".into(), names.into());
    if !told.is_empty() {
        let own = node
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let text = format!("{own} {}.", told.join("; "));
        node.insert("description".into(), text.into());
    }
}

/// Inside a default, too, absent stands for null.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn sort_keywords(node: &mut Map<String, Value>) {
    let mut rest = std::mem::take(node);
    for keyword in ORDER {
        if let Some(value) = rest.shift_remove(keyword) {
            node.insert(keyword.into(), value);
        }
    }
    node.extend(rest);
}

//! The JSON Schema of the configuration file, from the types that hold it.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;

/// What begins the name of each variable.
pub const VARIABLES: &str = "NOMAD_BUILD_";

/// The schema: every node has one `type`, nothing is referred to.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(generate);
    &SCHEMA
}

fn generate() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value();
    simplify(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "Configuration of nomad-build".into());
    }
    // These depend on the machine; their descriptions say how.
    for pointer in [
        "/properties/state_dir",
        "/properties/local/properties/slots",
    ] {
        if let Some(Value::Object(node)) = schema.pointer_mut(pointer) {
            node.shift_remove("default");
        }
    }
    schema
}

/// Leaves one type where a value may also be absent, which TOML cannot write, and the words of a choice in one list.
fn simplify(node: &mut Value) {
    let Value::Object(map) = node else {
        return;
    };
    map.shift_remove("format");
    if map
        .get("default")
        .is_some_and(|default| default.is_null() || default.is_object())
    {
        map.shift_remove("default");
    }
    if let Some(Value::Array(types)) = map.get("type")
        && let Some(only) = types.iter().find(|one| *one != "null").cloned()
    {
        map.insert("type".into(), only);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = map.shift_remove(key) {
            choose(map, choices);
        }
    }
    if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let properties = map.get_mut("properties").and_then(Value::as_object_mut);
    let properties = properties.into_iter().flat_map(Map::values_mut);
    properties.for_each(simplify);
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(simplify);
    }
}

fn choose(map: &mut Map<String, Value>, choices: Vec<Value>) {
    let words: Vec<Value> = (choices.iter())
        .filter_map(|choice| choice.get("const").cloned())
        .collect();
    if !words.is_empty() {
        map.insert("type".into(), "string".into());
        map.insert("enum".into(), words.into());
        return;
    }
    let mut others = choices
        .into_iter()
        .filter(|choice| choice["type"] != "null");
    let mut other = others.next().unwrap_or_default();
    simplify(&mut other);
    if let Value::Object(other) = other {
        for (key, value) in other {
            map.entry(key).or_insert(value);
        }
    }
}

/// The schema of what a key stands for, and of any key below a name of the operator's choosing; `None` where there
/// is no such key.
pub fn node<'a>(path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(schema(), |node, name| child(node, name))
}

/// What is below a table.
pub fn child<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    let fixed = node.get("properties").and_then(|all| all.get(name));
    fixed.or_else(|| {
        node.get("additionalProperties")
            .filter(|inner| inner.is_object())
    })
}

/// The keys that a table may have; none where the operator chooses them.
pub fn names(node: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = node.get("properties").and_then(Value::as_object);
    all.into_iter()
        .flatten()
        .map(|(name, inner)| (name.as_str(), inner))
}

/// Every key with a fixed name that holds a value, a list, or what the operator names.
pub fn leaves() -> Vec<Vec<String>> {
    fn walk(path: &[String], node: &Value, found: &mut Vec<Vec<String>>) {
        for (name, inner) in names(node) {
            let path = [path, &[name.to_owned()]].concat();
            match names(inner).next() {
                Some(_) => walk(&path, inner, found),
                None => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&[], schema(), &mut found);
    found
}

/// The variable that sets a key.
pub fn variable(path: &[String]) -> String {
    format!("{VARIABLES}{}", path.join("_").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn each(node: &Value, see: &mut impl FnMut(&Value)) {
        see(node);
        for (_, inner) in names(node) {
            each(inner, see);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = node.get(key).filter(|inner| inner.is_object()) {
                each(inner, see);
            }
        }
    }

    #[test]
    fn every_node_has_one_type_and_says_what_it_is() {
        let mut count = 0;
        each(schema(), &mut |node| {
            count += 1;
            assert!(node["type"].is_string(), "{node:#}");
            for key in ["$ref", "anyOf", "oneOf", "allOf", "format"] {
                assert!(node.get(key).is_none(), "{node:#}");
            }
            for (name, inner) in names(node) {
                assert!(inner["description"].is_string(), "{name}");
            }
        });
        assert!(count > 80, "{count}");
    }

    #[test]
    fn each_key_has_a_variable_of_its_own() {
        let leaves = leaves();
        let variables: BTreeSet<String> = leaves.iter().map(|path| variable(path)).collect();
        assert_eq!(variables.len(), leaves.len());
        for name in [
            "NOMAD_BUILD_STATE_DIR",
            "NOMAD_BUILD_LIMITS_MEMORY_MB",
            "NOMAD_BUILD_HTTP_TLS_KEY",
        ] {
            assert!(variables.contains(name), "{name}: {variables:?}");
        }
        // That one is for the file itself.
        assert!(!variables.contains("NOMAD_BUILD_CONFIG"));
    }

    #[test]
    fn keys_of_the_operators_choosing_lead_further() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            node(&path("profiles.large.memory_mb")).unwrap()["type"],
            "integer"
        );
        assert_eq!(
            node(&path("profiles.large.network")).unwrap()["enum"],
            json!(["egress", "none", "host"])
        );
        assert!(node(&path("limits.large")).is_none());
    }
}

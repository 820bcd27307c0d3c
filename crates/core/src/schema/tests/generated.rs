//! The generated schemas and their independent checker.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

#[test]
fn the_whole_schema_of_a_tool() {
    let schema = Value::Object(published(&status()));
    let expected = json!({
        "type": "object",
        "properties": {
            "build_id": {"type": "string"},
            "until": {
                "type": "string",
                "description": "When to answer. `finished`: The build has ended; `started`: It runs.",
                "enum": ["change", "finished", "started"]
            },
            "state": {
                "type": "array",
                "items": {"type": "string", "enum": ["queued", "running", "failed"]},
                "default": []
            }
        },
        "additionalProperties": false
    });
    assert_eq!(
        schema.to_string(),
        expected.to_string(),
        "the order of keys counts, too"
    );
}

#[test]
fn attributes_survive_and_marks_do_not() {
    let schema = build();
    let args = schema["properties"]["build_args"].as_object().unwrap();
    assert_eq!(args["x-private"], true);
    let public = Value::Object(published(&schema));
    let at = |pointer: &str| public.pointer(pointer).cloned().unwrap();
    assert_eq!(at("/description"), "Builds an image.");
    assert_eq!(
        at("/properties/source/description"),
        "Where the source comes from."
    );
    assert_eq!(
        at("/properties/build_args"),
        json!({"type": "array", "description": "Build arguments, `KEY=VALUE`.",
            "items": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*="},
            "default": [], "maxItems": 8})
    );
    assert_eq!(
        at("/properties/timeout"),
        json!({"type": "integer", "description": "Seconds.", "default": 3600, "minimum": 1, "maximum": 86400})
    );
    assert_eq!(
        at("/properties/retries"),
        json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
    );
    assert_eq!(at("/properties/tests/items/required"), json!(["name"]));
    assert_eq!(
        at("/properties/tests/items/properties/timeout").get("default"),
        None
    );
    assert!(!public.to_string().contains("x-"));
}

#[test]
fn published_keeps_arguments_whose_name_looks_like_a_mark() {
    let schema = json!({"type": "object", "x-a": 1, "properties": {"x-b": {"type": "string", "x-c": 1,
        "default": "x-d"}}});
    let expected =
        json!({"type": "object", "properties": {"x-b": {"type": "string", "default": "x-d"}}});
    assert_eq!(
        Value::Object(published(schema.as_object().unwrap())),
        expected
    );
}

#[test]
fn generated_schemas_keep_the_rules_and_are_valid() {
    for schema in [build(), status(), tool_schema::<KillArgs>()] {
        assert_eq!(mark::check_marks(&schema), []);
        let public = Value::Object(published(&schema));
        assert_eq!(check_input_rules(&public), []);
        assert_eq!(check_rules(&public), []);
        assert!(jsonschema::meta::is_valid(&public));
    }
    let output = Value::Object(output_schema::<Status>());
    assert_eq!(check_rules(&output), []);
    assert!(!check_input_rules(&output).is_empty());
    assert_eq!(
        output,
        json!({"type": "object", "properties": {
            "build_id": {"type": "string"},
            "size": {"type": "integer", "minimum": 0},
            "exit_code": {"type": "integer"},
            "inner": {"type": "object", "properties": {"seconds": {"type": "number"}}, "required": ["seconds"]}},
            "required": ["build_id", "size"]})
    );
}

#[test]
fn a_closed_rust_type_is_open_in_output_and_empty_ones_have_properties() {
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Empty {}
    assert_eq!(
        json!(output_schema::<Empty>()),
        json!({"type": "object", "properties": {}})
    );
    let closed = json!({"type": "object", "properties": {}, "additionalProperties": false});
    assert_eq!(json!(tool_schema::<Empty>()), closed);
}

#[test]
fn an_option_that_is_written_as_null_is_still_not_required() {
    #[derive(Serialize, JsonSchema)]
    struct Out {
        a: Option<u8>,
        b: Option<Nested>,
        c: u8,
    }
    #[derive(Serialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[expect(dead_code)]
    enum Nested {
        /// With a comment.
        One,
    }
    let schema = json!(output_schema::<Out>());
    assert_eq!(schema["required"], json!(["c"]));
    let one = json!({"type": "string", "description": "`one`: With a comment.", "enum": ["one"]});
    assert_eq!(schema["properties"]["b"], one);
    assert_eq!(check_rules(&schema), []);
}

#[test]
fn defaults_hold_no_null() {
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Inner {
        x: u8,
        y: Option<u8>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Outer {
        #[serde(default)]
        inner: Inner,
    }
    let schema = json!(tool_schema::<Outer>());
    assert_eq!(schema["properties"]["inner"]["default"], json!({"x": 0}));
}

#[test]
fn types_without_a_form_are_found_by_the_checker() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code)]
    enum Either {
        A(String),
        B(u8),
    }
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Bad {
        map: BTreeMap<String, String>,
        any: Value,
        either: Either,
        pair: (u8, u8),
        set: std::collections::BTreeSet<String>,
        again: Option<Box<Bad>>,
    }
    let found = check_rules(&Value::Object(published(&tool_schema::<Bad>())));
    for name in ["map", "any", "either", "pair", "set"] {
        let pointer = format!("/properties/{name}");
        assert!(
            found.iter().any(|v| v.pointer == pointer),
            "{name} in {found:?}"
        );
    }
    assert!(
        found
            .iter()
            .any(|v| v.pointer.starts_with("/properties/again")),
        "{found:?}"
    );
}

#[test]
fn each_broken_rule_is_found_where_it_is() {
    let table = [
        (json!({"type": ["string", "null"]}), ""),
        (json!({"type": "null"}), ""),
        (json!({}), ""),
        (json!(true), ""),
        (json!({"type": "array"}), ""),
        (json!({"type": "array", "items": {}}), "/items"),
        (
            json!({"type": "array", "items": [{"type": "string"}]}),
            "/items",
        ),
        (json!({"type": "object", "additionalProperties": false}), ""),
        (json!({"type": "object", "properties": {}}), ""),
        (
            json!({"type": "object", "properties": {}, "additionalProperties": true}),
            "",
        ),
        (
            json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}),
            "",
        ),
        (
            json!({"type": "object", "properties": {}, "additionalProperties": false, "patternProperties": {}}),
            "",
        ),
        (
            json!({"type": "object", "properties": {"a/b~": {}}, "additionalProperties": false}),
            "/properties/a~1b~0",
        ),
        (
            json!({"type": "object", "properties": {}, "additionalProperties": false, "required": ["a"]}),
            "",
        ),
        (json!({"type": "string", "oneOf": []}), ""),
        (json!({"type": "string", "anyOf": []}), ""),
        (json!({"type": "string", "allOf": []}), ""),
        (json!({"type": "string", "$ref": "#"}), ""),
        (json!({"type": "string", "$defs": {}}), ""),
        (json!({"type": "string", "const": "a"}), ""),
        (json!({"type": "string", "enum": ["a", null]}), ""),
        (json!({"type": "string", "enum": []}), ""),
        (json!({"type": "string", "title": "T"}), ""),
        (json!({"type": "string", "x-private": true}), ""),
        (json!({"type": "string", "default": null}), ""),
        (json!({"type": "string", "pattern": "("}), ""),
        (json!({"type": "string", "description": "a\nb"}), ""),
        (json!({"type": "string", "minimum": 1}), ""),
        (json!({"type": "integer", "format": "uint64"}), ""),
        (json!({"type": "integer", "minimum": 0.5}), ""),
        (json!({"type": "integer", "default": "1"}), ""),
    ];
    for (node, below) in table {
        let schema =
            json!({"type": "object", "properties": {"p": node}, "additionalProperties": false});
        let found = check_rules(&schema);
        let pointer = format!("/properties/p{below}");
        assert!(
            found.iter().any(|v| v.pointer == pointer),
            "{schema}: {found:?}"
        );
    }
    assert!(
        !check_rules(&json!({"type": "string"})).is_empty(),
        "the root is an object"
    );
}

#[test]
fn marks_without_effect_are_found() {
    for property in [
        json!({"type": "string", "x-privat": true}),
        json!({"type": "string", "x-private": 1}),
        json!({"type": "string", "x-key-value": true}),
        json!({"type": "array", "items": {"type": "integer"}, "x-key-value": true}),
        json!({"type": "array", "items": {"type": "string"}, "x-path-map": true}),
        json!({"type": "integer", "x-clamp": true}),
        json!({"type": "string", "x-argv": "nowhere"}),
        json!({"type": "string", "x-argv": "p"}),
    ] {
        let schema = json!({"type": "object", "properties": {"p": property}});
        let found = mark::check_marks(schema.as_object().unwrap());
        assert_eq!(found.len(), 1, "{schema}");
        assert_eq!(found[0].pointer, "/properties/p");
    }
}

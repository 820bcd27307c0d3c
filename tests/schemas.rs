//! `schemas/` is what the program generates, and keeps the rules that let every host take it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use nomad_build::build::request::MAX_WAIT;
use nomad_build::cli::schema::Format;
use nomad_build::config::reference;
use nomad_build::mcp::guide;
use nomad_build::mcp::tools::{SYNONYMS, definitions};
use nomad_build::schema::{check_input_rules, check_rules, decode, mark};
use serde_json::{Value, json};

#[test]
fn the_committed_schemas_are_the_generated_ones() {
    for definition in definitions(MAX_WAIT) {
        let path = format!(
            "{}/schemas/{}.json",
            env!("CARGO_MANIFEST_DIR"),
            definition.tool.name
        );
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = format!(
            "{}\n",
            serde_json::to_string_pretty(&definition.tool).unwrap()
        );
        assert!(
            committed == generated,
            "{path} is out of date: run `nomad-build schema --out schemas`"
        );
    }
}

#[test]
fn the_documents_of_the_configuration_are_the_generated_ones() {
    let schema = format!("{:#}\n", reference::json_schema());
    for (path, command, generated) in [
        ("docs/nomad-build.toml", "reference", reference::reference()),
        ("schemas/config.json", "schema", schema),
    ] {
        let root = env!("CARGO_MANIFEST_DIR");
        let committed = std::fs::read_to_string(format!("{root}/{path}")).unwrap_or_default();
        assert!(
            committed == generated,
            "{path} is out of date: run `nomad-build config {command} > {path}`"
        );
    }
    if let Err(error) = jsonschema::draft202012::meta::validate(&reference::json_schema()) {
        panic!("{error}");
    }
}

#[test]
fn they_are_valid_under_json_schema_2020_12_and_keep_the_rules() {
    for definition in definitions(MAX_WAIT) {
        let tool = &definition.tool;
        let input = Value::Object((*tool.input_schema).clone());
        let output = Value::Object((**tool.output_schema.as_ref().unwrap()).clone());
        for (which, schema) in [("input", &input), ("output", &output)] {
            if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
                panic!("{} {which}: {error}", tool.name);
            }
            assert_eq!(check_rules(schema), [], "{} {which}", tool.name);
        }
        assert_eq!(check_input_rules(&input), [], "{}", tool.name);
        assert_eq!(mark::check_marks(&definition.decoder), [], "{}", tool.name);
    }
}

#[test]
fn the_strict_form_has_only_what_openai_takes_and_asks_for_the_same() {
    fn check(node: &Value, at: &str) {
        let node = node.as_object().unwrap();
        for keyword in node.keys() {
            let known = [
                "type",
                "description",
                "properties",
                "required",
                "items",
                "enum",
                "additionalProperties",
            ];
            assert!(known.contains(&keyword.as_str()), "{at}: {keyword}");
        }
        if let Some(all) = node.get("properties").and_then(Value::as_object) {
            assert_eq!(node["additionalProperties"], false, "{at}");
            let names: Vec<_> = all.keys().cloned().collect();
            assert_eq!(node["required"], json!(names), "{at}");
            for (name, node) in all {
                check(node, &format!("{at}.{name}"));
            }
        }
        if let Some(item) = node.get("items") {
            check(item, &format!("{at}[]"));
        }
    }
    for definition in definitions(MAX_WAIT) {
        let tool = &definition.tool;
        let declared = Format::Openai.declare(tool).unwrap();
        let parameters = &declared["function"]["parameters"];
        assert_eq!(declared["function"]["strict"], true);
        check(parameters, &tool.name);
        // Null for everything that may be null is the same as nothing.
        let needed = tool.input_schema.get("required").cloned();
        let needed: Vec<String> =
            needed.map_or_else(Vec::new, |names| serde_json::from_value(names).unwrap());
        let names = parameters["properties"].as_object().unwrap().keys();
        let given = names.map(|name| match needed.contains(name) {
            true => (name.clone(), "b7k2m-9xqdt".into()),
            false => (name.clone(), Value::Null),
        });
        let given = Value::Object(given.collect());
        assert!(jsonschema::draft202012::is_valid(parameters, &given));
        let decoded = decode(&definition.decoder, given, SYNONYMS).unwrap();
        assert_eq!(decoded.value.as_object().unwrap().len(), needed.len());
        let anthropic = Format::Anthropic.declare(tool).unwrap();
        assert_eq!(
            anthropic["input_schema"],
            Value::Object((*tool.input_schema).clone())
        );
    }
}

#[test]
fn hosts_do_not_cut_what_an_agent_must_know() {
    assert!(
        guide::INSTRUCTIONS.len() < 2048,
        "{}",
        guide::INSTRUCTIONS.len()
    );
    for definition in definitions(MAX_WAIT) {
        let tool = definition.tool;
        assert!(tool.description.unwrap().len() < 2048, "{}", tool.name);
        let annotations = tool.annotations.unwrap();
        assert_eq!(
            annotations.read_only_hint,
            Some(matches!(&*tool.name, "status" | "logs"))
        );
        assert!(annotations.destructive_hint.is_some() && annotations.idempotent_hint.is_some());
    }
}

#[test]
fn every_default_stands_in_the_description_too() {
    fn look(path: &str, node: &Value, missing: &mut Vec<String>) {
        if let Some(default) = node.get("default") {
            let text = node["description"]
                .as_str()
                .unwrap_or_default()
                .to_lowercase();
            let word = default
                .as_str()
                .map_or_else(|| default.to_string(), str::to_owned);
            if !text.contains(&word) {
                missing.push(format!("{path}: {word}"));
            }
        }
        for (name, child) in node
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            look(&format!("{path}.{name}"), child, missing);
        }
        if let Some(items) = node.get("items") {
            look(&format!("{path}[]"), items, missing);
        }
    }
    let mut missing = Vec::new();
    for definition in definitions(MAX_WAIT) {
        look(
            &definition.tool.name,
            &Value::Object((*definition.tool.input_schema).clone()),
            &mut missing,
        );
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// What agents of many hosts really send, and what becomes of it.
#[test]
fn the_decoder_takes_what_agents_send() {
    let build = &definitions(MAX_WAIT)[0].decoder;
    let sent = json!({
        "source": "{\"files\": {\"Containerfile\": \"FROM scratch\"}}",
        "build_args": {"A": 1, "B": "x"},
        "tags": "r.example.com/x:1",
        "tests": [{"command": ["make", "check"], "timeout": "40"}],
        "wait": 300, "name": "", "target": null, "no_cache": "true",
    });
    let decoded = decode(build, sent, SYNONYMS).unwrap();
    assert_eq!(
        decoded.value,
        json!({
            "source": {"files": [{"path": "Containerfile", "text": "FROM scratch"}]},
            "build_args": ["A=1", "B=x"],
            "tags": ["r.example.com/x:1"],
            "tests": [{"argv": ["make", "check"], "timeout": 40}],
            "wait": 50, "no_cache": true,
        })
    );
    assert_eq!(decoded.notes.len(), 1);
    for (sent, suggestion) in [
        (json!({"dockerfile": "x"}), "containerfile"),
        (json!({"buildArgs": []}), "build_args"),
        (json!({"repo": "x"}), "source.git"),
        (json!({"image": "x"}), "tags"),
    ] {
        let faults = decode(build, sent, SYNONYMS).unwrap_err();
        assert_eq!(faults.listed[0].suggestion.as_deref(), Some(suggestion));
    }
}

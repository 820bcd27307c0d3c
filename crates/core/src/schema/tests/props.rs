//! Properties that hold for any input.

use std::sync::LazyLock;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Schemas with everything the decoder knows, each with the validator of what is published.
static TOOLS: LazyLock<Vec<(Map<String, Value>, jsonschema::Validator)>> = LazyLock::new(|| {
    [
        build(),
        status(),
        tool_schema::<KillArgs>(),
        output_schema::<Status>(),
    ]
    .map(|s| {
        (
            s.clone(),
            jsonschema::validator_for(&published(&s).into()).unwrap(),
        )
    })
    .into()
});

fn names() -> impl Strategy<Value = String> {
    let known = vec![
        "source",
        "git",
        "ref",
        "files",
        "path",
        "text",
        "executable",
        "containerfile",
        "build_args",
        "tags",
        "tests",
        "name",
        "command",
        "argv",
        "env",
        "timeout",
        "stage",
        "no_cache",
        "wait",
        "ratio",
        "until",
        "state",
        "build_id",
        "reason",
        "retries",
        "size",
        "exit_code",
        "inner",
        "seconds",
    ];
    prop_oneof![9 => proptest::sample::select(known).prop_map(str::to_owned), 1 => any::<String>()]
}

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-5_i64..100).prop_map(Value::from),
        (-5_i64..100).prop_map(|n| json!(n as f64)),
        (-5_i64..100).prop_map(|n| json!(n.to_string())),
        any::<String>().prop_map(Value::from),
        "[A-Z]=[a-z]{0,3}".prop_map(Value::from),
        proptest::sample::select(vec![
            "", "true", "false", "[]", "{}", "1e2", "40.0", "finished", "failed", "unit"
        ])
        .prop_map(Value::from),
    ]
}

/// JSON that often comes near to the tools' arguments, some of it wrapped in strings.
fn values() -> impl Strategy<Value = Value> {
    scalars().prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(names(), inner.clone(), 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
            inner.prop_map(|v| Value::String(v.to_string())),
        ]
    })
}

/// A value of the kind that the node declares, more often than not.
fn near(schema: &Value) -> BoxedStrategy<Value> {
    let aimed = match schema["type"].as_str() {
        Some("object") => {
            let properties = schema["properties"].as_object().unwrap();
            let parts: Vec<_> = properties
                .iter()
                .map(|(name, node)| {
                    let required = schema["required"]
                        .as_array()
                        .is_some_and(|r| r.contains(&json!(name)));
                    let given = if required { 0.95 } else { 0.3 };
                    let name = name.clone();
                    proptest::option::weighted(given, near(node))
                        .prop_map(move |v| v.map(|v| (name.clone(), v)))
                })
                .collect();
            parts
                .prop_map(|parts| Value::Object(parts.into_iter().flatten().collect()))
                .boxed()
        }
        Some("array") => vec(near(&schema["items"]), 0..4)
            .prop_map(Value::from)
            .boxed(),
        Some("string") if schema.get("enum").is_none() => {
            "[A-Z]=[a-z]{0,3}|[a-z]{1,9}".prop_map(Value::from).boxed()
        }
        Some("string") => {
            proptest::sample::select(schema["enum"].as_array().unwrap().clone()).boxed()
        }
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        _ => (0_i64..60).prop_map(Value::from).boxed(),
    };
    let aimed = prop_oneof![12 => aimed, 1 => scalars()];
    let aimed =
        prop_oneof![12 => aimed.clone(), 1 => aimed.prop_map(|v| Value::String(v.to_string()))];
    prop_oneof![40 => aimed, 1 => values()].boxed()
}

fn holds(raw: &Value) -> Result<(), TestCaseError> {
    for (schema, validator) in TOOLS.iter() {
        match decode(schema, raw.clone(), SYNONYMS) {
            Ok(decoded) => {
                prop_assert!(
                    validator.is_valid(&decoded.value),
                    "{} → {}",
                    raw,
                    decoded.value
                );
                let again = decode(schema, decoded.value.clone(), SYNONYMS);
                prop_assert_eq!(
                    again,
                    Ok(Decoded {
                        value: decoded.value,
                        notes: Vec::new()
                    })
                );
            }
            Err(faults) => {
                prop_assert!(!faults.listed.is_empty());
                for line in faults.to_string().lines() {
                    let known = [
                        "error[invalid_argument] ",
                        "expected: ",
                        "got: ",
                        "example: ",
                        "and ",
                    ];
                    prop_assert!(known.iter().any(|k| line.starts_with(k)), "{}", line);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_json(raw in values()) {
        holds(&raw)?;
    }

    #[test]
    fn json_near_the_arguments(raw in near(&Value::Object(build()))) {
        holds(&raw)?;
    }

    /// What is valid already is taken as it is, but for what counts as absent and whole floats.
    #[test]
    fn valid_arguments_are_taken(raw in near(&Value::Object(build()))) {
        let (schema, validator) = &TOOLS[0];
        if validator.is_valid(&raw) {
            prop_assert!(decode(schema, raw.clone(), SYNONYMS).is_ok(), "{}", raw);
        }
    }

    #[test]
    fn nearest_never_panics_and_finds_what_is_there(word in any::<String>(), names in vec("[a-z_]{1,12}", 1..9)) {
        let all = || names.iter().map(String::as_str);
        let found = suggest::nearest(&word, all());
        prop_assert!(found.is_none_or(|f| names.iter().any(|n| n == f)));
        if names[0].chars().any(|c| c != '_') {
            prop_assert!(suggest::nearest(&names[0], all()).is_some());
        }
    }
}

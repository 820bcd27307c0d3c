//! Each leniency, and the neighbours that are none.

use serde_json::json;

use super::*;

#[test]
fn the_whole_may_be_missing_or_a_string() {
    for raw in [
        json!(null),
        json!(""),
        json!({}),
        json!("{}"),
        json!(" {} "),
    ] {
        assert_eq!(accept::<BuildArgs>(raw).value, json!({}));
    }
    assert_eq!(
        accept::<BuildArgs>(json!(r#"{"wait": "5"}"#)).value,
        json!({"wait": 5})
    );
    for raw in [
        json!([]),
        json!(1),
        json!("null"),
        json!("[]"),
        json!("{"),
        json!("wait=1"),
        json!([{}]),
    ] {
        let faults = refuse(&build(), raw.clone());
        assert_eq!(faults.listed.len(), 1, "{raw}");
        assert_eq!(faults.listed[0].path, "arguments");
    }
}

#[test]
fn leniencies() {
    let files = json!([{"path": "a.c", "text": "int x;"}, {"path": "b", "text": ""}]);
    let table = [
        // optional, null or empty: absent
        (
            json!({"wait": null, "tags": null, "source": null, "no_cache": null}),
            json!({}),
        ),
        (
            json!({"wait": "", "tags": "", "source": "", "no_cache": "", "containerfile": ""}),
            json!({}),
        ),
        (
            json!({"tests": [{"name": "t", "stage": "", "argv": null}]}),
            json!({"tests": [{"name": "t"}]}),
        ),
        // objects and lists as JSON text
        (
            json!({"source": r#"{"git": "u", "ref": ""}"#}),
            json!({"source": {"git": "u"}}),
        ),
        (
            json!({"tags": r#"["a", "b"]"#}),
            json!({"tags": ["a", "b"]}),
        ),
        (
            json!({"tests": r#"[{"name": "t", "timeout": "9"}]"#}),
            json!({"tests": [{"name": "t", "timeout": 9}]}),
        ),
        (
            json!({"tests": [r#"{"name": "t"}"#]}),
            json!({"tests": [{"name": "t"}]}),
        ),
        // numbers
        (json!({"timeout": "40"}), json!({"timeout": 40})),
        (json!({"timeout": "40.0"}), json!({"timeout": 40})),
        (json!({"timeout": 40.0}), json!({"timeout": 40})),
        (json!({"timeout": "4e1"}), json!({"timeout": 40})),
        (json!({"ratio": "0.5"}), json!({"ratio": 0.5})),
        (json!({"ratio": 3}), json!({"ratio": 3})),
        (json!({"wait": -0.0}), json!({"wait": 0})),
        // booleans
        (json!({"no_cache": "true"}), json!({"no_cache": true})),
        (json!({"no_cache": "false"}), json!({"no_cache": false})),
        // one string for a list of strings
        (json!({"tags": "host/a:1"}), json!({"tags": ["host/a:1"]})),
        (json!({"tags": "a,b c"}), json!({"tags": ["a,b c"]})),
        (json!({"tags": "[not json"}), json!({"tags": ["[not json"]})),
        (
            json!({"tags": r#"{"a": 1}"#}),
            json!({"tags": [r#"{"a": 1}"#]}),
        ),
        (
            json!({"build_args": "A=1 2"}),
            json!({"build_args": ["A=1 2"]}),
        ),
        // maps for KEY=VALUE
        (
            json!({"build_args": {"Z": "1=2", "A": 2, "B": true, "C": 1.5, "E": ""}}),
            json!({"build_args": ["Z=1=2", "A=2", "B=true", "C=1.5", "E="]}),
        ),
        (
            json!({"build_args": r#"{"A": "x"}"#}),
            json!({"build_args": ["A=x"]}),
        ),
        (json!({"build_args": {}}), json!({"build_args": []})),
        // maps for files
        (
            json!({"source": {"files": {"a.c": "int x;", "b": ""}}}),
            json!({"source": {"files": files}}),
        ),
        // a list for a command
        (
            json!({"tests": [{"name": "t", "command": ["sh", "-c", "x"], "argv": ""}]}),
            json!({"tests": [{"name": "t", "argv": ["sh", "-c", "x"]}]}),
        ),
    ];
    for (raw, expected) in table {
        let decoded = accept::<BuildArgs>(raw.clone());
        assert_eq!(decoded.value, expected, "{raw}");
        assert_eq!(decoded.notes, [], "{raw}");
    }
}

#[test]
fn strict_values_pass_untouched_in_the_order_of_the_schema() {
    let raw = json!({
        "no_cache": true, "timeout": 1, "tests": [{"stage": "s", "name": "t", "command": "[\"a\"]", "env": ["A=1"]}],
        "source": {"files": [{"executable": true, "text": "{}", "path": "p"}]}});
    let decoded = accept::<BuildArgs>(raw.clone());
    assert_eq!(decoded.value, raw);
    let names: Vec<_> = decoded.value.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["source", "tests", "timeout", "no_cache"]);
    let states = json!({"until": "change", "state": "failed"});
    assert_eq!(
        accept::<StatusArgs>(states).value,
        json!({"until": "change", "state": ["failed"]})
    );
}

#[test]
fn lengths_count_characters() {
    accept::<BuildArgs>(json!({"containerfile": "ä".repeat(256)}));
    refuse(&build(), json!({"containerfile": "ä".repeat(257)}));
}

#[test]
fn non_leniencies() {
    let table = [
        (json!({"no_cache": "yes"}), "no_cache"),
        (json!({"no_cache": "True"}), "no_cache"),
        (json!({"no_cache": 1}), "no_cache"),
        (json!({"no_cache": [true]}), "no_cache"),
        (json!({"timeout": 1.5}), "timeout"),
        (json!({"timeout": "1.5"}), "timeout"),
        (json!({"timeout": "40s"}), "timeout"),
        (json!({"timeout": " 40"}), "timeout"),
        (json!({"timeout": "+40"}), "timeout"),
        (json!({"timeout": "0x10"}), "timeout"),
        (json!({"timeout": "1_000"}), "timeout"),
        (json!({"timeout": "NaN"}), "timeout"),
        (json!({"timeout": "9".repeat(400)}), "timeout"),
        (json!({"timeout": true}), "timeout"),
        (json!({"timeout": [40]}), "timeout"),
        (json!({"timeout": 0}), "timeout"),
        (json!({"timeout": 86_401}), "timeout"),
        (json!({"timeout": 1e300}), "timeout"),
        (json!({"wait": -1}), "wait"),
        (json!({"retries": u64::MAX}), "retries"),
        (json!({"ratio": "half"}), "ratio"),
        (json!({"containerfile": ["Containerfile"]}), "containerfile"),
        (json!({"containerfile": 5}), "containerfile"),
        (json!({"containerfile": {"a": 1}}), "containerfile"),
        (json!({"containerfile": "x".repeat(257)}), "containerfile"),
        (json!({"tags": {"a": "b"}}), "tags"),
        (json!({"tags": 5}), "tags"),
        (json!({"tags": ["a", 5]}), "tags[1]"),
        (json!({"tags": ["a", null]}), "tags[1]"),
        (json!({"tags": [["a"]]}), "tags[0]"),
        (json!({"build_args": {"A": null}}), "build_args.A"),
        (json!({"build_args": {"A": ["x"]}}), "build_args.A"),
        (json!({"build_args": {"A=B": "x"}}), r#"build_args["A=B"]"#),
        (json!({"build_args": {"": "x"}}), r#"build_args[""]"#),
        (json!({"build_args": {"1A": "x"}}), "build_args.1A"),
        (json!({"build_args": ["A"]}), "build_args[0]"),
        (json!({"build_args": vec!["A=1"; 9]}), "build_args"),
        (json!({"build_args": [{"A": "1"}]}), "build_args[0]"),
        (json!({"source": "https://example.org/a.git"}), "source"),
        (json!({"source": ["git"]}), "source"),
        (json!({"source": "[]"}), "source"),
        (
            json!({"source": {"files": {"a": 1}}}),
            "source.files.a.text",
        ),
        (
            json!({"source": {"files": {"a": {"text": ""}}}}),
            "source.files.a.text",
        ),
        (
            json!({"source": {"files": {"a": null}}}),
            "source.files.a.text",
        ),
        (json!({"source": {"files": "a.c"}}), "source.files"),
        (
            json!({"source": {"files": [{"path": "a"}]}}),
            "source.files[0].text",
        ),
        (
            json!({"source": {"files": {"a": "", "b": "", "c": "", "d": "", "e": ""}}}),
            "source.files",
        ),
        (json!({"tests": {"name": "t"}}), "tests"),
        (json!({"tests": "unit"}), "tests"),
        (json!({"tests": [{}]}), "tests[0].name"),
        (json!({"tests": [{"name": null}]}), "tests[0].name"),
        (json!({"tests": [{"name": ""}]}), "tests[0].name"),
        (json!({"tests": [{"name": "a b"}]}), "tests[0].name"),
        (
            json!({"tests": [{"name": "t", "command": ["a"], "argv": ["b"]}]}),
            "tests[0].command",
        ),
        (
            json!({"tests": [{"name": "t", "command": []}]}),
            "tests[0].command",
        ),
        (
            json!({"tests": [{"name": "t", "command": ["a", 1]}]}),
            "tests[0].command[1]",
        ),
        (
            json!({"tests": [{"name": "t", "command": {"a": 1}}]}),
            "tests[0].command",
        ),
        (
            json!({"tests": [{"name": "t", "argv": [] }]}),
            "tests[0].argv",
        ),
        (json!({"tests": [null]}), "tests[0]"),
        (
            json!({"tests": [{"name": "t", "Name": "t"}]}),
            "tests[0].Name",
        ),
        (json!({"frobnicate": null}), "frobnicate"),
    ];
    for (raw, path) in table {
        let faults = refuse(&build(), raw.clone());
        let paths: Vec<_> = faults.listed.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, [path], "{raw}");
        assert_eq!(faults.more, 0);
    }
}

#[test]
fn a_required_argument_is_never_dropped() {
    let kill = tool_schema::<KillArgs>();
    for raw in [json!(null), json!({}), json!({"build_id": null})] {
        assert_eq!(refuse(&kill, raw).listed[0].path, "build_id");
    }
    // An empty string is a string; whether it is a good id is for others to say.
    let empty = json!({"build_id": ""});
    assert_eq!(accept::<KillArgs>(empty.clone()).value, empty);
    let list = json!({"type": "object", "required": ["l"],
        "properties": {"l": {"type": "array", "items": {"type": "string"}}}});
    assert_eq!(
        refuse(list.as_object().unwrap(), json!({"l": ""})).listed[0].path,
        "l"
    );
}

#[test]
fn values_marked_for_it_are_cut_and_reported() {
    for (given, from) in [
        (json!(120), "120"),
        (json!("120"), "120"),
        (json!(1e300), "1e+300"),
        (json!(50.5e1), "505.0"),
    ] {
        let decoded = accept::<BuildArgs>(json!({"wait": given}));
        assert_eq!(decoded.value, json!({"wait": 50}));
        assert_eq!(decoded.notes.len(), 1);
        let expected = format!("wait: {from} is above the maximum, 50 is used");
        assert_eq!(decoded.notes[0].to_string(), expected);
    }
    assert_eq!(accept::<BuildArgs>(json!({"wait": 50})).notes, []);
    assert_eq!(
        refuse(&build(), json!({"wait": 50.5})).listed[0].problem,
        "not a whole number"
    );
}

#[test]
fn integers_stay_exact_everywhere() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let schema = schema.as_object().unwrap();
    let limit = 9_007_199_254_740_991_i64;
    for good in [limit, -limit] {
        assert!(decode(schema, json!({"n": good}), &[]).is_ok());
    }
    for bad in [
        json!(limit + 1),
        json!(-limit - 1),
        json!(u64::MAX),
        json!(1e18),
        json!("-1e400"),
    ] {
        assert_eq!(refuse(schema, json!({"n": bad})).listed[0].path, "n");
    }
    let wide =
        json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": u64::MAX}}});
    refuse(wide.as_object().unwrap(), json!({"n": u64::MAX}));
}

#[test]
fn an_open_object_keeps_what_it_does_not_know() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let decoded = decode(
        schema.as_object().unwrap(),
        json!({"x": null, "n": "1"}),
        &[],
    )
    .unwrap();
    assert_eq!(decoded.value, json!({"x": null, "n": 1}));
}

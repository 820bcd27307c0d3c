//! What a refused caller reads: all faults, names that were meant, nothing private, nothing unbounded.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

#[test]
fn all_faults_at_once() {
    let raw = json!({"timeout": "soon", "tests": [{"name": "a b"}, {"stage": 1}], "buildArgs": {}, "no_cache": 2});
    let faults = refuse(&build(), raw);
    let paths: Vec<_> = faults.listed.iter().map(|f| f.path.as_str()).collect();
    let expected = [
        "buildArgs",
        "tests[0].name",
        "tests[1].name",
        "tests[1].stage",
        "timeout",
        "no_cache",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn the_text_of_faults() {
    let raw = json!({"tests": [{"name": "a b", "timeot": 5}], "timeout": 0});
    let expected = "\
error[invalid_argument] tests[0].timeot: unknown argument; did you mean timeout?
expected: one of name, command, argv, env, timeout, stage
got: number
error[invalid_argument] tests[0].name: not of the required form
expected: string, 1 to 64 characters, matching ^[A-Za-z0-9._-]+$
got: \"a b\"
example: \"unit\"
error[invalid_argument] timeout: below the minimum of 1
expected: integer, 1 to 86400
got: 0";
    assert_eq!(refuse(&build(), raw).to_string(), expected);
}

#[test]
fn suggestions() {
    let build = build();
    for (raw, expected) in [
        (json!({"buildArgs": {}}), Some("build_args")),
        (json!({"No-Cache": true}), Some("no_cache")),
        (json!({"dockerfile": "x"}), Some("containerfile")),
        (json!({"DockerFile": "x"}), Some("containerfile")),
        (json!({"image": "x"}), Some("tags")),
        (json!({"tag": "x"}), Some("tags")),
        (json!({"repo": "x"}), Some("source.git")),
        (json!({"source": {"url": "x"}}), Some("source.git")),
        (json!({"source": {"image": "x"}}), None),
        (json!({"id": "x"}), None),
        (json!({"frobnicate": "x"}), None),
    ] {
        let faults = refuse(&build, raw.clone());
        assert_eq!(faults.listed[0].suggestion.as_deref(), expected, "{raw}");
    }
    for (raw, expected) in [
        (json!({"id": "x"}), Some("build_id")),
        (json!({"until": "finish"}), Some("finished")),
        (json!({"until": "Started"}), Some("started")),
        (json!({"state": ["runing"]}), Some("running")),
        (json!({"state": "never"}), None),
    ] {
        let faults = refuse(&status(), raw.clone());
        assert_eq!(faults.listed[0].suggestion.as_deref(), expected, "{raw}");
    }
}

#[test]
fn expected_is_told_in_words() {
    for (raw, expected) in [
        (json!({"until": 1}), "one of change, finished, started"),
        (
            json!({"state": 1}),
            "list of strings, each one of queued, running, failed",
        ),
    ] {
        assert_eq!(refuse(&status(), raw).listed[0].expected, expected);
    }
    for (raw, expected) in [
        (json!({"source": 1}), "object with git, ref, files"),
        (
            json!({"build_args": 1}),
            "list of KEY=VALUE strings, at most 8 items",
        ),
        (json!({"tests": 1}), "list of objects"),
        (json!({"no_cache": 2}), "true or false"),
        (json!({"ratio": "x"}), "number"),
    ] {
        assert_eq!(refuse(&build(), raw).listed[0].expected, expected);
    }
    let faults = refuse(&build(), json!({"source": 1}));
    assert_eq!(
        faults.listed[0].example.as_deref(),
        Some(r#"{"git":"https://example.org/a.git"}"#)
    );
}

#[test]
fn private_values_are_never_shown() {
    const SECRET: &str = "hunter2";
    let pair = format!("TOKEN={SECRET}");
    for raw in [
        json!({"build_args": [SECRET]}),
        json!({"build_args": SECRET}),
        json!({"build_args": {"1": SECRET}}),
        json!({"build_args": {"A": [SECRET]}}),
        json!({"build_args": [[SECRET]]}),
        json!({"build_args": vec![SECRET; 9]}),
        json!({"build_args": {"=": SECRET}}),
        json!({"build_argss": [pair]}),
        json!({"environment": {"TOKEN": SECRET}}),
        json!({"source": {"build_args": [pair]}}),
        json!({"tests": {"env": {"TOKEN": SECRET}}}),
        json!({"tests": format!("[{{\"env\": \"{pair}\"")}),
        json!({"tests": [[pair]]}),
        json!({"tests": [{"name": "t", "env": {"TOKEN": {"a": SECRET}}}]}),
        json!({"tests": [{"name": "t", "env": 0, "envs": SECRET}]}),
        json!(format!("{{\"build_args\": \"{pair}\",,}}")),
        json!([{"build_args": [pair]}]),
    ] {
        let faults = refuse(&build(), raw.clone());
        assert!(!faults.to_string().contains(SECRET), "{raw}\n{faults}");
        assert!(
            !serde_json::to_string(&faults).unwrap().contains(SECRET),
            "{raw}"
        );
    }
    let faults = refuse(&build(), json!({"build_args": [SECRET]}));
    assert_eq!(faults.listed[0].got, "string of 7 characters");
}

#[test]
fn echoed_input_cannot_mislead() {
    let raw = json!({"a\nerror[internal] x\u{202e}": 1, "no_cache": "\u{202e}\u{200b}\ny\u{2028}", "ratio": "\u{7}"});
    let text = refuse(&build(), raw).to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines.iter().filter(|l| l.starts_with("error[")).count(),
        3,
        "{text}"
    );
    assert_eq!(lines.len(), 9, "{text}");
    for bad in ['\u{202e}', '\u{200b}', '\u{2028}', '\u{7}'] {
        assert!(!text.contains(bad), "{bad:?}");
    }
}

#[test]
fn faults_are_listed_up_to_a_bound() {
    let tags: Vec<_> = (0..25).collect();
    let faults = refuse(&build(), json!({"tags": tags}));
    assert_eq!((faults.listed.len(), faults.more), (MAX_FAULTS, 5));
    assert!(faults.to_string().ends_with("\nand 5 more"));
    let exactly: Vec<_> = (0..MAX_FAULTS).collect();
    assert!(
        !refuse(&build(), json!({"tags": exactly}))
            .to_string()
            .contains("more")
    );
}

#[test]
fn depth_and_json_text_are_bounded() {
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let text = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let open = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "object",
        "properties": {}}}}});
    let open = open.as_object().unwrap();
    assert!(decode(open, json!({"x": nested(MAX_DEPTH - 1)}), &[]).is_ok());
    assert_eq!(
        refuse(open, json!({"x": nested(MAX_DEPTH)})).listed[0].path,
        "arguments"
    );
    assert_eq!(
        refuse(open, nested(1_000)).listed[0].problem,
        "nested deeper than 64"
    );
    let deep = refuse(open, json!({"l": text(MAX_DEPTH + 1)}));
    assert_eq!(
        deep.listed[0].problem,
        "not a list, and as JSON nested deeper than 64"
    );
    assert!(
        refuse(open, json!({"l": text(100_000)})).listed[0]
            .problem
            .contains("does not parse")
    );
    let padded = |length: usize| json!({"l": format!("[{}]", " ".repeat(length - 2))});
    assert!(decode(open, padded(MAX_JSON_TEXT), &[]).is_ok());
    let long = refuse(open, padded(MAX_JSON_TEXT + 1));
    assert_eq!(
        long.listed[0].problem,
        "not a list, and as JSON too long: 1048577 bytes, at most 1048576"
    );
}

#[test]
fn huge_input_is_refused_quickly_and_briefly() {
    const HUGE: usize = 10_000_000;
    let text = "ä".repeat(HUGE / 2);
    let many: Map<String, Value> = (0..200_000)
        .map(|i| (format!("timeou{i}"), json!(i)))
        .collect();
    for raw in [
        json!({"containerfile": text}),
        json!({"no_cache": text}),
        json!({"timeout": "9".repeat(HUGE)}),
        json!({"timeout": text}),
        json!({"source": format!("{{{text}")}),
        json!({"source": format!("[{}1]", "1,".repeat(HUGE / 2))}),
        json!({"source": {"files": {text.as_str(): ""}, "git": 1}}),
        json!({text.as_str(): text}),
        json!({"tags": vec![0; HUGE / 10]}),
        json!({"build_args": vec!["A=1"; HUGE / 10]}),
        json!({"tests": [{"name": text}]}),
        json!({"tests": vec![json!({}); HUGE / 100]}),
        Value::Object(many),
        json!(text),
    ] {
        let start = Instant::now();
        let faults = refuse_quietly(raw);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?} {faults}",
            start.elapsed()
        );
        assert!(faults.to_string().len() < 20_000);
        assert!(
            faults
                .listed
                .iter()
                .all(|f| f.got.chars().count() <= 80 && f.path.chars().count() < 100)
        );
    }
}

fn refuse_quietly(raw: Value) -> Faults {
    decode(&build(), raw, SYNONYMS).unwrap_err()
}

use super::super::Keyword;
use super::{FaultKind, fault, parse};
use crate::build::classify::{PathOrText, classify_path_or_text};

/// What Buildah prints after `STEP n/m: ` for every step, trimmed, and the lines it is from.
fn check(text: &str, printed: &[(&str, u32, u32)]) {
    let file = parse(text);
    let steps: Vec<(&str, u32, u32)> = file
        .stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .map(|step| (step.text.as_str(), step.line, step.end_line))
        .collect();
    assert_eq!(steps, printed);
}

#[test]
fn global_args_are_no_steps_and_comments_do_not_end_a_continuation() {
    check(
        "ARG X=1\nFROM scratch\nENV A=1\nenv  B=2   \n# c\nCOPY  a   \\\n  # in\n\n   b /x/\n",
        &[
            ("FROM scratch", 2, 2),
            ("ENV A=1", 3, 3),
            ("env  B=2", 4, 4),
            ("COPY  a      b /x/", 6, 9),
        ],
    );
}

#[test]
fn indentation_of_continuations_is_kept_and_hash_lines_dropped() {
    check(
        "   # c\n  FROM scratch\n\t\n  ENV A=1 \\\n   # in\n\t\tB=2 \\   \n\n    C=3\n  COPY a \\\n#b\nb /x/\n",
        &[
            ("FROM scratch", 2, 2),
            ("ENV A=1 \t\tB=2     C=3", 4, 8),
            ("COPY a b /x/", 9, 11),
        ],
    );
}

#[test]
fn backtick_as_escape() {
    let text = "# escape=`\nFROM scratch\nENV A=1 `\n B=\\ \nCOPY a `\n  b /x\\\nENV C=2\n";
    check(
        text,
        &[
            ("FROM scratch", 2, 2),
            ("ENV A=1  B=\\", 3, 4),
            ("COPY a   b /x\\", 5, 6),
            ("ENV C=2", 7, 7),
        ],
    );
    assert_eq!(parse(text).escape, '`');
}

#[test]
fn escape_line_after_a_syntax_line_is_a_comment() {
    let text = "# syntax=docker/dockerfile:1\n# escape=`\nFROM scratch\nENV A=1 `\n";
    let (line, kind, message) = fault(text);
    assert_eq!((line, kind), (4, FaultKind::Syntax));
    assert!(message.contains("no `=` in ``"), "{message}");
}

#[test]
fn double_escape_at_line_end_continues_too() {
    check(
        "FROM scratch\nENV A=#x B=y\\\\\nC=z\\\n D=w\n",
        &[("FROM scratch", 1, 1), ("ENV A=#x B=y\\C=z D=w", 2, 4)],
    );
}

#[test]
fn a_line_of_only_a_continuation_starts_an_instruction() {
    check(
        "FROM scratch\n\\\nENV A=1 \\\n\n",
        &[("FROM scratch", 1, 1), ("ENV A=1", 2, 4)],
    );
}

#[test]
fn byte_order_mark_and_crlf() {
    check(
        "\u{feff}FROM scratch\r\nENV A=1 \\\r\n B=2\r\nCOPY a /\r\n",
        &[
            ("FROM scratch", 1, 1),
            ("ENV A=1  B=2", 2, 3),
            ("COPY a /", 4, 4),
        ],
    );
}

#[test]
fn from_is_printed_in_a_form_of_its_own() {
    check(
        "from   scratch  as x\nFrom --platform=linux/amd64 x As 7\nenV a=b\n",
        &[
            ("FROM scratch AS x", 1, 1),
            ("FROM --platform=linux/amd64 x", 2, 2),
            ("enV a=b", 3, 3),
        ],
    );
}

#[test]
fn blanks_other_than_spaces_separate_too() {
    let file = parse("FROM scratch\nENV\tA=1\nENV\u{b}B=2\nENV A\tb c\n");
    let steps = &file.stages[0].steps;
    assert_eq!(steps[2].text, "ENV\u{b}B=2");
    assert_eq!(steps[2].args, ["B", "2"]);
    assert_eq!(steps[3].args, ["A", "b c"]);
}

#[test]
fn arguments_flags_and_the_message_of_errors() {
    let file = parse(concat!(
        "FROM scratch\n",
        "CMD   [\"a\",   \"b\"] trailing\n",
        "LABEL  \"a b\"=c  d=e\\ f\n",
        "HEALTHCHECK --interval=5s   CMD foo  bar\n",
        "ONBUILD COPY --chown=1   a b\n",
        "COPY --from=\"x y\" --chown=0:0 -- a  b /c\n",
        "RUN --mount=type=tmpfs,target=/t  a   b\n",
        "ONBUILD   RUN  x  y\n",
    ));
    let steps = &file.stages[0].steps;
    let messages: Vec<&str> = steps.iter().map(|step| step.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "FROM scratch",
            "CMD a b",
            "LABEL \"a b\" c d e\\ f",
            "HEALTHCHECK --interval=5s CMD foo  bar",
            "ONBUILD copy --chown=1 a b",
            "COPY --from=x y --chown=0:0 a b /c",
            "RUN --mount=type=tmpfs,target=/t a   b",
            "ONBUILD run x  y",
        ]
    );
    assert!(steps[1].json);
    assert_eq!(steps[1].args, ["a", "b"]);
    assert_eq!(steps[2].args, ["\"a b\"", "c", "d", "e\\ f"]);
    assert_eq!(steps[3].args, ["CMD", "foo  bar"]);
    assert_eq!(steps[4].args, ["copy", "a", "b"]);
    assert_eq!(steps[5].flags, ["--from=x y", "--chown=0:0"]);
    assert_eq!(steps[5].args, ["a", "b", "/c"]);
    assert_eq!(steps[6].keyword, Keyword::Run);
    assert_eq!(steps[6].number, 7);
}

#[test]
fn heredocs_take_lines_up_to_their_end() {
    let file = parse(concat!(
        "FROM scratch\n",
        "COPY <<EOF <<E2 /d/\n  first\nsecond\nEOF\n\tE2\nE2\n",
        "ENV A=1\n",
        "COPY <<-X /one\n\tX\n",
        "COPY <<X /one\nsingle \n\nX\n",
        "RUN cat << EOF\nRUN x\nEOF\n",
        "ONBUILD RUN <<'a b'\nfoo\na b\n",
        "ENV B=<<EOF\n",
        "RUN [\"<<EOF\"]\n",
        "RUN cat <<<x; echo $((1<<2)) \"<<EOF\" a<<EOF\n",
    ));
    assert!(file.uses_heredocs);
    let steps: Vec<_> = file.stages[0].steps[1..]
        .iter()
        .map(|step| (step.line, step.end_line, step.heredocs.as_slice()))
        .collect();
    let lines: Vec<_> = steps.iter().map(|step| (step.0, step.1)).collect();
    assert_eq!(
        lines,
        [
            (2, 7),
            (8, 8),
            (9, 10),
            (11, 14),
            (15, 17),
            (18, 20),
            (21, 21),
            (22, 22),
            (23, 23)
        ]
    );
    let summaries: Vec<Vec<(&str, &str)>> = steps
        .iter()
        .map(|step| {
            let docs = step.2.iter();
            docs.map(|doc| (doc.name.as_str(), doc.summary.as_str()))
                .collect()
        })
        .collect();
    assert_eq!(summaries[0], [("EOF", "first..."), ("E2", "E2")]);
    assert_eq!(summaries[2], [("X", "")]);
    assert_eq!(summaries[3], [("X", "single")]);
    assert_eq!(summaries[4], [("EOF", "RUN x")]);
    assert_eq!(summaries[5], [("a b", "foo")]);
    assert!(summaries[6..].iter().all(Vec::is_empty));
    assert!(!parse("FROM scratch\nRUN cat <<<x\n").uses_heredocs);
}

#[test]
fn stages_and_global_args() {
    let file = parse(concat!(
        "ARG A=1 B\nARG C=\"x $A\"\n",
        "FROM --platform=$BUILDPLATFORM a AS Build\nARG D\n",
        "FROM b\n",
    ));
    let globals: Vec<_> = file
        .args
        .iter()
        .map(|arg| (arg.name.as_str(), arg.default.as_deref(), arg.line))
        .collect();
    assert_eq!(
        globals,
        [
            ("A", Some("1"), 1),
            ("B", None, 1),
            ("C", Some("\"x $A\""), 2)
        ]
    );
    let [build, last] = file.stages.as_slice() else {
        panic!("not two stages")
    };
    assert_eq!((build.line, build.base.as_str()), (3, "a"));
    assert_eq!(build.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!(
        (build.selector(), last.selector()),
        ("Build".into(), "1".into())
    );
    assert_eq!(last.steps[0].number, 1);
}

#[test]
fn what_is_accepted_and_likely_a_mistake_is_a_warning() {
    let text = format!("FROM a AS x\nFROM b AS x\nENV A={}\n", "y".repeat(70_000));
    let warnings: Vec<_> = parse(&text)
        .warnings
        .iter()
        .map(|w| (w.line, w.kind))
        .collect();
    assert_eq!(
        warnings,
        [(2, FaultKind::DuplicateStageName), (3, FaultKind::LongLine)]
    );
}

#[test]
fn secrets_of_all_stages() {
    let file = parse(concat!(
        "FROM a\n",
        "RUN --mount=type=secret,id=x,required=true --mount=type=secret,id=y cmd\n",
        "RUN --mount=type=secret,id=z,required cmd\n",
        "RUN --mount=type=cache,id=c,target=/c --mount=type=secret,target=/no cmd\n",
        "FROM b\n",
        "RUN --mount=id=x,type=secret,required=false \\\n cmd\n",
        "COPY --chown=type=secret,id=w a b\n",
    ));
    let uses = file.secret_ids();
    let uses: Vec<_> = uses
        .iter()
        .map(|used| (used.id.as_str(), used.stage, used.line, used.required))
        .collect();
    assert_eq!(
        uses,
        [
            ("x", 0, 2, true),
            ("y", 0, 2, false),
            ("z", 0, 3, true),
            ("x", 1, 6, false)
        ]
    );
}

#[test]
fn paths_and_texts() {
    for path in [
        "Containerfile",
        "a b/Dockerfile.from",
        "FROM",
        "from/x",
        "x\n",
        "",
    ] {
        assert_eq!(classify_path_or_text(path), PathOrText::Path, "{path:?}");
    }
    for text in [
        "FROM x",
        " from\tx",
        "# c\nARG X\nFROM $X",
        "FROM x\\nRUN y",
        "a\r\nb",
    ] {
        assert_eq!(classify_path_or_text(text), PathOrText::Text, "{text:?}");
    }
}

//! Files made to exhaust time, memory or the stack. Each must end, soon, with an answer.

use super::super::{MAX_BYTES, MAX_FAULTS, MAX_INSTRUCTIONS};
use super::{Containerfile, FaultKind, args, faults, parse};

#[test]
fn limits() {
    let text = format!("FROM a\n{}", "#".repeat(MAX_BYTES));
    assert_eq!(faults(&text)[0].kind, FaultKind::TooLarge);
    let text = format!("FROM a\n{}", "RUN x\n".repeat(MAX_INSTRUCTIONS));
    let found = faults(&text);
    assert_eq!(
        (found[0].kind, found[0].line),
        (FaultKind::TooLarge, 10_001)
    );
    parse(&format!(
        "FROM a\n{}",
        "RUN x\n".repeat(MAX_INSTRUCTIONS - 1)
    ));
    assert_eq!(faults(&"x\n".repeat(MAX_INSTRUCTIONS)).len(), MAX_FAULTS);
    let found = faults(&format!("FROM a\n{}", "x".repeat(MAX_BYTES - 20)));
    assert!(found[0].message.len() < 300);
}

#[test]
fn values_made_of_values() {
    let mut text = "ARG A0=xxxxxxxxxx\n".to_owned();
    for i in 1..40 {
        let p = i - 1;
        text += &format!("ARG A{i}=$A{p}$A{p}$A{p}$A{p}$A{p}$A{p}$A{p}$A{p}\n");
    }
    let found = parse(&format!("{text}FROM a:$A39\n"))
        .images(&[], None)
        .unwrap_err();
    assert!(found[0].message.contains("too large"), "{}", found[0]);
    // Within a stage, what cannot be known is left out.
    let text = format!(
        "FROM a\n{}RUN --mount=from=$A39,target=/x y\n",
        text.replace("ARG", "ENV")
    );
    assert_eq!(parse(&text).images(&[], None).unwrap().len(), 1);
}

#[test]
fn patterns_that_backtrack() {
    let text = format!(
        "ARG V={}\nFROM a:${{V//{}b/x}}\n",
        "a".repeat(20_000),
        "*a".repeat(5_000)
    );
    let found = parse(&text).images(&[], None).unwrap_err();
    assert!(found[0].message.contains("too large"), "{}", found[0]);
}

#[test]
fn nesting() {
    let deep = format!("{}x{}", "${A:-".repeat(100_000), "}".repeat(100_000));
    for line in [
        format!("FROM {deep}"),
        format!("FROM a\nENV A={deep}"),
        format!("FROM a\nRUN --mount=from={deep},target=/x y"),
        format!("FROM a\nRUN <<{deep}"),
        format!("FROM a\n{}RUN x", "ONBUILD ".repeat(100_000)),
        format!("FROM a\nCMD {}", "[".repeat(500_000)),
    ] {
        if let Ok(file) = Containerfile::parse(&line) {
            let _ = file.images(&[], None);
        }
    }
}

#[test]
fn many_stages() {
    let same = "FROM x AS x\n".repeat(MAX_INSTRUCTIONS);
    assert_eq!(parse(&same).images(&[], None).unwrap().len(), 1);
    let chain: String = (1..MAX_INSTRUCTIONS)
        .map(|i| format!("FROM {}\n", i - 1))
        .collect();
    let chain = format!("FROM a\n{chain}");
    assert_eq!(
        parse(&chain).plan(None, &[]).unwrap().len(),
        MAX_INSTRUCTIONS
    );
    let all: String = (0..9_000).map(|i| format!("FROM i{i} AS n{i}\n")).collect();
    let unknown = parse(&all).plan(Some("zzzzzzz"), &[]).unwrap_err();
    assert!(unknown.to_string().len() < 500);
}

#[test]
fn inherited_arguments_do_not_multiply() {
    let args_: String = (0..3_000).map(|i| format!("ARG A{i}=v\n")).collect();
    let stages: String = (0..5_000).map(|i| format!("FROM {i}\n")).collect();
    let text = format!("FROM a\n{args_}{stages}COPY --from=$B / /\n");
    assert!(parse(&text).images(&[], None).is_err());
}

#[test]
fn large_build_arguments_are_not_copied_without_end() {
    let big = "x".repeat(1 << 20);
    let stages = "FROM a\nARG V\n".repeat(4_000);
    let text = format!("{stages}COPY --from=$V / /\n");
    let _ = parse(&text).images(&args(&[("V", &big)]), None);
}

#[test]
fn odd_characters() {
    for text in [
        "\0",
        "FROM \0\n",
        "FROM a\r\rRUN x\r",
        "\u{feff}\u{feff}FROM a\n",
        "FROM\u{a0}a\n",
        "FROM a\nENV \u{1f600}=\u{1f600}\\",
        "FROM a\nRUN \u{2028}x\n",
        "\\",
        "\\\n\\\n\\",
        "FROM a\n<<EOF\n",
        "FROM a\nRUN <<\n",
        "FROM a\nRUN <<-\n",
        "FROM ${\n",
        "FROM $\n",
        "FROM a AS ${\n",
    ] {
        if let Ok(file) = Containerfile::parse(text) {
            let _ = file.images(&[], None);
        }
    }
}

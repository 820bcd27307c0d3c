use super::super::ImageUse;
use super::{Containerfile, FaultKind, args, parse};

fn images(text: &str, build_args: &[(&str, &str)], target: Option<&str>) -> Vec<(String, u32)> {
    let file = Containerfile::parse_for(text, target, &args(build_args), &[]).unwrap();
    let images = file.images(&args(build_args), target).unwrap();
    images
        .into_iter()
        .map(|image| (image.reference, image.line))
        .collect()
}

/// The reference of the only image of a file.
fn image(text: &str, build_args: &[(&str, &str)]) -> String {
    match images(text, build_args, None).as_slice() {
        [(reference, _)] => reference.clone(),
        other => panic!("not one image: {other:?}"),
    }
}

fn error(text: &str) -> (u32, FaultKind, String) {
    let faults = parse(text).images(&[], None).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    (faults[0].line, faults[0].kind, faults[0].message.clone())
}

#[test]
fn every_kind_of_use() {
    let text = concat!(
        "FROM golang:1.22 AS build\n",
        "RUN --mount=type=cache,target=/c,from=docker.io/cache --mount=type=bind,from=build,target=/b x\n",
        "COPY --from=tools:1 \\\n  /a /b\n",
        "FROM scratch AS empty\n",
        "FROM skipped\n",
        "FROM golang:1.22\n",
        "COPY --from=build /a /a\nCOPY --from=1 /a /a\nCOPY --from=tools:1 /c /c\n",
        "ADD https://example.com/x /x\n",
    );
    let file = parse(text);
    let found = file.images(&[], None).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|image| (image.reference.as_str(), image.line, image.used))
        .collect();
    assert_eq!(
        found,
        [
            ("golang:1.22", 1, ImageUse::From),
            ("docker.io/cache", 2, ImageUse::Mount),
            // A stage does not exist for itself.
            ("build", 2, ImageUse::Mount),
            ("tools:1", 3, ImageUse::CopyFrom),
        ]
    );
}

#[test]
fn only_what_the_target_needs() {
    let text = "FROM a AS x\nFROM b AS y\nFROM x\nCOPY --from=c / /\n";
    assert_eq!(images(text, &[], None), [("a".into(), 1), ("c".into(), 4)]);
    assert_eq!(images(text, &[], Some("y")), [("b".into(), 2)]);
}

#[test]
fn arguments_and_their_substitutions() {
    let text = "ARG V=1.2.3\nARG W=$V\nARG E=\nARG U\nFROM ";
    for (base, expected) in [
        ("a:$V", "a:1.2.3"),
        ("a:${W}", "a:1.2.3"),
        ("\"a:$V\"", "a:1.2.3"),
        ("'a:$V'", "a:$V"),
        ("a:\\$V", "a:$V"),
        ("a:${U:-x}", "a:x"),
        ("a:${E:-x$V}", "a:x1.2.3"),
        ("a:${V:-x}", "a:1.2.3"),
        ("a${V:+-slim}", "a-slim"),
        ("a${E:+-slim}", "a"),
        ("${U:-${NONE:-b}}", "b"),
        ("a:${V%.*}", "a:1.2"),
        ("a:${V%%.*}", "a:1"),
        ("a:${V#*.}", "a:2.3"),
        ("a:${V##*.}", "a:3"),
        ("a:${V/./-}", "a:1-2.3"),
        ("a:${V//./-}", "a:1-2-3"),
        ("a:${V//[^12]}", "a:12"),
        ("a:$V-$1", "a:1.2.3-"),
    ] {
        assert_eq!(image(&format!("{text}{base}\n"), &[]), expected, "{base}");
    }
}

#[test]
fn build_arguments_override() {
    let text = "ARG V=1\nFROM a:$V$W\n";
    assert_eq!(image(text, &[("V", "2")]), "a:2");
    // Not declared by any ARG, so not seen.
    assert_eq!(image(text, &[("W", "2")]), "a:1");
    assert_eq!(image("ARG V\nFROM a:$V\n", &[("V", "3")]), "a:3");
    assert_eq!(
        image("ARG V=1\nARG W=$V-x\nFROM a:$W\n", &[("V", "3")]),
        "a:3-x"
    );
}

#[test]
fn platforms() {
    let text = "FROM --platform=$TARGETPLATFORM a-$TARGETARCH$TARGETVARIANT\n";
    let build_args = args(&[("TARGETPLATFORM", "linux/arm/v7")]);
    let found = parse(text).images(&build_args, None).unwrap();
    assert_eq!(found[0].reference, "a-armv7");
    assert_eq!(found[0].platform.as_deref(), Some("linux/arm/v7"));
    let text = "FROM --platform=linux/amd64 a\nFROM --platform=linux/arm64 a\nCOPY --from=0 / /\n";
    assert_eq!(images(text, &[], None), [("a".into(), 1), ("a".into(), 2)]);
}

#[test]
fn arguments_of_stages() {
    // Each was run with 1.43.2: `--from` sees ARG, also one inherited, but no ENV.
    let stages = "ARG S=q\nFROM scratch AS q\nARG T=q\nCOPY a /\n";
    for steps in [
        "FROM a\nARG S\nCOPY --from=$S / /\n",
        "FROM q\nCOPY --from=$T / /\nCOPY --from=a / /\n",
    ] {
        assert_eq!(image(&format!("{stages}{steps}"), &[]), "a");
    }
    let (line, kind, message) = error(&format!("{stages}FROM a\nCOPY --from=$S / /\n"));
    assert_eq!((line, kind), (6, FaultKind::EmptyName));
    assert!(
        message.contains("it takes `ARG S` above it in the stage"),
        "{message}"
    );
    let (_, kind, message) = error(&format!("{stages}FROM a\nENV X=q\nCOPY --from=$X / /\n"));
    assert_eq!(kind, FaultKind::EmptyName);
    assert!(message.contains("X has no value there"), "{message}");
}

#[test]
fn mounts_with_variables() {
    let text = "FROM a\nARG V=1\nENV N=img:$V\nRUN --mount=type=bind,from=$N,target=/x y\n";
    assert_eq!(images(text, &[("V", "2")], None)[1], ("img:2".into(), 4));
    // The base image may have it.
    let text = "FROM a\nRUN --mount=type=bind,from=$N,target=/x y\n";
    assert_eq!(image(text, &[]), "a");
}

#[test]
fn nothing_left_of_a_name() {
    let (line, kind, message) = error("ARG IMAGE\n\nFROM $IMAGE\n");
    assert_eq!((line, kind), (3, FaultKind::MissingBuildArg));
    assert!(message.contains("ARG IMAGE has no value"), "{message}");
    let (_, kind, message) = error("FROM ${IMAGE}\nARG IMAGE=a\n");
    assert_eq!(kind, FaultKind::EmptyName);
    assert!(
        message.contains("no `ARG IMAGE` stands before"),
        "{message}"
    );
    assert_eq!(error("ARG V\nFROM a:$V\n").1, FaultKind::MissingBuildArg);
    for file in ["ARG V=\nFROM $V\n", "ARG A\nARG V=$A\nFROM $V\n"] {
        assert_eq!(error(file).1, FaultKind::EmptyName, "{file}");
    }
    let (line, kind, message) = error("ARG V=${W:?}\nFROM a\n");
    assert_eq!((line, kind), (1, FaultKind::Syntax));
    assert!(message.contains("`W` must have a value"), "{message}");
    assert_eq!(error("FROM a\nRUN --mount=from=,target=/x y\n").0, 2);
}

#[test]
fn stages_that_were_likely_meant() {
    let file = parse(
        "FROM a AS Build\nFROM b\nCOPY --from=build / /\nCOPY --from=late / /\nFROM c AS late\n",
    );
    let found = file.images(&[], Some("1")).unwrap();
    let near: Vec<_> = found
        .iter()
        .map(|image| image.near_stage.as_deref())
        .collect();
    assert_eq!(near, [None, Some("Build"), Some("late")]);
}

use super::{args, parse};

const FILE: &str = concat!(
    "ARG KIND=Base\n",
    "FROM scratch AS Base\nCOPY a /\n",
    "FROM scratch AS unused\nCOPY b /\n",
    "FROM Base AS build\nCOPY --from=tools /t /t\nRUN --mount=from=4,target=/x y\n",
    "FROM scratch AS tools\nCOPY a /\n",
    "FROM scratch\nCOPY c /\n",
    "FROM $KIND\nCOPY --from=build /x /y\nRUN --mount=type=bind,from=4,target=/m z\n",
);

fn plan(target: Option<&str>, build_args: &[(&str, &str)]) -> Vec<usize> {
    let file = parse(FILE);
    let stages = file.plan(target, &args(build_args)).unwrap();
    stages.iter().map(|stage| stage.index).collect()
}

#[test]
fn only_needed_stages_run() {
    // `tools` and `4` come after `build`: to it they are images.
    assert_eq!(plan(None, &[]), [0, 2, 4, 5]);
    assert_eq!(plan(Some(""), &[]), [0, 2, 4, 5]);
    assert_eq!(plan(None, &[("KIND", "unused")]), [0, 1, 2, 4, 5]);
    assert_eq!(plan(Some("build"), &[]), [0, 2]);
    assert_eq!(plan(Some("tools"), &[]), [3]);
}

#[test]
fn target_by_index_and_in_another_case() {
    assert_eq!(plan(Some("1"), &[]), [1]);
    assert_eq!(plan(Some("4"), &[]), [4]);
    assert_eq!(plan(Some("base"), &[]), [0]);
    let file = parse("FROM a AS x\nFROM b AS X\nFROM c AS 0\n");
    let of = |target| file.plan(Some(target), &[]).unwrap()[0].index;
    assert_eq!((of("x"), of("X"), of("0"), of("1")), (0, 1, 2, 1));
}

#[test]
fn unknown_targets_are_told_what_there_is() {
    let file = parse(FILE);
    for (wanted, suggestion) in [("biuld", Some("build")), ("9", None), ("-1", None)] {
        let unknown = file.plan(Some(wanted), &[]).unwrap_err();
        assert_eq!(unknown.suggestion.as_deref(), suggestion, "{wanted}");
        assert_eq!(
            unknown.available,
            ["Base", "unused", "build", "tools", "4", "5"]
        );
    }
}

#[test]
fn stages_of_one_name_run_together() {
    let file = parse("FROM a AS x\nFROM b AS y\nFROM c AS x\nFROM d\nCOPY --from=x a b\n");
    let plan = file.plan(None, &[]).unwrap();
    let lines: Vec<_> = plan.iter().map(|stage| stage.line).collect();
    assert_eq!(lines, [1, 3, 4]);
}

#[test]
fn names_and_bases_with_arguments() {
    // Run with 1.43.2: the second stage of each is built from the first.
    for text in [
        "ARG N=foo\nFROM scratch AS $N\nFROM foo\n",
        "ARG V=3.12.1\nARG W=${V%%.*}\nFROM scratch AS x-3\nFROM x-$W\n",
    ] {
        assert_eq!(parse(text).plan(None, &[]).unwrap().len(), 2, "{text}");
    }
}

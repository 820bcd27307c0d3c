use super::super::{Containerfile, Copied, FaultKind, ImageUse, Shown};
use super::{args, parse};

const CONTEXTS: &[(&str, &str)] = &[
    ("shared", "libs/shared"),
    ("base", "docker-image://h/base:1"),
    ("tool", "docker-image://h/tool:1"),
];

fn named(text: &str, target: Option<&str>) -> Containerfile {
    Containerfile::parse_for(text, target, &[], &args(CONTEXTS)).unwrap()
}

#[test]
fn names_stand_for_images_and_directories() {
    let text = "FROM base AS first\nFROM base\nCOPY --from=shared / /s\nCOPY --from=tool /t /t\n\
        RUN --mount=from=tool,target=/t --mount=from=shared,target=/s x\n";
    let images = named(text, None).images(&[], None).unwrap();
    let images: Vec<_> = images
        .iter()
        .map(|image| (image.reference.as_str(), image.line, image.used))
        .collect();
    assert_eq!(
        images,
        [
            ("h/base:1", 2, ImageUse::From),
            ("h/tool:1", 4, ImageUse::CopyFrom)
        ]
    );
    // Without them they are images of these names.
    assert_eq!(parse(text).images(&[], None).unwrap().len(), 3);
}

#[test]
fn a_named_context_comes_before_a_stage() {
    let text = "FROM h/x:1 AS shared\nFROM h/y:1 AS base\nFROM base\nCOPY --from=shared /a /a\n";
    let file = named(text, None);
    let stages = file.plan(None, &[]).unwrap();
    assert_eq!(
        stages.iter().map(|stage| stage.index).collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn a_name_is_taken_as_it_is_written() {
    // Buildah would neither replace it nor run the stage of that name.
    let text = "ARG B=base\nFROM h/y:1 AS base\nFROM $B\n";
    let faults = named(text, None).images(&[], None).unwrap_err();
    assert_eq!((faults[0].line, faults[0].kind), (3, FaultKind::NoImage));
    assert!(
        faults[0].message.ends_with("FROM base"),
        "{}",
        faults[0].message
    );
}

#[test]
fn the_number_of_a_stage_is_its_name_in_a_copy() {
    let text = "FROM h/x:1 AS tool\nFROM h/y:1\nCOPY --from=0 /t /t\n";
    let file = named(text, None);
    let images = file.images(&[], None).unwrap();
    let images: Vec<_> = images
        .iter()
        .map(|image| image.reference.as_str())
        .collect();
    assert_eq!(images, ["h/y:1", "h/tool:1"]);
    let text = "FROM h/x:1 AS shared\nFROM h/y:1\nCOPY --from=0 /t /t\n";
    assert_eq!(
        named(text, None).taken(1, &[])[0].copied[0]
            .named
            .as_deref(),
        Some("libs/shared")
    );
}

#[test]
fn what_a_step_mounts_is_known() {
    let text = "FROM h/x:1 AS first\nENV A=inc\nFROM first\nRUN --mount=source=$A,target=/a --mount=type=bind,from=shared,target=/b \\\n\
        --mount=type=cache,target=/c --mount=type=cache,from=shared,source=d,target=/d --mount=from=first,target=/e \\\n\
        --mount=source=$NONE,target=/f --mount=type=$T,target=/g --mount=type=secret,id=x --mount=from=tool make\n";
    let file = named(text, None);
    let taken = file.taken(1, &[]);
    let mounted: Vec<String> = (taken[0].mounted.iter())
        .map(|mounted| {
            let shows = match &mounted.shows {
                Shown::Context(copied) => format!("{:?} {}", copied.named, copied.source),
                other => format!("{other:?}"),
            };
            format!("{} {shows}", mounted.is_typed)
        })
        .collect();
    assert_eq!(
        mounted,
        [
            "false None inc",
            r#"true Some("libs/shared") ."#,
            r#"false Some("libs/shared") d"#,
            "false Image",
            "false Unknown",
            "false Unknown",
            "false Image",
        ]
    );
}

#[test]
fn a_build_that_only_binds_is_known() {
    let only = |run: &str| parse(&format!("FROM h/x:1\nRUN {run} make\n")).only_binds(&[0].into());
    assert!(only("--mount=target=/m") && only("--mount=type=$T,target=/m"));
    assert!(only(
        "--mount=type=bind,target=/m --mount=type=cache,target=/c"
    ));
    assert!(!only(
        "--mount=target=/m --mount=type=cache,from=x,target=/c"
    ));
    assert!(!only("--mount=type=secret,id=x") && !only(""));
    let other = parse("FROM h/x:1\nFROM h/y:1\nRUN --mount=target=/m make\n");
    assert!(!other.only_binds(&[0].into()));
}

#[test]
fn a_directory_is_no_base() {
    let text = "FROM h/x:1 AS one\nFROM shared\n";
    let faults = named(text, None).images(&[], None).unwrap_err();
    let faults: Vec<_> = faults
        .iter()
        .map(|fault| (fault.line, fault.kind))
        .collect();
    assert_eq!(faults, [(2, FaultKind::NoImage)]);
    assert!(named(text, Some("one")).images(&[], Some("one")).is_ok());
}

#[test]
fn what_is_taken_of_a_directory_is_known() {
    let text = "FROM h/x:1\nARG C=shared\nWORKDIR /w\nCOPY --from=$C src .\nCOPY a .\nCOPY --from=tool /t /t\n\
        RUN --mount=type=bind,from=shared,source=inc,target=/i --mount=type=cache,from=shared,target=/c make\n";
    let copied = |named: Option<&str>, source: &str, target: &str| Copied {
        named: named.map(str::to_owned),
        source: source.to_owned(),
        target: target.to_owned(),
    };
    let shared = Some("libs/shared");
    let file = named(text, None);
    let all = [
        copied(shared, "src", "/w/."),
        copied(None, "a", "/w/."),
        copied(shared, "inc", "/i"),
        copied(shared, ".", "/c"),
    ];
    assert_eq!(file.layout(0, Some(7), &[]).copied, all);
    let taken = file.taken(0, &[]);
    let copied: Vec<_> = (taken.iter())
        .map(|taken| {
            let copied = taken.copied.first();
            let source = copied.map(|copied| (copied.named.as_deref(), copied.source.as_str()));
            (taken.number, source, taken.mounted.len())
        })
        .collect();
    assert_eq!(
        copied,
        [
            (4, Some((shared, "src")), 0),
            (5, Some((None, "a")), 0),
            (7, None, 2)
        ]
    );
}

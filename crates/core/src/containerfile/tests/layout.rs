use super::super::Copied;
use super::{args, parse};

fn copied(pairs: &[(&str, &str)]) -> Vec<Copied> {
    pairs
        .iter()
        .map(|(source, target)| Copied {
            named: None,
            source: (*source).to_owned(),
            target: (*target).to_owned(),
        })
        .collect()
}

#[test]
fn copies_and_directories_are_those_of_the_stage_and_its_bases() {
    let file = parse(
        "ARG TOP=base\nFROM h/x:1 AS base\nARG DIR=app\nENV HOME=/srv/$DIR\nWORKDIR $HOME\nCOPY go.mod .\n\
         FROM h/y:1 AS other\nCOPY other /other\n\
         FROM $TOP\nWORKDIR sub\nCOPY --from=other /other /x\nADD http://h/x /y\nCOPY [\"a b\", \"c\", \"./\"]\n\
         RUN --mount=type=bind,source=lib,target=lib --mount=type=cache,target=/c make\nCOPY late /\n",
    );
    let layout = file.layout(2, Some(6), &[]);
    assert_eq!(layout.workdir, "/srv/app/sub");
    assert_eq!(
        layout.copied,
        copied(&[
            ("go.mod", "/srv/app/."),
            ("a b", "/srv/app/sub/./"),
            ("c", "/srv/app/sub/./"),
            ("lib", "/srv/app/sub/lib"),
        ])
    );
    let image = file.layout(2, None, &args(&[("DIR", "z")]));
    assert_eq!(image.workdir, "/srv/z/sub");
    assert_eq!(image.copied.last(), copied(&[("late", "/")]).last());
    assert_eq!(file.layout(9, Some(1), &[]).copied, []);
}

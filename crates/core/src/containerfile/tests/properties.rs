use super::super::expand::{Fuel, expand};
use super::super::pattern::{Edge, replace, strip};
use super::super::{Keyword, StepLine};
use super::Containerfile;
use crate::build::classify::classify_path_or_text;
use proptest::prelude::*;

/// Pieces of Containerfiles, to get past the first word.
fn soup() -> impl Strategy<Value = String> {
    let pieces = vec![
        "FROM ",
        "scratch",
        "RUN ",
        "COPY ",
        "ENV ",
        "ARG ",
        "ONBUILD ",
        "LABEL ",
        "HEALTHCHECK ",
        "AS ",
        "--from=",
        "--mount=type=bind,from=",
        "type=secret,id=",
        "a",
        "A=b",
        "$A",
        "${A:-",
        "${A/",
        "}",
        "\"",
        "'",
        "\\",
        "`",
        "\n",
        "\n",
        "\\\n",
        " ",
        "\t",
        "\r\n",
        "#",
        "# escape=`\n",
        "<<EOF",
        "\nEOF\n",
        "<<",
        "[",
        "\"a\"]",
        "\u{feff}",
        "é",
        "0",
        ",",
        "=",
        "--",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..60).prop_map(|pieces| pieces.concat())
}

fn examine(text: &str) {
    let lines = u32::try_from(text.split('\n').count()).unwrap();
    let file = match Containerfile::parse(text) {
        Ok(file) => file,
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| (1..=lines).contains(&fault.line)));
            return;
        }
    };
    let mut last = 0;
    assert!(!file.stages.is_empty());
    for stage in &file.stages {
        assert_eq!(stage.steps[0].keyword, Keyword::From);
        for (index, step) in stage.steps.iter().enumerate() {
            assert_eq!(step.number, index + 1);
            assert!(last < step.line && step.line <= step.end_line && step.end_line <= lines);
            last = step.end_line;
            let word = step
                .text
                .split([' ', '\t', '\u{b}', '\u{c}', '\r'])
                .next()
                .unwrap();
            assert_eq!(Keyword::of(word), step.keyword);
            let printed = format!(
                "[{}/9] STEP {}/99: {}\n",
                stage.index + 1,
                step.number,
                step.text
            );
            let printed = StepLine::parse(&printed).unwrap();
            let found = file
                .locate(printed.stage, printed.step, printed.text)
                .unwrap();
            assert_eq!(found, (stage, step));
        }
    }
    assert_eq!(
        file.plan(None, &[]).unwrap().last().unwrap().index,
        file.stages.len() - 1
    );
    if let Ok(images) = file.images(&[], None) {
        assert!(images.iter().all(|image| !image.reference.is_empty()));
    }
    let _ = file.secret_ids();
}

/// A step and how it may be broken over lines.
fn step() -> impl Strategy<Value = (String, String)> {
    let word = prop::sample::select(vec!["run", "CMD", "Run", "ENTRYPOINT"]);
    let words = prop::collection::vec(("[a-z&|=/]{1,6}", 0..5u8), 1..6);
    (word, words).prop_map(|(keyword, words)| {
        let mut joined = keyword.to_owned();
        let mut written = format!("  {keyword}");
        for (word, broken) in words {
            joined += &format!(" {word}");
            written += match broken {
                0 => " \\\n",
                1 => " \\  \n\n  # comment \\\n",
                2 => " \\\r\n#\r\n",
                _ => " ",
            };
            written += &word;
        }
        (joined, written)
    })
}

proptest! {
    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        examine(&text);
        let _ = classify_path_or_text(&text);
        let _ = StepLine::parse(&text);
    }

    #[test]
    fn nearly_right_text_is_survived(text in soup()) {
        examine(&text);
        examine(&format!("FROM scratch AS q\n{text}"));
    }

    #[test]
    fn generated_files_come_back(steps in prop::collection::vec(step(), 0..8), blank in "\n{0,3}") {
        let mut text = format!("# a comment\nFROM scratch\n{blank}");
        let mut expected = Vec::new();
        for (joined, written) in &steps {
            let line = text.matches('\n').count() + 1;
            text += &format!("{written}\n");
            let end = text.matches('\n').count();
            expected.push((joined.as_str(), line, end));
            text += &blank;
        }
        let file = Containerfile::parse(&text).unwrap();
        let found: Vec<_> = file.stages[0].steps[1..]
            .iter()
            .map(|step| (step.text.as_str(), step.line as usize, step.end_line as usize))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn quoted_text_expands_to_itself(text in "[^'\\\\]*") {
        let expanded = expand(&format!("'{text}'"), &|_| None, &mut Fuel::new()).unwrap();
        prop_assert_eq!(expanded.text, text);
    }

    #[test]
    fn patterns_cut_and_keep(value in "[ab/é]{0,12}", pattern in "[ab*?/\\[\\]^é\\\\-]{1,6}", longest: bool) {
        let mut fuel = Fuel::new();
        let cut = strip(&value, &pattern, Edge::Start, longest, &mut fuel).unwrap();
        prop_assert!(value.ends_with(&cut));
        let cut = strip(&value, &pattern, Edge::End, longest, &mut fuel).unwrap();
        prop_assert!(value.starts_with(&cut));
        let gone = replace(&value, &pattern, "", Some('/'), &mut fuel).unwrap();
        prop_assert!(gone.len() <= value.len());
    }
}

//! What the documents tell people to type is what the program takes, and what they name is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use nomad_build::build::request::MAX_WAIT;
use nomad_build::cli::Cli;
use nomad_build::config::{Config, ConfigError, Given};
use nomad_build::mcp::tools::{SYNONYMS, definitions};
use nomad_build::schema::decode;
use regex::Regex;
use serde_json::Value;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Every document for users, with its path.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = vec![root().join("README.md")];
    let mut pending = vec![
        root().join("docs"),
        root().join("examples"),
        root().join("nomad"),
    ];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// The contents of fenced blocks in a language; none: in any.
fn blocks<'a>(text: &'a str, language: Option<&str>) -> Vec<&'a str> {
    let fence = Regex::new(r"(?ms)^```(\w*)\n(.*?)^```$").unwrap();
    fence
        .captures_iter(text)
        .filter(|block| language.is_none_or(|wanted| &block[1] == wanted))
        .map(|block| block.get(2).unwrap().as_str())
        .collect()
}

#[test]
fn command_lines_are_those_of_the_program() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        for block in blocks(&text, Some("sh")) {
            let lines = block.replace("\\\n", " ");
            for line in lines.lines() {
                let words: Vec<String> = shlex::Shlex::new(line).collect();
                let assignment = |word: &&String| word.contains('=') && !word.starts_with('-');
                let mut begin = words.iter().take_while(assignment).count();
                let is = |at: usize, wanted: &str| words.get(at).is_some_and(|word| word == wanted);
                if is(begin, "sudo") {
                    begin += if is(begin + 1, "-u") { 3 } else { 1 };
                }
                if words.get(begin).is_none_or(|word| word != "nomad-build") {
                    continue;
                }
                let end = |word: &&String| {
                    !matches!(word.as_str(), "|" | "&&" | "&" | ";" | ">" | ">>" | "2>&1")
                };
                let command = words[begin..].iter().take_while(end);
                count += 1;
                if let Err(error) = Cli::try_parse_from(command)
                    && error.use_stderr()
                {
                    wrong.push(format!("{}: {line}\n{error}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 10, "{count}");
}

#[test]
fn calls_are_such_as_the_tools_take() {
    let call = Regex::new(r"(?m)^(?:next: )?(build|status|logs|kill) (\{.*\})$").unwrap();
    let tools = definitions(MAX_WAIT);
    let mut count = 0;
    for (path, text) in documents() {
        for block in blocks(&text, None) {
            for found in call.captures_iter(block) {
                let place = format!("{}: {}", path.display(), &found[0]);
                let arguments: Value = serde_json::from_str(&found[2]).expect(&place);
                let definition = tools.iter().find(|one| one.tool.name == found[1]).unwrap();
                // Shown with its errors.
                let is_wrong = arguments.get("sorce").is_some();
                let decoded = decode(&definition.decoder, arguments, SYNONYMS);
                assert_eq!(decoded.is_err(), is_wrong, "{place}");
                count += 1;
            }
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn configurations_are_such_as_the_program_takes() {
    let mut count = 0;
    for (path, text) in documents() {
        // What Nomad makes one of is none yet.
        for block in blocks(&text, Some("toml"))
            .into_iter()
            .filter(|block| !block.contains("{{"))
        {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), block).unwrap();
            let given = Given {
                file: Some(file.path().to_owned()),
                set: Vec::new(),
            };
            // Its files are not here, and a part may refer to another.
            let faults = match Config::load_from(&given, |_| None) {
                Ok(_) => Vec::new(),
                Err(ConfigError(faults)) => faults,
            };
            let missing = |fault: &&String| {
                !fault.contains("No such file") && !fault.contains("no such profile")
            };
            let faults: Vec<&String> = faults.iter().filter(missing).collect();
            assert!(
                faults.is_empty(),
                "{}: {faults:#?}\n{block}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 5, "{count}");
}

/// The names by which headings are linked to, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let heading = Regex::new(r"(?m)^#{1,6} (.*)$").unwrap();
    let slug = |title: &str| {
        let kept = title
            .to_lowercase()
            .replace(|c: char| !(c.is_alphanumeric() || " -_".contains(c)), "");
        kept.replace(' ', "-")
    };
    heading
        .captures_iter(text)
        .map(|found| slug(&found[1]))
        .collect()
}

#[test]
fn what_is_linked_is_there() {
    let link = Regex::new(r"\]\(([^)#\s]*)(?:#([^)]*))?\)").unwrap();
    let mut count = 0;
    for (path, text) in documents() {
        for found in link.captures_iter(&text) {
            if found[1].contains("://") {
                continue;
            }
            let place = format!("{}: {}", path.display(), &found[0]);
            let target = match &found[1] {
                "" => path.clone(),
                other => path.parent().unwrap_or(Path::new("/")).join(other),
            };
            assert!(target.exists(), "{place}");
            if let Some(anchor) = found.get(2).filter(|_| target.is_file()) {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.iter().any(|one| one == anchor.as_str()), "{place}");
                count += 1;
            }
        }
    }
    assert!(count > 5, "{count}");
}

/// The fault beside each kind; no kind has two rows.
fn rows_of<'a>(
    rows: impl Iterator<Item = (&'a str, &'a str)>,
    document: &str,
) -> BTreeMap<&'a str, &'a str> {
    let mut found = BTreeMap::new();
    for (kind, fault) in rows {
        let before = found.insert(kind, fault);
        assert_eq!(before, None, "{document}: {kind} stands there twice");
    }
    found
}

#[test]
fn each_kind_is_explained_once_below_its_usual_fault() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (text, table) = (read("docs/troubleshooting.md"), read("docs/failures.md"));

    let row = Regex::new(r"(?m)^\| `([a-z_]+)` \| ([a-z]+) \|").unwrap();
    let rows = row.captures_iter(&table).map(|found| {
        let (_, [kind, fault]) = found.extract();
        (kind, fault)
    });
    let known = rows_of(rows, "failures.md");

    let title = Regex::new(r"^[^\n]*\(`([a-z]+)`\)\n").unwrap();
    let row = Regex::new(r"(?m)^\| ((?:`[a-z_]+`(?:, )?)+) \|").unwrap();
    let (sections, _) = text.split_once("## The server").unwrap();
    let mut rows = Vec::new();
    for section in sections.split("\n## ").skip(1) {
        let (_, [fault]) = title.captures(section).expect(section).extract();
        for found in row.captures_iter(section) {
            let (_, [kinds]) = found.extract();
            let kinds = kinds.split(", ").map(|kind| kind.trim_matches('`'));
            rows.extend(kinds.map(|kind| (kind, fault)));
        }
    }
    let explained = rows_of(rows.into_iter(), "troubleshooting.md");

    let kinds: BTreeSet<&str> = known.keys().chain(explained.keys()).copied().collect();
    let differs = |kind: &&str| known.get(*kind) != explained.get(*kind);
    let differing: Vec<String> = (kinds.into_iter().filter(differs))
        .map(|kind| {
            let (usual, below) = (known.get(kind), explained.get(kind));
            format!("{kind}: usually {usual:?}, explained below {below:?}")
        })
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(known.len() > 50, "{}", known.len());
}

//! The corpus of failures: what real Buildah printed, and what the diagnosis must make of it.
//!
//! `tests/failures/FAMILY/NAME.toml` holds a case and its runs, which `scripts/record_failures.py` records. The output
//! goes the way it goes in a build: bytes, lines, what is kept of them, steps, verdict.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nomad_build::build::request::Stream;
use nomad_build::build::{Failure, Kind, Phase};
use nomad_build::containerfile::{Containerfile, Layout};
use nomad_build::diagnosis::{
    BuildahEnd, Command, LastWords, Place, Recent, Steps, Tree, buildah_failure, explain_test,
    invalid_containerfile, pull_failure,
};
use nomad_build::log::lines::{LineSplitter, Lines};
use nomad_build::log::{Line, Redactor};
use serde::Deserialize;

/// Cases that there are at least.
const CASES: usize = 150;
/// Lines of an excerpt at most.
const EXCERPT: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    containerfile: Option<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Files that are no text, in base64.
    #[serde(default)]
    binaries: BTreeMap<String, String>,
    /// Further options for Buildah.
    #[serde(default)]
    options: Vec<String>,
    /// `pull`, `test`, or absent for a build.
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    argv: Vec<String>,
    /// Where a text that no program of the recording machine prints was taken from.
    #[serde(default, rename = "source")]
    _source: Option<String>,
    /// Images that are built before: tag and file.
    #[serde(default, rename = "before")]
    _before: Vec<BTreeMap<String, String>>,
    /// Versions and isolations that it is recorded with; absent: all.
    #[serde(default, rename = "buildah")]
    _buildah: Vec<String>,
    #[serde(default, rename = "isolations")]
    _isolations: Vec<String>,
    #[serde(default, rename = "insecure")]
    _insecure: Option<bool>,
    want: Want,
    #[serde(default)]
    run: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Want {
    kind: Kind,
    fault: String,
    /// Line of the Containerfile.
    line: Option<u32>,
    exit: Option<i32>,
    /// The first of the locations, as `file:line`; empty: there is none.
    location: Option<String>,
    /// What the excerpt has.
    #[serde(default)]
    shows: Option<String>,
    /// What the message has.
    #[serde(default)]
    says: Option<String>,
    /// What the hint has; empty: there is none.
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    buildah: String,
    isolation: String,
    status: i32,
    output: Option<String>,
    base64: Option<String>,
}

impl Run {
    fn bytes(&self) -> Vec<u8> {
        match (&self.output, &self.base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).unwrap(),
            (None, None) => panic!("a run without output"),
        }
    }
}

fn load() -> Vec<(String, Case)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/failures");
    let mut cases = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                let text = std::fs::read_to_string(&path).unwrap();
                let case = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
                cases.push((name, case));
            }
        }
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

/// The Containerfile as the run had it.
fn filled(text: &str) -> String {
    [
        ("@BASE@", "registry.test:5000/test/base:1"),
        ("@TOOLS@", "registry.test:5000/test/tools:1"),
        ("@HOST@", "registry.test:5000"),
        ("@CLOSED@", "registry.test:1"),
        ("@WEB@", "web.test:8000"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (word, value)| {
        text.replace(word, value)
    })
}

/// Words behind an option of the command line.
fn option(case: &Case, name: &str) -> Vec<String> {
    let values = case
        .options
        .iter()
        .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values.map(filled).collect()
}

fn diagnosed(case: &Case, run: &Run) -> Failure {
    let text = filled(case.containerfile.as_deref().unwrap_or("FROM @BASE@\n"));
    let args: Vec<(String, String)> = option(case, "--build-arg")
        .iter()
        .filter_map(|arg| arg.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let target = option(case, "--target");
    let parsed = Containerfile::parse_for(&text, target.first().map(String::as_str), &args, &[]);
    if let Err(faults) = &parsed {
        // Such a build never begins; what Buildah says of it is not asked for.
        return invalid_containerfile("Containerfile", faults).unwrap();
    }
    let parsed = parsed.ok();
    let phase = match case.phase.as_deref() {
        Some("pull") => Phase::Source,
        Some("test") => Phase::Test,
        _ => Phase::Build,
    };
    let (redactor, mut splitter) = (Redactor::default(), LineSplitter::default());
    let (mut last_words, mut printed) = (LastWords::default(), Lines::default());
    for bytes in run.bytes().chunks(1000) {
        last_words.push(bytes, &redactor);
        splitter.push(bytes, &redactor, &mut printed);
    }
    splitter.finish(&redactor, &mut printed);
    let mut texts: Vec<String> = printed.iter().map(str::to_owned).collect();
    let error = last_words.error(texts.last().map(String::as_str), &redactor);
    texts.extend(error);
    let mut recent = Recent::default();
    let mut steps = parsed
        .as_ref()
        .map(|parsed| Steps::new(parsed, "Containerfile"));
    for (n, text) in (1..).zip(texts) {
        if let Some(steps) = &mut steps
            && steps.observe(&text).is_some()
        {
            recent.begin();
        }
        let line = Line {
            phase,
            step: None,
            test: None,
            stream: Stream::Output,
            text,
        };
        recent.push(n, &line.origin(), &line.text);
    }
    let lines = recent.lines();
    let mut files: BTreeSet<String> = case
        .files
        .keys()
        .chain(case.binaries.keys())
        .cloned()
        .collect();
    files.insert("Containerfile".to_owned());
    let tree = |layout: Layout| Tree {
        files: files.clone(),
        context: String::new(),
        layout,
    };
    match phase {
        Phase::Source => {
            let place = parsed.as_ref().and_then(|parsed| {
                let stage = parsed.stages.first()?;
                Some(Place::of("Containerfile", stage, stage.steps.first()?))
            });
            pull_failure(
                &filled(case.image.as_deref().unwrap()),
                &lines,
                place.as_ref(),
            )
        }
        Phase::Test => {
            let parsed = parsed.unwrap();
            let layout = parsed.layout(parsed.stages.len() - 1, None, &args);
            let mut failure = Failure::new(Phase::Test, Kind::TestFailed, "the test failed");
            let command = Command {
                lines: &lines,
                status: run.status,
                text: case.argv.last().unwrap(),
            };
            explain_test(&mut failure, &command, &tree(layout));
            failure
        }
        _ => {
            let failed = steps.as_ref().and_then(|steps| steps.failed_at(&lines));
            let seen = match (&failed, &parsed) {
                (Some(failed), Some(parsed)) => {
                    tree(parsed.layout(failed.stage, Some(failed.step), &args))
                }
                _ => Tree::default(),
            };
            buildah_failure(&BuildahEnd {
                status: run.status,
                lines: &lines,
                place: failed.as_ref().map(|failed| &failed.place),
                tree: &seen,
            })
        }
    }
}

fn faults(case: &Case, failure: &Failure) -> Vec<String> {
    let want = &case.want;
    let mut wrong = Vec::new();
    let mut differs = |what: &str, got: String, wanted: String| {
        if got != wanted {
            wrong.push(format!("{what} is {got}, not {wanted}"));
        }
    };
    differs(
        "kind",
        failure.kind.as_str().into(),
        want.kind.as_str().into(),
    );
    differs("fault", failure.fault.as_str().into(), want.fault.clone());
    differs(
        "line",
        format!("{:?}", failure.line),
        format!("{:?}", want.line),
    );
    if want.line.is_some() {
        differs(
            "file",
            format!("{:?}", failure.file.as_deref()),
            "Some(\"Containerfile\")".into(),
        );
    }
    if want.exit.is_some() {
        differs(
            "exit code",
            format!("{:?}", failure.exit_code),
            format!("{:?}", want.exit),
        );
    }
    if let Some(location) = &want.location {
        let first = failure.locations.first().map(|place| match place.line {
            Some(line) => format!("{}:{line}", place.file),
            None => place.file.clone(),
        });
        differs("location", first.unwrap_or_default(), location.clone());
    }
    let excerpt = failure.excerpt.as_deref().unwrap_or_default();
    if let Some(shows) = &want.shows
        && !excerpt.contains(shows)
    {
        wrong.push(format!("the excerpt has no {shows:?}:\n{excerpt}"));
    }
    if let Some(says) = &want.says
        && !failure.message.contains(says)
    {
        wrong.push(format!("the message has no {says:?}: {}", failure.message));
    }
    let hint = failure.hint.as_deref().unwrap_or_default();
    if let Some(wanted) = &want.hint
        && (!hint.contains(wanted) || wanted.is_empty() != hint.is_empty())
    {
        wrong.push(format!("the hint is {hint:?}, not {wanted:?}"));
    }
    if excerpt.lines().count() > EXCERPT || failure.locations.len() > 10 {
        wrong.push("too long".to_owned());
    }
    wrong
}

#[test]
fn every_failure_of_the_corpus_is_right() {
    let cases = load();
    let (mut wrong, mut versions) = (Vec::new(), BTreeSet::new());
    for (name, case) in &cases {
        if case.run.is_empty() {
            wrong.push(format!("{name}: there is no run"));
        }
        let mut told = BTreeSet::new();
        for run in &case.run {
            versions.insert((run.buildah.clone(), run.isolation.clone()));
            if run.status == 0 {
                told.insert(format!(
                    "{} {}: it did not fail",
                    run.buildah, run.isolation
                ));
                continue;
            }
            let failure = diagnosed(case, run);
            for fault in faults(case, &failure) {
                told.insert(format!("{} {}: {fault}", run.buildah, run.isolation));
            }
        }
        wrong.extend(told.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    let right = cases
        .iter()
        .filter(|(name, _)| !wrong.iter().any(|wrong| wrong.starts_with(name.as_str())))
        .count();
    assert!(
        wrong.is_empty(),
        "{right} of {} are right\n{}",
        cases.len(),
        wrong.join("\n")
    );
    assert!(cases.len() >= CASES, "{} cases", cases.len());
    assert_eq!(versions.len(), 4, "{versions:?}");
}

#[test]
fn the_table_of_kinds_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/failures.md");
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == Kind::document(),
        "docs/failures.md is out of date: run `nomad-build schema --failures docs/failures.md`"
    );
}

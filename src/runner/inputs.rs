//! What the build is made of, told before its first step: to be compared with that of other builds.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinHandle;

use crate::build::digest::Digest;
use crate::build::inputs::{BaseInput, Files, Inputs, MAX_STEPS, StepInput};
use crate::build::plan::PlanTest;
use crate::containerfile::{Copied, Step};
use crate::context::Fingerprints;
use crate::diagnosis::Steps;
use crate::log::Event;

use super::cache::Base;
use super::phases::{Job, Stop};
use super::source::{Sources, needed_stages};

/// Digits of a fingerprint.
const SHORT: usize = 8;

/// What is being read of the context, while images are fetched.
#[derive(Debug)]
pub struct Reading(JoinHandle<Inputs>);

impl Reading {
    /// Begins to read what the steps take of the context.
    pub fn begin(job: &Job<'_>, sources: &Sources) -> Self {
        let plan = job.plan;
        let stages = needed_stages(&sources.parsed, plan);
        let inputs = Inputs {
            containerfile: sources.containerfile_shown.clone(),
            target: plan.target.clone(),
            build_args: named(&plan.build_args),
            build_contexts: named(&plan.build_contexts),
            tests: (plan.tests.iter())
                .map(|test| (test.name.clone(), of_test(test)))
                .collect(),
            ..Inputs::default()
        };
        let (sources, build_args) = (sources.clone(), plan.build_args.clone());
        Self(tokio::task::spawn_blocking(move || {
            let mut steps = steps(&sources, &stages, &build_args);
            let more_steps = steps.len() > MAX_STEPS;
            steps.truncate(MAX_STEPS);
            Inputs {
                steps,
                more_steps,
                ..inputs
            }
        }))
    }

    /// Tells it all, and returns it, with the images that the build was given, where it was given all.
    ///
    /// # Errors
    /// When the reading ended in disorder.
    pub async fn tell(self, job: &Job<'_>, bases: Option<&[Base]>) -> Result<Inputs, Stop> {
        let read = self.0.await.map_err(Stop::internal)?;
        let inputs = Inputs {
            bases: bases.map(|bases| bases.iter().map(base).collect()),
            ..read
        };
        job.reporter.event(Event::Inputs {
            inputs: inputs.clone(),
        });
        Ok(inputs)
    }
}

/// A digest of all that decides what the steps make; `None` where not all of it is known.
pub fn digest(inputs: &Inputs) -> Option<String> {
    let known = serde_json::to_vec(&inputs.of_steps()?).ok()?;
    Some(Digest::of(&known).to_string())
}

fn named(pairs: &[(String, String)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.clone(), fingerprint(&format!("{name}={value}"))))
        .collect()
}

/// One more than are kept, where there are more.
fn steps(
    sources: &Sources,
    stages: &BTreeSet<usize>,
    build_args: &[(String, String)],
) -> Vec<StepInput> {
    let name = sources.containerfile.strip_prefix(&sources.context);
    let name = name.ok().and_then(|name| name.to_str());
    let among = sources.named.len() as u64 + 1;
    let mut contexts = Contexts {
        sources,
        own: Fingerprints::of(&sources.context, name, among),
        among,
        named: BTreeMap::new(),
    };
    let lines: Vec<&str> = sources.text.lines().collect();
    let parsed = &sources.parsed;
    let wanted = parsed
        .stages
        .iter()
        .filter(|stage| stages.contains(&stage.index));
    let mut steps = Vec::new();
    for stage in wanted {
        let taken = parsed.taken(stage.index, build_args);
        for step in &stage.steps {
            if steps.len() > MAX_STEPS {
                return steps;
            }
            let files = match taken.iter().find(|(number, _)| *number == step.number) {
                None => Files::None,
                Some((_, copied)) => contexts
                    .fingerprint(copied)
                    .map_or(Files::TooMany, Files::Known),
            };
            let text = fingerprint(&whole(step, &lines));
            steps.push(StepInput::new(Steps::status(stage, step), text, files));
        }
    }
    steps
}

/// The contexts of a build, each read when it is asked for; `None` where one cannot be.
struct Contexts<'a> {
    sources: &'a Sources,
    own: Option<Fingerprints>,
    /// How many there are.
    among: u64,
    /// By directory.
    named: BTreeMap<String, Option<Fingerprints>>,
}

impl Contexts<'_> {
    /// Of all that a step takes of the contexts.
    fn fingerprint(&mut self, copied: &[Copied]) -> Option<String> {
        let mut by_context: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
        for copied in copied {
            let paths = by_context.entry(copied.named.as_deref()).or_default();
            paths.push(copied.source.clone());
        }
        let mut all = Vec::new();
        for (named, paths) in by_context {
            let context = match named {
                None => self.own.as_mut(),
                Some(directory) => self.of(directory),
            };
            all.push(context?.of_sources(&paths)?);
        }
        match all.as_slice() {
            [one] => Some(one.clone()),
            all => Some(fingerprint(&all.join(" "))),
        }
    }

    fn of(&mut self, directory: &str) -> Option<&mut Fingerprints> {
        let (sources, among) = (self.sources, self.among);
        let read = || Fingerprints::of_named(sources.named(directory)?, among);
        let named = self.named.entry(directory.to_owned());
        named.or_insert_with(read).as_mut()
    }
}

/// The instruction, and the lines of its here-documents.
fn whole(step: &Step, lines: &[&str]) -> String {
    let place = |line: u32| usize::try_from(line).unwrap_or(usize::MAX);
    let (first, end) = (place(step.line), place(step.end_line));
    let below = match step.heredocs.is_empty() {
        true => None,
        false => lines.get(first..end.min(lines.len())),
    };
    let mut text = step.text.clone();
    for line in below.unwrap_or_default() {
        text.push('\n');
        text.push_str(line);
    }
    text
}

fn base(base: &Base) -> BaseInput {
    let digest = base.name.rsplit_once('@').map(|(_, digest)| digest);
    BaseInput {
        reference: base.reference.clone(),
        digest: digest.or(base.id.as_deref()).map(str::to_owned),
    }
}

/// Of all that was asked of it.
fn of_test(test: &PlanTest) -> String {
    // Every field has a JSON form.
    fingerprint(&serde_json::to_string(test).unwrap_or_default())
}

fn fingerprint(text: &str) -> String {
    Digest::of(text.as_bytes())
        .hex()
        .chars()
        .take(SHORT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerfile::Containerfile;
    use std::fs;
    use std::path::Path;

    fn read(dir: &Path, text: &str) -> Vec<StepInput> {
        fs::write(dir.join("Containerfile"), text).unwrap();
        let contexts = [("shared".to_owned(), "libs/shared".to_owned())];
        let parsed = Containerfile::parse_for(text, None, &[], &contexts).unwrap();
        let stages = (0..parsed.stages.len()).collect();
        let shared = ("libs/shared".to_owned(), dir.join("libs/shared"));
        let sources = Sources {
            context: dir.to_owned(),
            named: vec![shared],
            containerfile: dir.join("Containerfile"),
            containerfile_shown: "Containerfile".into(),
            ignore_file: None,
            text: text.into(),
            parsed,
            tree: None,
        };
        steps(&sources, &stages, &[])
    }

    fn differing(before: &[StepInput], now: &[StepInput]) -> Vec<usize> {
        let pairs = before.iter().zip(now).enumerate();
        pairs
            .filter(|(_, (one, other))| one != other)
            .map(|(at, _)| at)
            .collect()
    }

    #[test]
    fn steps_differ_by_their_words_and_by_what_they_take() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::write(dir.path().join("src/a"), "1").unwrap();
        let text = "FROM x AS b\nARG D=src\nCOPY $D /s\nRUN --mount=type=bind,source=src,target=/m make\nRUN <<END\none\nEND\n\
            FROM scratch\nCOPY --from=b /s /s\n";
        let before = read(dir.path(), text);
        assert_eq!(before.len(), 7);
        assert_eq!(before[3].step.line, Some(4));
        assert_eq!(differing(&before, &read(dir.path(), text)), [0; 0]);
        fs::write(dir.path().join("src/a"), "2").unwrap();
        let now = read(dir.path(), text);
        assert_eq!(differing(&before, &now), [2, 3]);
        let other = text
            .replace("one", "two")
            .replace("--from=b /s", "--from=b  /s/a");
        assert_eq!(differing(&now, &read(dir.path(), &other)), [4, 6]);
    }

    #[test]
    fn what_a_step_takes_of_a_named_context_counts() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["libs/shared/a", "a"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1").unwrap();
        }
        let text = "FROM x\nCOPY --from=shared a /1\nCOPY a /2\n\
            RUN --mount=type=bind,from=shared,target=/s --mount=type=bind,source=a,target=/a make\n";
        let before = read(dir.path(), text);
        fs::write(dir.path().join("libs/shared/a"), "2").unwrap();
        let now = read(dir.path(), text);
        assert_eq!(differing(&before, &now), [1, 3]);
        fs::write(dir.path().join("a"), "2").unwrap();
        assert_eq!(differing(&now, &read(dir.path(), text)), [2, 3]);
    }

    #[test]
    fn one_step_more_than_are_kept_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("FROM x\n{}", "RUN make\n".repeat(MAX_STEPS + 10));
        assert_eq!(read(dir.path(), &text).len(), MAX_STEPS + 1);
    }
}

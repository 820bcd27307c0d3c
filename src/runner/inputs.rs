//! What the build is made of, told before its first step: to be compared with that of other builds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;

use crate::build::digest::Digest;
use crate::build::inputs::{BaseInput, Files, Inputs, MAX_STEPS, StepInput};
use crate::build::plan::PlanTest;
use crate::containerfile::{Copied, Mounted, Shown, Stage, Step, Taken};
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
pub struct Reading(JoinHandle<Read>);

/// What was read.
#[derive(Debug)]
struct Read {
    inputs: Inputs,
    /// Of all steps together.
    unasked: Unasked,
}

/// What decides what a step makes, and what Buildah does not ask for before it takes the step's layer from a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unasked {
    Nothing,
    /// The files that steps mount, by this digest.
    Files(String),
    /// Images and stages, too.
    Images,
    /// Files that were not read.
    Unknown,
}

/// What layers of a cache must have been made of to be taken, where Buildah itself does not ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MadeOf {
    /// It asks for everything.
    Asked,
    /// What has this digest.
    Known(String),
    /// What is not known: no layer is to be taken.
    Unknown,
}

impl Reading {
    /// Begins to read what the steps take of the contexts; `asks_for_binds` says that Buildah asks for the files behind
    /// `type=bind`, as it does from 1.39 on (imagebuildah/stage_executor.go, `getCreatedBy`).
    pub fn begin(job: &Job<'_>, sources: &Sources, asks_for_binds: bool) -> Self {
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
            let (mut steps, unasked) = steps(&sources, &stages, &build_args, asks_for_binds);
            let more_steps = steps.len() > MAX_STEPS;
            steps.truncate(MAX_STEPS);
            Read {
                inputs: Inputs {
                    steps,
                    more_steps,
                    ..inputs
                },
                unasked,
            }
        }))
    }

    /// Tells it all, with the images that the build was given, where it was given all.
    ///
    /// # Errors
    /// When the reading ended in disorder.
    pub async fn tell(self, job: &Job<'_>, bases: Option<&[Base]>) -> Result<MadeOf, Stop> {
        let Read { inputs, unasked } = self.0.await.map_err(Stop::internal)?;
        let inputs = Inputs {
            bases: bases.map(|bases| bases.iter().map(base).collect()),
            ..inputs
        };
        let made_of = match unasked {
            Unasked::Nothing => MadeOf::Asked,
            Unasked::Files(digest) => MadeOf::Known(digest),
            Unasked::Images => of_everything(&inputs),
            Unasked::Unknown => MadeOf::Unknown,
        };
        job.reporter.event(Event::Inputs { inputs });
        Ok(made_of)
    }
}

fn of_everything(inputs: &Inputs) -> MadeOf {
    let known = inputs.of_steps();
    let known = known.and_then(|inputs| serde_json::to_vec(&inputs).ok());
    known.map_or(MadeOf::Unknown, |known| {
        MadeOf::Known(Digest::of(&known).to_string())
    })
}

fn named(pairs: &[(String, String)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.clone(), fingerprint(&format!("{name}={value}"))))
        .collect()
}

/// One step more than are kept, where there are more; and what Buildah does not ask for of any.
fn steps(
    sources: &Sources,
    stages: &BTreeSet<usize>,
    build_args: &[(String, String)],
    asks_for_binds: bool,
) -> (Vec<StepInput>, Unasked) {
    let parsed = &sources.parsed;
    let wanted = parsed.stages.iter();
    let wanted: Vec<&Stage> = wanted
        .filter(|stage| stages.contains(&stage.index))
        .collect();
    let taken = wanted
        .iter()
        .map(|stage| parsed.taken(stage.index, build_args));
    let taken: Vec<Vec<Taken>> = taken.collect();
    let mut contexts = Contexts::of(sources, taken.iter().flatten());
    let lines: Vec<&str> = sources.text.lines().collect();
    let (mut steps, mut unasked) = (Vec::new(), Vec::new());
    for (stage, taken) in wanted.iter().zip(&taken) {
        for step in &stage.steps {
            let taken = taken.iter().find(|taken| taken.number == step.number);
            if steps.len() > MAX_STEPS {
                // Of what is not read nothing is known.
                let mounts = taken.is_some_and(|taken| !taken.mounted.is_empty());
                unasked.push(if mounts {
                    Unasked::Unknown
                } else {
                    Unasked::Nothing
                });
                continue;
            }
            let files = taken.map_or(Files::None, |taken| contexts.files(taken));
            let text = fingerprint(&whole(step, &lines));
            let asks = asks_for_binds && taken.is_some_and(|taken| !contexts.mounts_link(taken));
            unasked.push(unasked_of(taken, &text, &files, asks));
            steps.push(StepInput::new(Steps::status(stage, step), text, files));
        }
    }
    (steps, together(unasked))
}

fn unasked_of(taken: Option<&Taken>, text: &str, files: &Files, asks_for_binds: bool) -> Unasked {
    let mounted = taken.map_or(&[][..], |taken| &taken.mounted);
    let is_asked =
        |mounted: &Mounted| asks_for_binds && mounted.is_typed && mounted.of_context().is_some();
    let shows = |shown: &Shown| mounted.iter().any(|mounted| mounted.shows == *shown);
    match files {
        _ if mounted.iter().all(is_asked) => Unasked::Nothing,
        Files::TooMany => Unasked::Unknown,
        _ if shows(&Shown::Unknown) => Unasked::Unknown,
        _ if shows(&Shown::Image) => Unasked::Images,
        Files::Known(files) => Unasked::Files(format!("{text} {files}")),
        Files::None => Unasked::Unknown,
    }
}

/// Of all steps.
fn together(steps: Vec<Unasked>) -> Unasked {
    let (mut files, mut images) = (Vec::new(), false);
    for step in steps {
        match step {
            Unasked::Nothing => {}
            Unasked::Unknown => return Unasked::Unknown,
            Unasked::Images => images = true,
            Unasked::Files(digest) => files.push(digest),
        }
    }
    match files.as_slice() {
        _ if images => Unasked::Images,
        [] => Unasked::Nothing,
        files => Unasked::Files(Digest::of(files.join("\n").as_bytes()).to_string()),
    }
}

/// The contexts of a build, each read when it is asked for; `None` where one cannot be.
struct Contexts<'a> {
    sources: &'a Sources,
    /// Without what its ignore file names.
    own: Option<Fingerprints>,
    /// How many are read at most.
    among: u64,
    /// As they are, by directory; the context itself without one.
    whole: BTreeMap<Option<String>, Option<Fingerprints>>,
}

impl<'a> Contexts<'a> {
    /// Those that these steps take something of.
    fn of<'t>(sources: &'a Sources, mut taken: impl Iterator<Item = &'t Taken>) -> Self {
        let name = sources.containerfile.strip_prefix(&sources.context);
        let name = name.ok().and_then(|name| name.to_str());
        let mounts = taken.any(|taken| !taken.mounted.is_empty());
        let among = 1 + sources.named.len() as u64 + u64::from(mounts);
        Self {
            sources,
            own: Fingerprints::of(&sources.context, name, among),
            among,
            whole: BTreeMap::new(),
        }
    }

    /// Of all that a step takes of the contexts.
    fn files(&mut self, taken: &Taken) -> Files {
        let mounted = taken.mounted.iter().filter_map(Mounted::of_context);
        let mounted: Vec<&Copied> = mounted.collect();
        if taken.copied.is_empty() && mounted.is_empty() {
            return Files::None;
        }
        let all = self.copied(&taken.copied).and_then(|mut all| {
            for copied in mounted {
                all.push(
                    self.whole(copied.named.as_deref())?
                        .of_mounted(&copied.source)?,
                );
            }
            Some(all)
        });
        match all.as_deref() {
            None => Files::TooMany,
            Some([one]) => Files::Known(one.clone()),
            Some(all) => Files::Known(fingerprint(&all.join(" "))),
        }
    }

    /// Whether a step mounts what a link leads to: Buildah then asks for the link alone.
    fn mounts_link(&self, taken: &Taken) -> bool {
        let is_link = |copied: &Copied| {
            let directory = self.directory(copied.named.as_deref())?;
            let below = Path::new(copied.source.trim_start_matches('/'));
            let path: PathBuf = directory.join(below).components().collect();
            Some(path.symlink_metadata().ok()?.is_symlink())
        };
        let mut mounted = taken.mounted.iter().filter_map(Mounted::of_context);
        mounted.any(|copied| is_link(copied).unwrap_or(true))
    }

    fn directory(&self, named: Option<&str>) -> Option<&'a Path> {
        match named {
            None => Some(&self.sources.context),
            Some(directory) => self.sources.named(directory),
        }
    }

    fn copied(&mut self, copied: &[Copied]) -> Option<Vec<String>> {
        let mut by_context: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
        for copied in copied {
            let paths = by_context.entry(copied.named.as_deref()).or_default();
            paths.push(copied.source.clone());
        }
        let mut all = Vec::new();
        for (named, paths) in by_context {
            let context = match named {
                None => self.own.as_mut(),
                named => self.whole(named),
            };
            all.push(context?.of_sources(&paths)?);
        }
        Some(all)
    }

    fn whole(&mut self, named: Option<&str>) -> Option<&mut Fingerprints> {
        let (directory, among) = (self.directory(named), self.among);
        let read = || Fingerprints::of_named(directory?, among);
        let whole = self.whole.entry(named.map(str::to_owned));
        whole.or_insert_with(read).as_mut()
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

    fn read(dir: &Path, text: &str) -> Vec<StepInput> {
        read_by(dir, text, false).0
    }

    fn read_by(dir: &Path, text: &str, asks_for_binds: bool) -> (Vec<StepInput>, Unasked) {
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
        steps(&sources, &stages, &[], asks_for_binds)
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
    fn what_buildah_does_not_ask_for_is_known() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), "1").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let unasked = |run: &str, asks: bool| {
            let text = format!("FROM x AS first\nRUN {run} make\n");
            read_by(dir.path(), &text, asks).1
        };
        for (run, before, since) in [
            ("", "Nothing", "Nothing"),
            ("--mount=type=cache,target=/m", "Nothing", "Nothing"),
            ("--mount=type=bind,source=a,target=/m", "Files", "Nothing"),
            ("--mount=source=a,target=/m", "Files", "Files"),
            (
                "--mount=type=bind,source=link,target=/m",
                "Unknown",
                "Unknown",
            ),
            (
                "--mount=type=bind,source=link/b,target=/m",
                "Unknown",
                "Nothing",
            ),
            (
                "--mount=type=bind,source=$HOME,target=/m",
                "Unknown",
                "Unknown",
            ),
            ("--mount=type=bind,from=y,target=/m", "Images", "Images"),
            (
                "--mount=type=bind,source=a,target=/m --mount=from=y,target=/n",
                "Images",
                "Images",
            ),
        ] {
            let found = [false, true].map(|asks| format!("{:?}", unasked(run, asks)));
            assert!(found[0].starts_with(before), "{run}: {found:?}");
            assert!(found[1].starts_with(since), "{run}: {found:?}");
        }
        let before = unasked("--mount=source=a,target=/m", true);
        fs::write(dir.path().join("a/b"), "2").unwrap();
        assert_ne!(unasked("--mount=source=a,target=/m", true), before);
    }

    #[test]
    fn one_step_more_than_are_kept_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("FROM x\n{}", "RUN make\n".repeat(MAX_STEPS + 10));
        assert_eq!(read(dir.path(), &text).len(), MAX_STEPS + 1);
    }
}

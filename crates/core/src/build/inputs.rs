//! What a build is made of, and what of it another build of the same source had otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clean;
use super::status::{SourceStatus, StepStatus};

/// Steps that are kept at most.
pub const MAX_STEPS: usize = 128;
/// Characters of an instruction that are kept.
const INSTRUCTION: usize = 120;
/// Characters of a commit or digest in a sentence.
const SHORT: usize = 12;

/// What a build is made of, as far as it is known before the first step runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The Containerfile, relative to the root of the source.
    pub containerfile: String,
    /// The stage that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Images from registries, in the order of the file; `None` where not all of them could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bases: Option<Vec<BaseInput>>,
    /// Names of build arguments, with fingerprints of their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_args: Vec<(String, String)>,
    /// Names of named build contexts, with fingerprints of what they stand for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_contexts: Vec<(String, String)>,
    /// Names of the tests, with fingerprints of what they run and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<(String, String)>,
    /// The steps of all stages that are built, in the order of the file, at most [`MAX_STEPS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepInput>,
    /// There are further steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_steps: bool,
}

impl Inputs {
    /// All that decides what the steps make; `None` where not all of it is known.
    pub fn of_steps(&self) -> Option<Inputs> {
        let known = |step: &StepInput| step.files != Files::TooMany;
        let is_known = self.bases.is_some() && !self.more_steps && self.steps.iter().all(known);
        is_known.then(|| Self {
            tests: Vec::new(),
            ..self.clone()
        })
    }

    /// What is to be compared with these of a build whose inputs were not read: nothing differs, and not all is known.
    pub fn unread(&self) -> Self {
        Self {
            bases: None,
            ..self.clone()
        }
    }
}

/// An image from a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseInput {
    /// As it is called.
    pub reference: String,
    /// What it stood for; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInput {
    /// Where it stands.
    pub step: StepStatus,
    /// Fingerprint of the whole instruction, here-documents included.
    pub text: String,
    /// What it takes of the context.
    #[serde(default, skip_serializing_if = "Files::is_none")]
    pub files: Files,
}

/// What a step takes of the context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// Nothing.
    #[default]
    None,
    /// Files with this fingerprint.
    Known(String),
    /// More than is read to be compared.
    TooMany,
}

impl Files {
    fn is_none(&self) -> bool {
        *self == Files::None
    }
}

impl StepInput {
    /// A step; its instruction is cut where it is long.
    pub fn new(mut step: StepStatus, text: String, files: Files) -> Self {
        step.instruction = clean::short(&step.instruction, INSTRUCTION);
        Self { step, text, files }
    }

    /// Whether it is certainly another than `other`.
    fn differs(&self, other: &StepInput) -> bool {
        let files = match (&self.files, &other.files) {
            (Files::TooMany, Files::Known(_)) | (Files::Known(_), Files::TooMany) => false,
            (one, other) => one != other,
        };
        self.text != other.text || self.step.stage != other.step.stage || files
    }

    fn is_compared(&self, other: &StepInput) -> bool {
        self.files != Files::TooMany && other.files != Files::TooMany
    }
}

/// A build to be compared: where its source came from, and what it was made of.
#[derive(Debug, Clone)]
pub struct Made<'a> {
    /// As it was resolved.
    pub source: SourceStatus,
    /// The rest.
    pub inputs: &'a Inputs,
}

/// What is otherwise than in the last success of the same source. Absent: the same in both, or not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SinceSuccess {
    /// Id of that build.
    pub build_id: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// Commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Change>,
    /// Digests of the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Change>,
    /// Base images that stand for other digests, or were not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseChange>,
    /// Names of build arguments whose values differ, or that only one of both has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_args: Vec<String>,
    /// Names of named build contexts that stand for something else, or that only one of both has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_contexts: Vec<String>,
    /// Names of tests that are others, or that only one of both has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<String>,
    /// The first step that is another, or takes other files; the instruction is data from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// The instruction of that step is the same: the files that it takes from the contexts are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_its_files: Option<bool>,
    /// The same in one sentence.
    pub summary: String,
}

impl SinceSuccess {
    /// What of it are words from elsewhere, line by line.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.bases.iter().map(BaseChange::words).collect();
        if !self.build_args.is_empty() {
            words.push(format!(
                "other build arguments: {}",
                self.build_args.join(", ")
            ));
        }
        if !self.build_contexts.is_empty() {
            words.push(format!(
                "other named contexts: {}",
                self.build_contexts.join(", ")
            ));
        }
        if !self.tests.is_empty() {
            words.push(format!("other tests: {}", self.tests.join(", ")));
        }
        let step = self.step.iter();
        words.extend(step.map(|step| format!("first step that differs: {}", step.instruction)));
        words
    }
}

impl BaseChange {
    fn words(&self) -> String {
        let digest = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "none".into());
        format!(
            "base image {}: {}, before {}",
            self.image,
            digest(&self.now),
            digest(&self.before)
        )
    }
}

/// One thing, then and now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// In the build that succeeded.
    pub before: String,
    /// In this build.
    pub now: String,
}

/// A base image that is another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BaseChange {
    /// As it is called; data from elsewhere.
    pub image: String,
    /// Digest in the build that succeeded; absent: it had no such base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Digest in this build; absent: it has no such base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

/// Whether both come from the same repository or directory, by the same Containerfile and target.
pub fn is_same_source(one: &Made<'_>, other: &Made<'_>) -> bool {
    let (here, there) = (&one.source, &other.source);
    (&here.git, &here.path, &here.subdir) == (&there.git, &there.path, &there.subdir)
        && one.inputs.containerfile == other.inputs.containerfile
        && one.inputs.target == other.inputs.target
}

/// What is otherwise in `now` than in the build `id`, which succeeded.
pub fn since_success(id: &str, before: &Made<'_>, now: &Made<'_>) -> SinceSuccess {
    let change = |before: &Option<String>, now: &Option<String>| match (before, now) {
        (Some(before), Some(now)) if before != now => Some(Change {
            before: before.clone(),
            now: now.clone(),
        }),
        _ => None,
    };
    let step = first_step(before.inputs, now.inputs);
    let mut since = SinceSuccess {
        build_id: id.to_owned(),
        commit: change(&before.source.commit, &now.source.commit),
        context: change(&before.source.digest, &now.source.digest),
        bases: match (&before.inputs.bases, &now.inputs.bases) {
            (Some(before), Some(now)) => bases(before, now),
            _ => Vec::new(),
        },
        build_args: others(&before.inputs.build_args, &now.inputs.build_args),
        build_contexts: others(&before.inputs.build_contexts, &now.inputs.build_contexts),
        tests: others(&before.inputs.tests, &now.inputs.tests),
        only_its_files: step.as_ref().and_then(|(_, only)| only.then_some(true)),
        step: step.map(|(step, _)| step.step.clone()),
        ..SinceSuccess::default()
    };
    let fewer = match since.step {
        None if !now.inputs.more_steps => before
            .inputs
            .steps
            .len()
            .saturating_sub(now.inputs.steps.len()),
        _ => 0,
    };
    since.summary = summary(&since, fewer, are_compared(before.inputs, now.inputs));
    since
}

/// The first step of `now` that is not that of `before`, and whether only its files are others.
fn first_step<'a>(before: &Inputs, now: &'a Inputs) -> Option<(&'a StepInput, bool)> {
    let mut earlier = before.steps.iter();
    for step in &now.steps {
        match earlier.next() {
            Some(old) if !step.differs(old) => {}
            Some(old) => return Some((step, step.text == old.text)),
            None if before.more_steps => return None,
            None => return Some((step, false)),
        }
    }
    None
}

/// Whether nothing of the steps and their files escapes the comparison.
fn are_compared(before: &Inputs, now: &Inputs) -> bool {
    let mut steps = before.steps.iter().zip(&now.steps);
    let bases = before.bases.is_some() && now.bases.is_some();
    bases
        && !before.more_steps
        && !now.more_steps
        && steps.all(|(one, other)| one.is_compared(other))
}

fn bases(before: &[BaseInput], now: &[BaseInput]) -> Vec<BaseChange> {
    let find =
        |list: &[BaseInput], name: &str| list.iter().find(|base| base.reference == name).cloned();
    let here = now.iter().filter_map(|base| {
        let old = find(before, &base.reference);
        let differs = match &old {
            Some(old) => old.digest.is_some() && base.digest.is_some() && old.digest != base.digest,
            None => true,
        };
        differs.then(|| BaseChange {
            image: base.reference.clone(),
            before: old.and_then(|old| old.digest),
            now: base.digest.clone(),
        })
    });
    let gone = before
        .iter()
        .filter(|base| find(now, &base.reference).is_none());
    here.chain(gone.map(|base| BaseChange {
        image: base.reference.clone(),
        before: base.digest.clone(),
        now: None,
    }))
    .collect()
}

/// Names that have another fingerprint, or that only one of both has.
fn others(before: &[(String, String)], now: &[(String, String)]) -> Vec<String> {
    let missing = |of: &[(String, String)], from: &[(String, String)]| -> Vec<String> {
        let missing = of.iter().filter(|one| !from.contains(one));
        missing.map(|(name, _)| name.clone()).collect()
    };
    let mut names = missing(now, before);
    names.extend(missing(before, now));
    names.sort();
    names.dedup();
    names
}

/// In our own words and numbers only.
fn summary(since: &SinceSuccess, fewer: usize, all_compared: bool) -> String {
    let mut changes = Vec::new();
    if let Some(commit) = &since.commit {
        changes.push(format!(
            "commit {} instead of {}",
            short(&commit.now),
            short(&commit.before)
        ));
    }
    if since.context.is_some() {
        changes.push("another context".to_owned());
    }
    if let count @ 1.. = since.bases.len() {
        changes.push(counted(count, "other base image"));
    }
    if let count @ 1.. = since.build_args.len() {
        changes.push(counted(count, "other build argument"));
    }
    if let count @ 1.. = since.build_contexts.len() {
        changes.push(counted(count, "other named context"));
    }
    if let count @ 1.. = since.tests.len() {
        changes.push(counted(count, "other test"));
    }
    if let Some(step) = &since.step {
        let line = step.line.map(|line| format!(" (line {line})"));
        changes.push(format!(
            "the first step that differs{} is build {}/{}{}",
            if since.only_its_files.is_some() {
                ", by the files that it takes,"
            } else {
                ""
            },
            step.index,
            step.of,
            line.unwrap_or_default()
        ));
    } else if fewer > 0 {
        changes.push(format!("without its last {}", counted(fewer, "step")));
    } else if !changes.is_empty() && all_compared {
        changes.push("every step and the files that it takes are the same".to_owned());
    }
    let head = format!("since its last success {}", since.build_id);
    match (changes.is_empty(), all_compared) {
        (false, _) => format!("{head}: {}", changes.join(", ")),
        (true, true) => format!(
            "{head}: the same source, base images, build arguments, steps and tests; what has changed is outside of them, or differs from run to run"
        ),
        (true, false) => {
            format!("{head}: what could be compared is the same; not everything could be")
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The beginning of a commit, where it is one.
fn short(commit: &str) -> String {
    match commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => commit.chars().take(SHORT).collect(),
        false => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(index: u32, text: &str, files: Files) -> StepInput {
        StepInput::new(
            StepStatus {
                index,
                of: 3,
                stage: Some("0".into()),
                instruction: text.into(),
                line: Some(index * 10),
            },
            text.into(),
            files,
        )
    }

    fn inputs() -> Inputs {
        Inputs {
            containerfile: "Containerfile".into(),
            bases: Some(vec![BaseInput {
                reference: "host/base:1".into(),
                digest: Some("sha256:aa".into()),
            }]),
            build_args: vec![("A".into(), "1".into()), ("B".into(), "1".into())],
            tests: vec![("unit".into(), "1".into())],
            steps: vec![
                step(1, "FROM host/base:1", Files::None),
                step(2, "COPY . .", Files::Known("f1".into())),
                step(3, "RUN make", Files::None),
            ],
            ..Inputs::default()
        }
    }

    fn source(commit: &str) -> SourceStatus {
        SourceStatus {
            git: Some("https://host/r".into()),
            commit: Some(commit.into()),
            ..SourceStatus::default()
        }
    }

    fn compare(before: &Inputs, now: &Inputs, commits: (&str, &str)) -> SinceSuccess {
        let made = |commit, inputs| Made {
            source: source(commit),
            inputs,
        };
        since_success(
            "b7k2m-9xqdt",
            &made(commits.0, before),
            &made(commits.1, now),
        )
    }

    #[test]
    fn what_is_the_same_is_said_to_be() {
        let since = compare(&inputs(), &inputs(), ("ab", "ab"));
        assert!(
            since.summary.contains("the same source"),
            "{}",
            since.summary
        );
        assert_eq!(
            (since.step, since.commit, since.bases.len()),
            (None, None, 0)
        );
    }

    #[test]
    fn each_change_is_named() {
        let mut now = inputs();
        now.bases = Some(vec![
            BaseInput {
                reference: "host/base:1".into(),
                digest: Some("sha256:bb".into()),
            },
            BaseInput {
                reference: "host/new:1".into(),
                digest: None,
            },
        ]);
        now.build_args = vec![("B".into(), "2".into()), ("C".into(), "1".into())];
        now.tests = vec![("unit".into(), "2".into())];
        now.steps[1].files = Files::Known("f2".into());
        let since = compare(&inputs(), &now, ("abc0", "abc1"));
        assert_eq!(since.build_args, ["A", "B", "C"]);
        assert_eq!(since.tests, ["unit"]);
        let bases: Vec<_> = since
            .bases
            .iter()
            .map(|base| {
                (
                    base.image.as_str(),
                    base.before.as_deref(),
                    base.now.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            bases,
            [
                ("host/base:1", Some("sha256:aa"), Some("sha256:bb")),
                ("host/new:1", None, None)
            ]
        );
        assert_eq!(since.step.as_ref().map(|step| step.index), Some(2));
        assert_eq!(since.only_its_files, Some(true));
        assert_eq!(
            since.summary,
            "since its last success b7k2m-9xqdt: commit abc1 instead of abc0, 2 other base images, 3 other build arguments, 1 other test, \
             the first step that differs, by the files that it takes, is build 2/3 (line 20)"
        );
        now.steps[1] = step(2, "COPY src .", Files::Known("f2".into()));
        assert_eq!(compare(&inputs(), &now, ("ab", "ab")).only_its_files, None);
        assert_eq!(compare(&now, &inputs(), ("ab", "ab")).bases[1].now, None);
        now.bases = None;
        assert!(compare(&inputs(), &now, ("ab", "ab")).bases.is_empty());
    }

    #[test]
    fn what_was_not_read_is_neither_the_same_nor_another() {
        let mut now = inputs();
        now.steps[1].files = Files::TooMany;
        let since = compare(&inputs(), &now, ("ab", "ab"));
        assert_eq!(since.step, None);
        assert!(
            since.summary.ends_with("not everything could be"),
            "{}",
            since.summary
        );
        now.steps[2].text = "RUN make all".into();
        assert_eq!(
            compare(&inputs(), &now, ("ab", "ab"))
                .step
                .map(|step| step.index),
            Some(3)
        );
    }

    #[test]
    fn a_step_more_differs_and_a_step_less_does_not() {
        let mut longer = inputs();
        longer.steps.push(step(4, "RUN x", Files::None));
        assert_eq!(
            compare(&inputs(), &longer, ("ab", "ab"))
                .step
                .map(|step| step.index),
            Some(4)
        );
        let shorter = compare(&longer, &inputs(), ("ab", "ab"));
        assert_eq!(shorter.step, None);
        assert!(
            shorter.summary.ends_with(": without its last 1 step"),
            "{}",
            shorter.summary
        );
        let mut cut = inputs();
        cut.more_steps = true;
        assert_eq!(compare(&cut, &longer, ("ab", "ab")).step, None);
    }

    #[test]
    fn sources_are_the_same_by_place_file_and_target() {
        let here = inputs();
        let here = Made {
            source: source("ab"),
            inputs: &here,
        };
        let same =
            |source: SourceStatus, inputs: &Inputs| is_same_source(&here, &Made { source, inputs });
        assert!(same(source("cd"), &inputs()));
        let target = Inputs {
            target: Some("x".into()),
            ..inputs()
        };
        assert!(!same(source("ab"), &target));
        let file = Inputs {
            containerfile: "Dockerfile".into(),
            ..inputs()
        };
        assert!(!same(source("ab"), &file));
        let sub = SourceStatus {
            subdir: Some("sub".into()),
            ..source("ab")
        };
        assert!(!same(sub, &inputs()));
    }
}

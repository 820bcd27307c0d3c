//! Follows Buildah's `STEP` lines against the parsed Containerfile, to the step that failed.

use crate::build::clean;
use crate::build::status::StepStatus;
use crate::containerfile::{Containerfile, Stage, Step, StepLine};
use crate::log::Line;

use super::buildah::{last_error, named_step};

/// Characters of an instruction that are shown.
const SHOWN: usize = 300;

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path of the Containerfile relative to the root of the source.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// Name or number of the stage.
    pub stage: String,
    /// Step within the stage.
    pub step: u32,
    /// The instruction as Buildah prints it.
    pub instruction: String,
    /// The base image whose ONBUILD instruction this is; file and line are then those of the FROM.
    pub trigger_of: Option<String>,
}

impl Place {
    /// Where a step of the Containerfile `file` stands.
    pub fn of(file: &str, stage: &Stage, step: &Step) -> Self {
        Self {
            file: file.to_owned(),
            line: step.line,
            stage: name(stage),
            step: u32::try_from(step.number).unwrap_or(u32::MAX),
            instruction: step.text.clone(),
            trigger_of: None,
        }
    }
}

fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

fn name(stage: &Stage) -> String {
    stage
        .name
        .clone()
        .unwrap_or_else(|| stage.index.to_string())
}

/// The `STEP` line that a line of output is or ends with: what a command printed before may have had no newline.
pub(super) fn step_line(line: &str) -> Option<StepLine<'_>> {
    StepLine::parse(line).or_else(|| {
        line.match_indices("STEP ").find_map(|(at, _)| {
            let before = line.get(..at)?.strip_suffix("] ");
            let from = before.and_then(|before| before.rfind('[')).unwrap_or(at);
            StepLine::parse(line.get(from..)?)
        })
    })
}

/// A step that began last, or that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Where it stands.
    pub place: Place,
    /// Index of its stage in the file.
    pub stage: usize,
    /// Its number in the stage.
    pub step: usize,
}

/// The steps of a build as they begin.
#[derive(Debug)]
pub struct Steps<'a> {
    parsed: &'a Containerfile,
    file: &'a str,
    last: (usize, usize),
    reached: Option<Reached>,
}

impl<'a> Steps<'a> {
    /// None has begun; `file` is the Containerfile's path as it is shown.
    pub fn new(parsed: &'a Containerfile, file: &'a str) -> Self {
        Self {
            parsed,
            file,
            last: (0, 0),
            reached: None,
        }
    }

    /// A step that begins. What a command prints may look the same: a step is believed only when
    /// it is the next one, and the Containerfile has its text.
    pub fn observe(&mut self, line: &str) -> Option<StepStatus> {
        let printed = step_line(line)?;
        let (stage, step) = self.last;
        let next = (printed.stage == stage && printed.step == step + 1)
            || (printed.stage > stage && printed.step == 1);
        if !next {
            return None;
        }
        self.last = (printed.stage, printed.step);
        let (stage, step) = self
            .parsed
            .locate(printed.stage, printed.step, printed.text)?;
        self.reached = Some(self.at(stage, step));
        Some(StepStatus {
            index: number(printed.step),
            of: number(printed.steps.unwrap_or(stage.steps.len())),
            ..Self::status(stage, step)
        })
    }

    /// A step as it stands in the file.
    pub fn status(stage: &Stage, step: &Step) -> StepStatus {
        StepStatus {
            index: number(step.number),
            of: number(stage.steps.len()),
            stage: Some(name(stage)),
            instruction: clean::short(&step.text, SHOWN),
            line: Some(step.line),
        }
    }

    /// Where it failed: the step that Buildah itself names at its end, which no command can forge.
    pub fn failed_at(&self, lines: &[(u64, Line)]) -> Option<Reached> {
        let Some(text) = named_step(lines) else {
            return self.reached.clone();
        };
        if let Some(reached) = self
            .reached
            .as_ref()
            .filter(|reached| self.is_named(reached, lines))
        {
            return Some(reached.clone());
        }
        let (stage, step) = self.last;
        if let Some((stage, step)) = self.parsed.locate(stage, step, text) {
            return Some(self.at(stage, step));
        }
        let stage = self.parsed.stages.get(stage.checked_sub(1)?)?;
        let alike = |step: &&Step| text.starts_with(&step.text) || step.message.starts_with(text);
        if let Some(step) = stage.steps.iter().skip(1).find(alike) {
            return Some(self.at(stage, step));
        }
        let mut reached = self.reached.clone()?;
        // No instruction of the file, right behind a FROM: it is one that the base image brings.
        if reached.step == 1 {
            reached.place.trigger_of = Some(stage.base.clone());
            reached.place.instruction = text.to_owned();
        }
        Some(reached)
    }

    /// Whether Buildah's last error names the step that began last.
    fn is_named(&self, reached: &Reached, lines: &[(u64, Line)]) -> bool {
        let step = self
            .parsed
            .stages
            .get(reached.stage)
            .and_then(|stage| stage.steps.iter().find(|step| step.number == reached.step));
        let named = |text: &str| {
            last_error(lines)
                .is_some_and(|(_, error)| error.contains(&format!("building at STEP \"{text}\": ")))
        };
        step.is_some_and(|step| named(&step.text) || named(step.message.trim()))
    }

    fn at(&self, stage: &Stage, step: &Step) -> Reached {
        Reached {
            place: Place::of(self.file, stage, step),
            stage: stage.index,
            step: step.number,
        }
    }
}

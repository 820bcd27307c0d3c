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

/// Numbers that a `STEP` line has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct At {
    stage: usize,
    step: usize,
    of: Option<usize>,
}

impl At {
    /// Whether the other is the next one.
    fn leads_to(self, next: Self) -> bool {
        let is_complete = self.of.is_none_or(|of| self.step >= of);
        match next.stage == self.stage {
            true => next.step == self.step + 1,
            false => next.stage > self.stage && next.step == 1 && is_complete,
        }
    }

    fn is_before(self, other: Self) -> bool {
        (self.stage, self.step) < (other.stage, other.step)
    }
}

/// The steps of a build as they begin.
#[derive(Debug)]
pub struct Steps<'a> {
    parsed: &'a Containerfile,
    file: &'a str,
    last: At,
    /// The step that began last, as far as each followed from the one before.
    reached: Option<Reached>,
    /// The one before it.
    before: Option<Reached>,
    /// A later step, whose forerunner was not seen: a line without an end may have hidden it, or a command has made
    /// this one up.
    doubtful: Option<(At, Reached)>,
}

impl<'a> Steps<'a> {
    /// None has begun; `file` is the Containerfile's path as it is shown.
    pub fn new(parsed: &'a Containerfile, file: &'a str) -> Self {
        Self {
            parsed,
            file,
            last: At::default(),
            reached: None,
            before: None,
            doubtful: None,
        }
    }

    /// A step that begins. What a command prints may look the same: a step is believed only where the Containerfile
    /// has its text, and it is the next one. A later one is believed until one comes that is the next.
    pub fn observe(&mut self, line: &str) -> Option<StepStatus> {
        let printed = step_line(line)?;
        let now = At {
            stage: printed.stage,
            step: printed.step,
            of: printed.steps,
        };
        if !self.last.is_before(now) || now.stage > self.parsed.stages.len() {
            return None;
        }
        let (stage, step) = self
            .parsed
            .locate(printed.stage, printed.step, printed.text)?;
        let place = self.at(stage, step);
        let status = StepStatus {
            index: number(printed.step),
            of: number(printed.steps.unwrap_or(stage.steps.len())),
            ..Self::status(stage, step)
        };
        let doubtful = self.doubtful.take();
        if self.last.leads_to(now) {
            self.before = self.reached.replace(place);
            self.last = now;
        } else if let Some((_, before)) = doubtful.filter(|(at, _)| at.leads_to(now)) {
            self.before = Some(before);
            self.reached = Some(place);
            self.last = now;
        } else {
            self.doubtful = Some((now, place));
        }
        Some(status)
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
        let doubtful = self.doubtful.as_ref().map(|(_, place)| place);
        let latest = doubtful.or(self.reached.as_ref());
        let Some(text) = named_step(lines) else {
            return latest.cloned();
        };
        let seen = [self.reached.as_ref(), doubtful, self.before.as_ref()];
        let mut seen = seen.into_iter().flatten();
        if let Some(named) = seen.find(|reached| self.is_named(reached, lines)) {
            return Some(named.clone());
        }
        if let Some((stage, step)) = self.parsed.locate(self.last.stage, self.last.step, text) {
            return Some(self.at(stage, step));
        }
        let stage = self.last.stage.checked_sub(1);
        let Some(stage) = stage.and_then(|index| self.parsed.stages.get(index)) else {
            return latest.cloned();
        };
        let alike = |step: &&Step| text.starts_with(&step.text) || step.message.starts_with(text);
        if let Some(step) = stage.steps.iter().skip(1).find(alike) {
            return Some(self.at(stage, step));
        }
        let mut reached = latest.cloned()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Phase;
    use crate::build::request::Stream;

    const TWO_STAGES: &str =
        "FROM base AS a\nRUN noise\nRUN make\nRUN x\nRUN make\nFROM base\nRUN make\n";

    /// The line of the Containerfile at which a build is said to have failed that printed this.
    fn failed(containerfile: &str, printed: &[&str], named: &str) -> Option<u32> {
        let parsed = Containerfile::parse(containerfile).unwrap();
        let mut steps = Steps::new(&parsed, "Containerfile");
        for line in printed {
            steps.observe(line);
        }
        let error = Line {
            phase: Phase::Build,
            step: None,
            test: None,
            stream: Stream::Output,
            text: format!("Error: building at STEP \"{named}\": exit status 1"),
        };
        steps
            .failed_at(&[(1, error)])
            .map(|reached| reached.place.line)
    }

    #[test]
    fn a_step_whose_line_was_hidden_ends_nothing() {
        // What the second step printed had no end, so that the line of the third was cut off.
        let printed = [
            "[1/2] STEP 1/5: FROM base AS a",
            "[1/2] STEP 2/5: RUN noise",
            "[1/2] STEP 4/5: RUN x",
            "[1/2] STEP 5/5: RUN make",
        ];
        assert_eq!(failed(TWO_STAGES, &printed, "RUN make"), Some(5));
        assert_eq!(failed(TWO_STAGES, &printed[..3], "RUN x"), Some(4));
        assert_eq!(failed(TWO_STAGES, &printed[..2], "RUN make"), Some(3));
    }

    #[test]
    fn a_step_that_a_command_makes_up_moves_nothing() {
        let begun = [
            "[1/2] STEP 1/5: FROM base AS a",
            "[1/2] STEP 2/5: RUN noise",
        ];
        for forged in [
            "[9/9] STEP 1/1: FROM x",
            "[2/2] STEP 1/2: FROM base",
            "[2/2] STEP 2/2: RUN make",
            "[1/2] STEP 5/5: RUN make",
            "[1/2] STEP 3/5: RUN unheard-of",
        ] {
            let printed = [&begun[..], &[forged, "[1/2] STEP 3/5: RUN make"]].concat();
            assert_eq!(
                failed(TWO_STAGES, &printed, "RUN make"),
                Some(3),
                "{forged}"
            );
        }
        // The last step of a stage can be followed by the next stage.
        let printed = [
            "[1/2] STEP 1/5: FROM base AS a",
            "[1/2] STEP 2/5: RUN noise",
            "[1/2] STEP 3/5: RUN make",
            "[1/2] STEP 4/5: RUN x",
            "[1/2] STEP 5/5: RUN make",
            "[2/2] STEP 1/2: FROM base",
        ];
        assert_eq!(failed(TWO_STAGES, &printed, "RUN make"), Some(5));
    }
}

//! From a `STEP` line of Buildah's output back to the file.

use super::{Containerfile, Keyword, Stage, Step};

/// A line `[s/S] STEP n/m: text`. Programs run by the build can print such lines, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLine<'a> {
    /// Position of the stage, counted from 1; 1 if the line has none, as in a build of one stage.
    pub stage: usize,
    /// Number of the step in the stage, counted from 1.
    pub step: usize,
    /// Number of steps of the stage, if printed.
    pub steps: Option<usize>,
    /// The instruction.
    pub text: &'a str,
}

impl<'a> StepLine<'a> {
    /// Reads a line of output. `None` if it is something else.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut rest = line.trim_end_matches(['\r', '\n']);
        let mut stage = 1;
        // A build for several platforms puts `[os/arch]` before the stage.
        while let Some((bracket, after)) = rest.strip_prefix('[').and_then(|r| r.split_once("] ")) {
            let (left, right) = bracket.split_once('/')?;
            if let (Ok(position), Ok(_)) = (left.parse(), right.parse::<usize>()) {
                stage = position;
            }
            rest = after;
        }
        let (count, text) = rest.strip_prefix("STEP ")?.split_once(':')?;
        let (step, steps) = match count.split_once('/') {
            Some((step, steps)) => (step, Some(steps.parse().ok()?)),
            None => (count, None),
        };
        Some(Self {
            stage,
            step: step.parse().ok()?,
            steps,
            text: text.strip_prefix(' ').unwrap_or(text),
        })
    }
}

impl Containerfile {
    /// The step Buildah means by stage `stage` and step `number`, both counted from 1 as printed,
    /// and the `text` it prints after `STEP n/m: ` or in `building at STEP "…"`.
    ///
    /// The text decides. If the step of that number has another one (triggers of the base image and
    /// options of the command line shift the numbers), the nearest step of the stage with that text
    /// is meant, else the only one of the file. `None` if there is none, as for a step that is not
    /// in the file.
    #[must_use]
    pub fn locate(&self, stage: usize, number: usize, text: &str) -> Option<(&Stage, &Step)> {
        let text = text.trim();
        let here = self.stages.get(stage.checked_sub(1)?);
        let near = here.and_then(|stage| {
            let steps = stage.steps.iter().filter(|step| step.is_printed_as(text));
            let step = steps.min_by_key(|step| step.number.abs_diff(number))?;
            Some((stage, step))
        });
        near.or_else(|| {
            let steps = self.stages.iter().flat_map(|stage| {
                let steps = stage.steps.iter().skip(1);
                steps.map(move |step| (stage, step))
            });
            let mut steps = steps.filter(|(_, step)| step.is_printed_as(text));
            let only = steps.next()?;
            steps.next().is_none().then_some(only)
        })
    }
}

impl Step {
    /// Whether Buildah prints the step as `text`, which is trimmed.
    fn is_printed_as(&self, text: &str) -> bool {
        if self.keyword == Keyword::From {
            // It prints the base with variables replaced, or the ID of a stage's image.
            return text == "FROM" || text.starts_with("FROM ");
        }
        if text == self.text || text == self.message.trim() {
            return true;
        }
        if self.heredocs.is_empty() {
            return false;
        }
        let summaries = self.heredocs.iter().map(|doc| format!("({})", doc.summary));
        let summaries: Vec<String> = summaries.collect();
        text.strip_prefix(self.text.as_str())
            .is_some_and(|rest| rest.trim_start() == summaries.join(" "))
    }
}

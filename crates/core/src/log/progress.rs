//! What a log tells of its build so far.

use crate::build::conclude::Outcome;
use crate::build::inputs::Inputs;
use crate::build::output::{OutputStatus, is_file_name};
use crate::build::state::{Event as Change, Standing, apply};
use crate::build::status::{
    ImageStatus, Resources, SourceStatus, StepStatus, TagState, TestStatus,
};
use crate::build::{Phase, State};

use super::record::{Body, Event, LogRecord};

/// The state of a build as its records tell it.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// State and phase.
    pub standing: Standing,
    /// When the first record was written, in milliseconds since 1970.
    pub started: Option<i64>,
    /// When the last record was written, in milliseconds since 1970.
    pub last: Option<i64>,
    /// Number of the last line.
    pub lines: u64,
    /// Text of the last line that is not empty.
    pub last_line: Option<String>,
    /// The source as it was resolved.
    pub source: Option<SourceStatus>,
    /// What it is made of.
    pub inputs: Option<Inputs>,
    /// The last step that began.
    pub step: Option<StepStatus>,
    /// The image.
    pub image: Option<ImageStatus>,
    /// Tests that ended.
    pub tests: Vec<TestStatus>,
    /// What is ready to be handed over, or is not there.
    pub outputs: Vec<OutputStatus>,
    /// Test that runs.
    pub running_test: Option<String>,
    /// Seconds of each phase that ended.
    pub phase_seconds: Vec<(Phase, f64)>,
    /// Publish passed its commit point.
    pub committed: bool,
    /// What it used.
    pub resources: Option<Resources>,
    /// The last runner's last word.
    pub outcome: Option<Outcome>,
    /// Grows with everything but lines: who waits for a change compares it.
    pub generation: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            standing: Standing::ACCEPTED,
            started: None,
            last: None,
            lines: 0,
            last_line: None,
            source: None,
            inputs: None,
            step: None,
            image: None,
            tests: Vec::new(),
            outputs: Vec::new(),
            running_test: None,
            phase_seconds: Vec::new(),
            committed: false,
            resources: None,
            outcome: None,
            generation: 0,
        }
    }
}

impl Progress {
    /// Takes one record in.
    pub fn take(&mut self, record: LogRecord) {
        self.started.get_or_insert(record.t);
        self.last = Some(record.t);
        self.lines = self.lines.max(record.n);
        match record.body {
            Body::Line(line) => {
                self.standing = apply(self.standing, Change::Phase(line.phase));
                if !line.text.trim().is_empty() {
                    self.last_line = Some(line.text);
                }
            }
            Body::Event(event) => {
                self.generation += 1;
                self.event(*event);
            }
        }
    }

    fn event(&mut self, event: Event) {
        if let Some(outcome) = event.outcome() {
            self.outcome = Some(outcome);
            return;
        }
        match event {
            Event::PhaseStarted { phase } => {
                self.standing = apply(self.standing, Change::Phase(phase));
                // Another runner took over: its word counts from here.
                self.outcome = None;
            }
            Event::PhaseEnded { phase, seconds } => self.phase_seconds.push((phase, seconds)),
            Event::Source { source } => self.source = Some(source),
            Event::Inputs { inputs } => self.inputs = Some(inputs),
            Event::StepStarted { step } => self.step = Some(step),
            Event::Image { id } => self.image.get_or_insert_default().id = id,
            Event::TestStarted { name } => self.running_test = Some(name),
            Event::TestEnded { result } => {
                self.running_test = None;
                self.tests.push(result);
            }
            // A name is a file's, wherever it is taken to.
            Event::Output { output } if !is_file_name(&output.name) => {}
            Event::Output { output } => {
                self.outputs.retain(|old| !old.is_same(&output));
                self.outputs.push(output);
            }
            Event::Packed { digest, size_bytes } => {
                let image = self.image.get_or_insert_default();
                image.digest = Some(digest);
                image.size_bytes = Some(size_bytes);
            }
            Event::Committed => self.committed = true,
            Event::Tag { tag } => {
                let image = self.image.get_or_insert_default();
                image.tags.retain(|old| old.tag != tag.tag);
                image.tags.push(tag);
            }
            Event::TagRefused { tag } => {
                if let Some(image) = &mut self.image {
                    image.tags.retain(|old| old.tag != tag);
                }
            }
            Event::Used {
                peak_memory_mb,
                limit_mb,
            } => {
                self.resources = Some(Resources {
                    peak_memory_mb: Some(peak_memory_mb),
                    limit_mb,
                });
            }
            Event::Gap { .. } | Event::Result { .. } => {}
        }
    }

    /// Whether every one of `tags` is confirmed.
    pub fn published(&self, tags: &[String]) -> bool {
        !tags.is_empty()
            && self.image.as_ref().is_some_and(|image| {
                tags.iter().all(|tag| {
                    image
                        .tags
                        .iter()
                        .any(|done| &done.tag == tag && done.state == TagState::Confirmed)
                })
            })
    }

    /// The state, as far as the log tells it.
    pub fn state(&self) -> State {
        self.standing.state
    }
}

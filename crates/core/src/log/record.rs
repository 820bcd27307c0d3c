//! One record of a log.

use serde::{Deserialize, Serialize};

use crate::build::failure::Failure;
use crate::build::inputs::Inputs;
use crate::build::output::OutputStatus;
use crate::build::request::Stream;
use crate::build::status::{SourceStatus, StepStatus, TagStatus, TestStatus};
use crate::build::{Phase, conclude::Outcome};

use super::frame;

/// Version of the format.
pub const LOG_VERSION: u32 = 1;

/// A line or an event, with its number and time.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// Number of the line; for an event that of the line before it.
    pub n: u64,
    /// For a line, the number of the first line of the unbroken run of lines of its phase, step and
    /// test; 0: not told.
    pub since: u64,
    /// Milliseconds since 1970.
    pub t: i64,
    /// What it is.
    pub body: Body,
}

/// See [`LogRecord`].
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A line of output.
    Line(Line),
    /// Something that happened.
    Event(Box<Event>),
}

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Phase that printed it.
    pub phase: Phase,
    /// Step and number of steps, in the phase `build`.
    pub step: Option<(u32, u32)>,
    /// Test that printed it, in the phase `test`.
    pub test: Option<String>,
    /// Where it came from.
    pub stream: Stream,
    /// The text, without control characters and secrets.
    pub text: String,
}

/// Where a line comes from, to be told of many.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// See [`Line::phase`].
    pub phase: Phase,
    /// See [`Line::step`].
    pub step: Option<(u32, u32)>,
    /// See [`Line::test`].
    pub test: Option<&'a str>,
    /// See [`Line::stream`].
    pub stream: Stream,
}

impl Line {
    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        Origin {
            phase: self.phase,
            step: self.step,
            test: self.test.as_deref(),
            stream: self.stream,
        }
    }

    /// Becomes another line in the same memory.
    pub(crate) fn become_other(&mut self, origin: &Origin<'_>, text: &str) {
        (self.phase, self.step, self.stream) = (origin.phase, origin.step, origin.stream);
        if self.test.as_deref() != origin.test {
            self.test = origin.test.map(str::to_owned);
        }
        text.clone_into(&mut self.text);
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A phase began.
    PhaseStarted {
        /// Which.
        phase: Phase,
    },
    /// A phase ended, well or not.
    PhaseEnded {
        /// Which.
        phase: Phase,
        /// Seconds it took.
        seconds: f64,
    },
    /// The source is known.
    Source {
        /// As it was resolved.
        source: SourceStatus,
    },
    /// What it is made of.
    Inputs {
        /// All of it.
        inputs: Inputs,
    },
    /// A step of the Containerfile began.
    StepStarted {
        /// Which.
        step: StepStatus,
    },
    /// The image is built.
    Image {
        /// Digest of its configuration.
        id: String,
    },
    /// A test began.
    TestStarted {
        /// Its name.
        name: String,
    },
    /// A test ended.
    TestEnded {
        /// How.
        result: TestStatus,
    },
    /// Something is ready to be handed over, or there is none.
    Output {
        /// What.
        output: OutputStatus,
    },
    /// The image lies ready for the push.
    Packed {
        /// Digest of its manifest.
        digest: String,
        /// Size of its layers, in bytes.
        size_bytes: u64,
    },
    /// Publish passed its commit point: from now on tags are written.
    Committed,
    /// A tag was written, or may have been.
    Tag {
        /// Which, and how sure.
        tag: TagStatus,
    },
    /// The registry refused a tag: it is certainly not written.
    TagRefused {
        /// Which.
        tag: String,
    },
    /// Lines were left out because the log had reached its limit.
    Gap {
        /// How many.
        lines: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// What the build used so far.
    Used {
        /// Largest memory of its processes together, or of one where the host does not count
        /// that, in MiB.
        peak_memory_mb: u64,
        /// The limit that held, in MiB.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_mb: Option<u64>,
    },
    /// The runner's last word.
    Result {
        /// passed, failed, timed_out or interrupted.
        outcome: ResultWord,
        /// Why, for the two in the middle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
}

/// See [`Event::Result`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of Outcome")]
pub enum ResultWord {
    Passed,
    Failed,
    TimedOut,
    Interrupted,
}

impl Event {
    /// The runner's last word as an event.
    pub fn result(outcome: &Outcome) -> Self {
        let (outcome, failure) = match outcome {
            Outcome::Passed => (ResultWord::Passed, None),
            Outcome::Interrupted => (ResultWord::Interrupted, None),
            Outcome::Failed(failure) => (ResultWord::Failed, Some((**failure).clone())),
            Outcome::TimedOut(failure) => (ResultWord::TimedOut, Some((**failure).clone())),
        };
        Event::Result { outcome, failure }
    }

    /// The outcome, where this is the runner's last word.
    pub fn outcome(&self) -> Option<Outcome> {
        let Event::Result { outcome, failure } = self else {
            return None;
        };
        Some(match (outcome, failure) {
            (ResultWord::Passed, _) => Outcome::Passed,
            (ResultWord::Failed, Some(failure)) => Outcome::Failed(Box::new(failure.clone())),
            (ResultWord::TimedOut, Some(failure)) => Outcome::TimedOut(Box::new(failure.clone())),
            (ResultWord::Interrupted | ResultWord::Failed | ResultWord::TimedOut, _) => {
                Outcome::Interrupted
            }
        })
    }
}

impl Event {
    /// Changes the words in it that may come from elsewhere.
    pub fn mask(&mut self, mask: impl Fn(&str) -> String) {
        let change = |text: &mut String| *text = mask(text);
        match self {
            Event::StepStarted { step } => {
                change(&mut step.instruction);
                step.stage.iter_mut().for_each(change);
            }
            Event::Inputs { inputs } => {
                for base in inputs.bases.iter_mut().flatten() {
                    change(&mut base.reference);
                }
                for input in &mut inputs.steps {
                    change(&mut input.step.instruction);
                    input.step.stage.iter_mut().for_each(change);
                }
            }
            Event::TestEnded { result } => {
                result.excerpt.iter_mut().for_each(change);
                for case in result
                    .report
                    .iter_mut()
                    .flat_map(|report| &mut report.failures)
                {
                    change(&mut case.name);
                    let words = [&mut case.file, &mut case.message];
                    words.into_iter().flatten().for_each(change);
                }
            }
            Event::Result {
                failure: Some(failure),
                ..
            } => {
                change(&mut failure.message);
                let words = [
                    &mut failure.file,
                    &mut failure.stage,
                    &mut failure.instruction,
                    &mut failure.excerpt,
                    &mut failure.hint,
                ];
                words.into_iter().flatten().for_each(change);
                for location in &mut failure.locations {
                    change(&mut location.file);
                    location.message.iter_mut().for_each(change);
                }
            }
            _ => {}
        }
    }
}

/// The record as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    v: u32,
    n: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    s: u64,
    t: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<Stream>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    text: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Box<Event>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl LogRecord {
    /// A record of a line.
    pub fn of_line(n: u64, since: u64, t: i64, line: Line) -> Self {
        Self {
            n,
            since,
            t,
            body: Body::Line(line),
        }
    }

    /// A record of an event behind line `n`.
    pub fn of_event(n: u64, t: i64, event: Event) -> Self {
        Self {
            n,
            since: 0,
            t,
            body: Body::Event(Box::new(event)),
        }
    }

    /// The line, if it is one.
    pub fn line(&self) -> Option<&Line> {
        match &self.body {
            Body::Line(line) => Some(line),
            Body::Event(_) => None,
        }
    }

    /// Appends the record and a newline to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.body {
            Body::Line(line) => {
                let mut origin = Vec::new();
                frame::origin(line, &mut origin);
                let mut middle = Vec::new();
                frame::middle(self.since, self.t, &origin, &mut middle);
                frame::line(self.n, &middle, &line.text, out);
            }
            Body::Event(event) => {
                let wire = Wire {
                    v: LOG_VERSION,
                    n: self.n,
                    s: 0,
                    t: self.t,
                    phase: None,
                    step: None,
                    test: None,
                    stream: None,
                    text: None,
                    event: Some(event.clone()),
                };
                // Writing into memory cannot fail, and every field has a JSON form.
                if serde_json::to_writer(&mut *out, &wire).is_ok() {
                    out.push(b'\n');
                }
            }
        }
    }

    /// Reads one line of a log; `None` for what is no record (a torn line, another version).
    pub fn decode(line: &[u8]) -> Option<Self> {
        let wire: Wire<'_> = serde_json::from_slice(line).ok()?;
        if wire.v != LOG_VERSION {
            return None;
        }
        let body = match (wire.event, wire.phase, wire.text) {
            (Some(event), _, _) => Body::Event(event),
            (None, Some(phase), Some(text)) => Body::Line(Line {
                phase,
                step: wire.step,
                test: wire.test,
                stream: wire.stream.unwrap_or(Stream::Runner),
                text: text.into_owned(),
            }),
            _ => return None,
        };
        Some(Self {
            n: wire.n,
            since: wire.s,
            t: wire.t,
            body,
        })
    }
}

impl Line {
    /// Whether both come from the same phase, step and test.
    pub fn is_of_run(&self, other: &Line) -> bool {
        (self.phase, self.step, &self.test) == (other.phase, other.step, &other.test)
    }

    /// Where it comes from, as an agent sees it: `build 3/7`.
    pub fn place(&self) -> String {
        let mut place = self.phase.as_str().to_owned();
        if let Some((step, of)) = self.step {
            place.push_str(&format!(" {step}/{of}"));
        }
        if let Some(test) = &self.test {
            place.push(' ');
            place.push_str(test);
        }
        place
    }

    /// The line as an agent sees it, with its number: `1042 build 3/7 | cc: error`.
    pub fn render(&self, n: u64) -> String {
        format!("{n} {} | {}", self.place(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_back_as_they_were(text in ".*", n: u64, t: i64, step: Option<(u32, u32)>) {
            let record = LogRecord::of_line(n, 0, t, Line {
                phase: Phase::Build, step, test: None, stream: Stream::Output, text });
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.iter().filter(|&&b| b == b'\n').count(), 1);
            prop_assert_eq!(LogRecord::decode(bytes.trim_ascii_end()), Some(record));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = LogRecord::decode(&bytes);
        }
    }
}

//! What a runner tells: numbered records, and of them what a diagnosis will want.
//!
//! What is done for each line of a build's output stands here and below, and nothing of it is generic.

use std::io;

use crate::build::Phase;
use crate::diagnosis::Recent;
use crate::log::lines::Lines;
use crate::log::{Event, Line, Origin, RecordWriter};

/// Writes records, and remembers the last lines and those that tell of a failure.
///
/// A build goes on without its log: what kept it from being written is told once, by [`Journal::failure`].
#[derive(Debug)]
pub struct Journal {
    writer: RecordWriter<'static>,
    kept: Recent,
    step: Option<(u32, u32)>,
    failure: Failure,
}

/// What kept the log from being written.
#[derive(Debug)]
enum Failure {
    None,
    Untold(io::Error),
    Told,
}

impl Failure {
    fn note(&mut self, written: io::Result<()>) {
        if let (Err(error), Failure::None) = (written, &*self) {
            *self = Failure::Untold(error);
        }
    }
}

impl Journal {
    /// A journal of which nothing is written yet by this runner.
    #[must_use]
    pub fn new(writer: RecordWriter<'static>) -> Self {
        Self {
            writer,
            kept: Recent::default(),
            step: None,
            failure: Failure::None,
        }
    }

    /// Takes a line, cleaned and masked, at the time `t` in milliseconds since 1970; its step is the one that has begun.
    pub fn line(&mut self, t: i64, origin: &Origin<'_>, text: &str) {
        let step = self.step.filter(|_| origin.phase == Phase::Build);
        let origin = Origin { step, ..*origin };
        let line = self.kept.push(self.writer.last() + 1, &origin, text);
        self.failure.note(self.writer.line(t, line));
    }

    /// Takes each of the lines, behind the event of which `observe` says that the line tells.
    pub fn lines(
        &mut self,
        t: i64,
        origin: &Origin<'_>,
        lines: &Lines,
        observe: &mut dyn FnMut(&str) -> Option<Event>,
    ) {
        for text in lines.iter() {
            if let Some(event) = observe(text) {
                self.event(t, event);
            }
            self.line(t, origin, text);
        }
    }

    /// Something happened, at the time `t`; it is written at once. Its texts are masked.
    pub fn event(&mut self, t: i64, event: Event) {
        match &event {
            Event::StepStarted { step } => {
                self.step = Some((step.index, step.of));
                self.kept.begin();
            }
            Event::PhaseStarted { .. } | Event::TestStarted { .. } => self.kept.begin(),
            _ => {}
        }
        self.failure.note(self.writer.event(t, event));
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) {
        self.failure.note(self.writer.flush());
    }

    /// What kept the log from being written, unless that was told before.
    pub fn failure(&mut self) -> Option<io::Error> {
        match std::mem::replace(&mut self.failure, Failure::Told) {
            Failure::Untold(error) => Some(error),
            Failure::None => {
                self.failure = Failure::None;
                None
            }
            Failure::Told => None,
        }
    }

    /// Number of the last line.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.writer.last()
    }

    /// Text of the last line, if there is one.
    #[must_use]
    pub fn last_text(&self) -> Option<&str> {
        self.kept.last().map(|line| line.text.as_str())
    }

    /// The last lines, and those before them that tell of a failure, each with its number.
    #[must_use]
    pub fn kept(&self) -> Vec<(u64, Line)> {
        self.kept.lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::request::Stream;
    use std::fs::File;

    const ORIGIN: Origin<'static> = Origin {
        phase: Phase::Build,
        step: None,
        test: None,
        stream: Stream::Output,
    };

    #[test]
    fn a_log_that_cannot_be_written_is_told_once_and_lines_are_kept() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut journal = Journal::new(RecordWriter::new(full, 0, u64::MAX));
        assert!(journal.failure().is_none());
        for text in ["one", "two"] {
            journal.line(0, &ORIGIN, text);
            journal.flush();
        }
        assert_eq!(
            journal.failure().map(|error| error.kind()),
            Some(io::ErrorKind::StorageFull)
        );
        journal.line(0, &ORIGIN, "three");
        journal.flush();
        assert!(journal.failure().is_none());
        assert_eq!((journal.last(), journal.last_text()), (3, Some("three")));
    }
}

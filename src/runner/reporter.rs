//! The runner's only voice: numbered records on its standard output.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::build::Phase;
use crate::build::request::Stream;
use crate::journal::Journal;
use crate::log::lines::Lines;
use crate::log::{BackgroundWriter, Event, Line, Origin, RecordWriter, Redactor};

use super::handoff::LogSoFar;

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_millis()).ok())
        .unwrap_or(0)
}

/// Writes records, remembers what a diagnosis will want, masks secrets.
#[derive(Debug)]
pub struct Reporter {
    journal: Mutex<Journal>,
    redactor: Arc<Redactor>,
}

impl Reporter {
    /// A reporter that goes on with a log.
    pub fn new(out: File, after: LogSoFar, limit: u64, redactor: Redactor) -> Self {
        let writer = RecordWriter::new(BackgroundWriter::new(out), after.last_line, limit);
        Self {
            journal: Mutex::new(Journal::new(writer.after(after.log_bytes))),
            redactor: Arc::new(redactor),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What masks secrets.
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// Takes what comes together: nobody else's words stand in between, and it is written when this is dropped.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            journal: self.lock(),
            redactor: &self.redactor,
            now: now_ms(),
        }
    }

    /// The runner's own words.
    pub fn say(&self, phase: Phase, text: impl AsRef<str>) {
        let text = self.redactor.line(text.as_ref());
        let origin = Origin {
            phase,
            step: None,
            test: None,
            stream: Stream::Runner,
        };
        let mut batch = self.batch();
        let now = batch.now;
        batch.journal.line(now, &origin, &text);
    }

    /// Something happened.
    pub fn event(&self, event: Event) {
        self.batch().event(event);
    }

    /// Number of the last line.
    pub fn last(&self) -> u64 {
        self.lock().last()
    }

    /// Text of the last line, if there is one.
    pub fn last_text(&self) -> Option<String> {
        self.lock().last_text().map(str::to_owned)
    }

    /// The last lines, and those before them that tell of a failure.
    pub fn kept(&self) -> Vec<(u64, Line)> {
        self.lock().kept()
    }

    /// Text of foreign origin, fit for a message.
    pub fn mask(&self, text: &str) -> String {
        self.redactor.line(text)
    }
}

/// See [`Reporter::batch`].
#[derive(Debug)]
pub struct Batch<'a> {
    journal: MutexGuard<'a, Journal>,
    redactor: &'a Redactor,
    /// When it came.
    now: i64,
}

impl Batch<'_> {
    /// A line of a process, already cleaned and masked.
    pub fn line(&mut self, origin: &Origin<'_>, text: &str) {
        self.journal.line(self.now, origin, text);
    }

    /// Lines of a process, already cleaned and masked; of what `observe` says that one tells, stands in the log before it.
    pub fn lines(
        &mut self,
        origin: &Origin<'_>,
        lines: &Lines,
        observe: &mut dyn FnMut(&str) -> Option<Event>,
    ) {
        let redactor = self.redactor;
        self.journal.lines(self.now, origin, lines, &mut |line| {
            observe(line).map(|event| masked(event, redactor))
        });
    }

    /// Something happened; it is written at once.
    pub fn event(&mut self, event: Event) {
        self.journal.event(self.now, masked(event, self.redactor));
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.journal.flush();
        if let Some(error) = self.journal.failure() {
            tracing::error!(%error, "the log cannot be written");
        }
    }
}

fn masked(mut event: Event, redactor: &Redactor) -> Event {
    event.mask(|text| redactor.text(text));
    event
}

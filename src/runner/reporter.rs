//! The runner's only voice: numbered records on its standard output.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::build::Phase;
use crate::build::request::Stream;
use crate::diagnosis::Recent;
use crate::log::{BackgroundWriter, Event, Line, RecordWriter, Redactor};

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
    inner: Mutex<Inner>,
    redactor: Arc<Redactor>,
}

#[derive(Debug)]
struct Inner {
    writer: RecordWriter<'static>,
    kept: Recent,
    step: Option<(u32, u32)>,
    /// The log could not be written: said once on stderr, then the build goes on without.
    broken: bool,
}

impl Reporter {
    /// A reporter that goes on with a log.
    pub fn new(out: File, after: LogSoFar, limit: u64, redactor: Redactor) -> Self {
        Self {
            inner: Mutex::new(Inner {
                writer: RecordWriter::new(BackgroundWriter::new(out), after.last_line, limit)
                    .after(after.log_bytes),
                kept: Recent::default(),
                step: None,
                broken: false,
            }),
            redactor: Arc::new(redactor),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What masks secrets.
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// Takes what comes together: nobody else's words stand in between, and it is written when this is dropped.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            inner: self.lock(),
            redactor: &self.redactor,
            now: now_ms(),
        }
    }

    /// The runner's own words.
    pub fn say(&self, phase: Phase, text: impl AsRef<str>) {
        let text = self.redactor.line(text.as_ref());
        let mut batch = self.batch();
        let now = batch.now;
        batch.inner.line(now, phase, None, Stream::Runner, &text);
    }

    /// Something happened.
    pub fn event(&self, event: Event) {
        self.batch().event(event);
    }

    /// Number of the last line.
    pub fn last(&self) -> u64 {
        self.lock().writer.last()
    }

    /// Text of the last line, if there is one.
    pub fn last_text(&self) -> Option<String> {
        self.lock().kept.last().map(|line| line.text.clone())
    }

    /// The last lines, and those before them that tell of a failure.
    pub fn kept(&self) -> Vec<(u64, Line)> {
        self.lock().kept.lines()
    }

    /// Text of foreign origin, fit for a message.
    pub fn mask(&self, text: &str) -> String {
        self.redactor.line(text)
    }
}

/// See [`Reporter::batch`].
#[derive(Debug)]
pub struct Batch<'a> {
    inner: MutexGuard<'a, Inner>,
    redactor: &'a Redactor,
    /// When it came.
    now: i64,
}

impl Batch<'_> {
    /// A line of a process, already cleaned and masked.
    pub fn line(&mut self, phase: Phase, test: Option<&str>, text: &str) {
        let now = self.now;
        self.inner.line(now, phase, test, Stream::Output, text);
    }

    /// Something happened; it is written at once.
    pub fn event(&mut self, mut event: Event) {
        event.mask(|text| self.redactor.text(text));
        let inner = &mut *self.inner;
        match &event {
            Event::StepStarted { step } => {
                inner.step = Some((step.index, step.of));
                inner.kept.begin();
            }
            Event::PhaseStarted { .. } | Event::TestStarted { .. } => inner.kept.begin(),
            _ => {}
        }
        let written = inner.writer.event(self.now, event);
        inner.check(written);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.inner.flush();
    }
}

impl Inner {
    fn line(&mut self, t: i64, phase: Phase, test: Option<&str>, stream: Stream, text: &str) {
        let step = self.step.filter(|_| phase == Phase::Build);
        let line = self.kept.push(self.writer.last() + 1, |line| {
            (line.phase, line.step, line.stream) = (phase, step, stream);
            if line.test.as_deref() != test {
                line.test = test.map(str::to_owned);
            }
            text.clone_into(&mut line.text);
        });
        let written = self.writer.line(t, line);
        self.check(written);
    }

    fn flush(&mut self) {
        let written = self.writer.flush();
        self.check(written);
    }

    fn check(&mut self, written: std::io::Result<()>) {
        if let (Err(error), false) = (written, self.broken) {
            self.broken = true;
            tracing::error!(%error, "the log cannot be written");
        }
    }
}

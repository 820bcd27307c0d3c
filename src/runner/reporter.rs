//! The runner's only voice: numbered records on its standard output.

use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::build::Phase;
use crate::build::request::Stream;
use crate::diagnosis::Recent;
use crate::log::{Event, Line, RecordWriter, Redactor};

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
    redactor: Redactor,
}

#[derive(Debug)]
struct Inner {
    writer: RecordWriter<File>,
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
                writer: RecordWriter::new(out, after.last_line, limit).after(after.log_bytes),
                kept: Recent::default(),
                step: None,
                broken: false,
            }),
            redactor,
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What masks secrets.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Lines of a process, already cleaned and masked; written together.
    pub fn output(
        &self,
        phase: Phase,
        test: Option<&str>,
        lines: impl IntoIterator<Item = String>,
    ) {
        let now = now_ms();
        self.with(|inner| {
            for text in lines {
                inner.line(now, phase, test, Stream::Output, text);
            }
            inner.flush();
        });
    }

    /// The runner's own words.
    pub fn say(&self, phase: Phase, text: impl AsRef<str>) {
        let text = self.redactor.line(text.as_ref());
        self.with(|inner| {
            inner.line(now_ms(), phase, None, Stream::Runner, text);
            inner.flush();
        });
    }

    /// Something happened.
    pub fn event(&self, mut event: Event) {
        event.mask(|text| self.redactor.text(text));
        self.with(|inner| {
            match &event {
                Event::StepStarted { step } => {
                    inner.step = Some((step.index, step.of));
                    inner.kept.begin();
                }
                Event::PhaseStarted { .. } | Event::TestStarted { .. } => inner.kept.begin(),
                _ => {}
            }
            let written = inner.writer.event(now_ms(), event);
            inner.check(written);
        });
    }

    /// Number of the last line.
    pub fn last(&self) -> u64 {
        self.with(|inner| inner.writer.last())
    }

    /// Text of the last line, if there is one.
    pub fn last_text(&self) -> Option<String> {
        self.with(|inner| inner.kept.last().map(|line| line.text.clone()))
    }

    /// The last lines, and those before them that tell of a failure.
    pub fn kept(&self) -> Vec<(u64, Line)> {
        self.with(|inner| inner.kept.lines())
    }

    /// Text of foreign origin, fit for a message.
    pub fn mask(&self, text: &str) -> String {
        self.redactor.line(text)
    }
}

impl Inner {
    fn line(&mut self, t: i64, phase: Phase, test: Option<&str>, stream: Stream, text: String) {
        let line = Line {
            phase,
            step: self.step.filter(|_| phase == Phase::Build),
            test: test.map(str::to_owned),
            stream,
            text,
        };
        let written = self.writer.line(t, &line);
        self.kept.push(self.writer.last(), line);
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

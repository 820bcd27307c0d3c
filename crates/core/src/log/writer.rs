//! Writes records: numbers them, keeps the log within its limit.
//!
//! Each phase may write a part of what is left of the limit at once. What comes then waits in a ring,
//! of which the newest lines are written after a `gap` event when the phase ends: so the end of what
//! went wrong is never lost, and no phase leaves nothing for those behind it.
//!
//! ```text
//! left │ head: written at once      │ gap │ tail │ for the next phases │
//!      └ ¾ ─────────────────────────┘     └ ⅛, at most TAIL
//! ```

use std::fmt;
use std::io::{self, Write};

use super::frame;
use super::record::{Event, Line, LogRecord};

/// Most bytes of a tail: they wait in memory.
const TAIL: u64 = 8 << 20;
/// Bytes that are written together.
const BLOCK: usize = 256 * 1024;

/// Where records go.
pub trait Records: Send {
    /// Takes whole records, and gives their memory or another back, empty even after an error. What was taken may be written
    /// later.
    ///
    /// # Errors
    /// When these, or what was taken before, cannot be written.
    fn take(&mut self, records: &mut Vec<u8>) -> io::Result<()>;

    /// Waits until all of it is written.
    ///
    /// # Errors
    /// When something of it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

impl<W: Write + Send> Records for W {
    fn take(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        let written = self.write_all(records);
        records.clear();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(self)
    }
}

/// Writes one runner's records.
pub struct RecordWriter<'a> {
    out: Box<dyn Records + 'a>,
    /// Number of the last line, written or left out.
    n: u64,
    written: u64,
    limit: u64,
    /// Until so much is written, lines of this phase are written at once.
    head: u64,
    tail: Tail,
    run: Run,
    buffer: Vec<u8>,
}

/// The unbroken run of lines of one phase, step and test.
#[derive(Debug, Default)]
struct Run {
    since: u64,
    /// Where the last line came from, as it stands in its record.
    origin: Vec<u8>,
    last: Option<Line>,
    /// When the last line came.
    t: i64,
    /// What stood between its number and its text.
    middle: Vec<u8>,
}

impl Run {
    /// Takes line `n` that came at `t`.
    fn take(&mut self, n: u64, t: i64, line: &Line) {
        let of_run = (self.last.as_ref()).is_some_and(|last| last.is_of_run(line));
        let same = of_run && (self.last.as_ref()).is_some_and(|last| last.stream == line.stream);
        if same && t == self.t {
            return;
        }
        if !of_run {
            self.since = n;
        }
        if !same {
            self.origin.clear();
            frame::origin(line, &mut self.origin);
            self.last = Some(Line {
                text: String::new(),
                ..line.clone()
            });
        }
        self.t = t;
        self.middle.clear();
        frame::middle(self.since, t, &self.origin, &mut self.middle);
    }
}

/// The newest lines, in two halves: the older one goes when the newer one is full.
#[derive(Debug, Default)]
struct Tail {
    size: u64,
    older: Half,
    newer: Half,
    dropped: Half,
}

#[derive(Debug, Default)]
struct Half {
    bytes: Vec<u8>,
    lines: u64,
    /// Counted on where they are dropped.
    length: u64,
}

impl Tail {
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.newer.bytes);
        self.newer.lines += 1;
        if self.newer.bytes.len() as u64 >= self.size / 2 {
            self.dropped.lines += self.older.lines;
            self.dropped.length += self.older.bytes.len() as u64;
            std::mem::swap(&mut self.older, &mut self.newer);
            self.newer.bytes.clear();
            self.newer.lines = 0;
        }
    }

    fn lines(&self) -> u64 {
        self.older.lines + self.newer.lines
    }
}

impl fmt::Debug for RecordWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordWriter")
            .field("last", &self.n)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl<'a> RecordWriter<'a> {
    /// A writer that goes on after line `last`, with a limit in bytes for what it writes.
    pub fn new(out: impl Records + 'a, last: u64, limit: u64) -> Self {
        let mut writer = Self {
            out: Box::new(out),
            n: last,
            written: 0,
            limit,
            head: 0,
            tail: Tail::default(),
            run: Run::default(),
            buffer: Vec::new(),
        };
        writer.share();
        writer
    }

    /// What the log has already counts, too.
    #[must_use]
    pub fn after(mut self, written: u64) -> Self {
        self.written = written;
        self.share();
        self
    }

    /// Number of the last line.
    pub fn last(&self) -> u64 {
        self.n
    }

    /// Gives the phase that begins its share of what is left.
    fn share(&mut self) {
        let begun = self.written + self.buffer.len() as u64;
        let left = self.limit.saturating_sub(begun);
        self.head = begun.saturating_add(left / 4 * 3);
        self.tail.size = (left / 8).min(TAIL);
    }

    /// Takes a line; call [`RecordWriter::flush`] when no more is at hand.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn line(&mut self, t: i64, line: &Line) -> io::Result<()> {
        self.n += 1;
        self.run.take(self.n, t, line);
        let (n, run) = (self.n, &self.run);
        let write = |out: &mut Vec<u8>| frame::line(n, &run.middle, &line.text, out);
        let waits = self.tail.lines() > 0;
        if !waits && self.written + (self.buffer.len() as u64) < self.head {
            write(&mut self.buffer);
            if self.buffer.len() >= BLOCK {
                return self.write_out();
            }
        } else {
            self.tail.push(write);
        }
        Ok(())
    }

    /// Writes an event at once, with everything before it.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn event(&mut self, t: i64, event: Event) -> io::Result<()> {
        let starts = matches!(event, Event::PhaseStarted { .. });
        let mut written = Ok(());
        if starts || matches!(event, Event::PhaseEnded { .. } | Event::Result { .. }) {
            written = self.write_tail(t);
        }
        if starts {
            self.share();
        }
        // Also where what is before it could not be written.
        LogRecord::of_event(self.n, t, event).encode(&mut self.buffer);
        written.and(self.flush())
    }

    fn write_tail(&mut self, t: i64) -> io::Result<()> {
        let tail = std::mem::take(&mut self.tail);
        self.tail.size = tail.size;
        let (lines, bytes) = (tail.dropped.lines, tail.dropped.length);
        if lines > 0 {
            let before = self.n - tail.lines() - lines;
            LogRecord::of_event(before, t, Event::Gap { lines, bytes }).encode(&mut self.buffer);
        }
        let mut written = Ok(());
        for half in [tail.older, tail.newer] {
            written = written.and(self.write_out());
            self.buffer = half.bytes;
        }
        written = written.and(self.flush());
        self.buffer = Vec::new();
        written
    }

    /// Writes what is buffered, whole records at a time.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.write_out();
        written.and(self.out.flush())
    }

    fn write_out(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            // Counted and let go of even when it cannot be written: memory stays bounded.
            self.written += self.buffer.len() as u64;
            self.out.take(&mut self.buffer)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Body;
    use super::*;
    use crate::build::{Phase, request::Stream};
    use proptest::prelude::*;

    fn line(phase: Phase, text: &str) -> Line {
        Line {
            phase,
            step: Some((1, 2)),
            test: None,
            stream: Stream::Output,
            text: text.into(),
        }
    }

    fn records(bytes: &[u8]) -> Vec<LogRecord> {
        let lines = bytes.split(|&b| b == b'\n');
        lines.filter_map(LogRecord::decode).collect()
    }

    fn numbers(records: &[LogRecord]) -> Vec<u64> {
        let lines = records.iter().filter(|record| record.line().is_some());
        lines.map(|record| record.n).collect()
    }

    fn gaps(records: &[LogRecord]) -> Vec<(u64, u64)> {
        let gap = |record: &LogRecord| match &record.body {
            Body::Event(event) => match **event {
                Event::Gap { lines, .. } => Some((record.n, lines)),
                _ => None,
            },
            Body::Line(_) => None,
        };
        records.iter().filter_map(gap).collect()
    }

    fn ended(phase: Phase) -> Event {
        let seconds = 1.0;
        Event::PhaseEnded { phase, seconds }
    }

    #[test]
    fn head_and_tail_are_kept_and_the_gap_is_stated() {
        let mut out = Vec::new();
        let mut writer = RecordWriter::new(&mut out, 10, 20_000);
        for i in 0..2000 {
            let text = format!("line {i}");
            writer.line(0, &line(Phase::Build, &text)).unwrap();
        }
        writer.event(0, ended(Phase::Build)).unwrap();
        assert_eq!(writer.last(), 2010);
        drop(writer);
        let records = records(&out);
        let numbers = numbers(&records);
        assert_eq!((numbers[0], *numbers.last().unwrap()), (11, 2010));
        let [(before, lines)] = gaps(&records)[..] else {
            panic!("one gap")
        };
        assert_eq!(numbers.len() as u64 + lines, 2000);
        assert!(numbers.contains(&before) && !numbers.contains(&(before + 1)));
        assert!(numbers.contains(&(before + lines + 1)));
        assert!(out.len() < 20_000);
    }

    #[test]
    fn each_line_has_its_own_time_and_origin() {
        let mut out = Vec::new();
        let mut writer = RecordWriter::new(&mut out, 0, u64::MAX);
        let mut told = Vec::new();
        let of = |phase, stream, text: &str| Line {
            stream,
            ..line(phase, text)
        };
        for (since, t, line) in [
            (1, -5, of(Phase::Build, Stream::Output, "a")),
            (1, -5, of(Phase::Build, Stream::Output, "\"b\"")),
            (1, 6, of(Phase::Build, Stream::Output, "c")),
            (1, 6, of(Phase::Build, Stream::Runner, "d")),
            (5, 6, of(Phase::Publish, Stream::Runner, "e")),
            (6, 6, of(Phase::Build, Stream::Output, "f")),
        ] {
            writer.line(t, &line).unwrap();
            told.push((writer.last(), since, t, line));
        }
        writer.flush().unwrap();
        drop(writer);
        let written = records(&out).into_iter().map(|record| {
            let line = record.line().cloned().unwrap();
            (record.n, record.since, record.t, line)
        });
        assert_eq!(written.collect::<Vec<_>>(), told);
    }

    #[test]
    fn lines_of_a_broken_log_are_let_go() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut writer = RecordWriter::new(full.unwrap(), 0, u64::MAX);
        let long = line(Phase::Build, &"x".repeat(4000));
        let failed = (0..1000).filter(|_| writer.line(0, &long).is_err());
        assert_eq!(failed.count(), 1000 / (BLOCK / 4000));
        assert!(writer.buffer.capacity() < 4 * BLOCK);
    }

    #[test]
    fn an_event_is_written_though_what_is_before_it_could_not_be() {
        /// Fails once.
        struct Fails<'a>(bool, &'a mut Vec<u8>);
        impl Write for Fails<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match std::mem::take(&mut self.0) {
                    true => Err(io::ErrorKind::StorageFull.into()),
                    false => self.1.write(bytes),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let phase = Phase::Build;
        let mut written = Vec::new();
        let mut writer = RecordWriter::new(Fails(true, &mut written), 0, 1000);
        for _ in 0..100 {
            writer
                .line(0, &line(phase, "left out but for the last"))
                .unwrap();
        }
        let seconds = 1.0;
        let ended = writer.event(0, Event::PhaseEnded { phase, seconds });
        assert!(ended.is_err());
        drop(writer);
        let written = String::from_utf8(written).unwrap();
        let last = (written.lines().last()).and_then(|line| LogRecord::decode(line.as_bytes()));
        let event = last.and_then(|record| match record.body {
            Body::Event(event) => Some(*event),
            Body::Line(_) => None,
        });
        assert!(matches!(event, Some(Event::PhaseEnded { .. })), "{written}");
    }

    proptest! {
        #[test]
        fn any_phase_keeps_its_end_within_one_limit(
            counts in prop::collection::vec(0usize..4000, 1..6), limit in 40_000u64..400_000, before in 0u64..50_000) {
            let mut out = Vec::new();
            let mut writer = RecordWriter::new(&mut out, 0, limit).after(before);
            let mut ends = Vec::new();
            for (i, count) in counts.iter().enumerate() {
                let phase = [Phase::Source, Phase::Build, Phase::Test, Phase::Publish][i % 4];
                writer.event(0, Event::PhaseStarted { phase }).unwrap();
                for i in 0..*count {
                    writer.line(0, &line(phase, &format!("{i}"))).unwrap();
                }
                writer.event(0, ended(phase)).unwrap();
                ends.push(writer.last());
            }
            drop(writer);
            let records = records(&out);
            let numbers = numbers(&records);
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
            let left_out: u64 = gaps(&records).iter().map(|(_, lines)| lines).sum();
            prop_assert_eq!(numbers.len() as u64 + left_out, *ends.last().unwrap());
            for end in ends {
                prop_assert!(end == 0 || numbers.contains(&end), "the end of a phase is there");
            }
            // Events are not counted, and a phase for which nothing is left writes its last line.
            prop_assert!(before + (out.len() as u64) < limit.max(before) + 500 * counts.len() as u64);
            let mut runs: Vec<u64> = records.iter().filter(|r| r.line().is_some()).map(|r| r.since).collect();
            prop_assert!(runs.is_sorted());
            runs.dedup();
            prop_assert!(runs.len() <= counts.len());
        }
    }
}

//! Writes records: numbers them, keeps the log within its limit.
//!
//! Beyond the limit the newest lines wait in a ring; they are written after a `gap` event when a
//! phase ends, so that the end of what went wrong is never lost.

use std::collections::VecDeque;
use std::io::Write;

use super::record::{Body, Event, Line, LogRecord};

/// Share of the limit that is kept for the tail.
const TAIL_SHARE: u64 = 8;

/// Writes one runner's records to `W`.
#[derive(Debug)]
pub struct RecordWriter<W> {
    out: W,
    /// Number of the last line, written or left out.
    n: u64,
    written: u64,
    limit: u64,
    ring: VecDeque<Vec<u8>>,
    ring_bytes: u64,
    dropped: (u64, u64),
    buffer: Vec<u8>,
}

impl<W: Write> RecordWriter<W> {
    /// A writer that goes on after line `last`, with a limit in bytes for what it writes.
    pub fn new(out: W, last: u64, limit: u64) -> Self {
        Self {
            out,
            n: last,
            written: 0,
            limit,
            ring: VecDeque::new(),
            ring_bytes: 0,
            dropped: (0, 0),
            buffer: Vec::new(),
        }
    }

    /// Number of the last line.
    pub fn last(&self) -> u64 {
        self.n
    }

    /// Takes a line; call [`RecordWriter::flush`] when no more is at hand.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn line(&mut self, t: i64, line: Line) -> std::io::Result<()> {
        self.n += 1;
        let record = LogRecord {
            n: self.n,
            t,
            body: Body::Line(line),
        };
        if self.written + (self.buffer.len() as u64) < self.limit {
            record.encode(&mut self.buffer);
            if self.buffer.len() >= 64 * 1024 {
                self.flush()?;
            }
            return Ok(());
        }
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.ring_bytes += bytes.len() as u64;
        self.ring.push_back(bytes);
        while self.ring_bytes > self.limit / TAIL_SHARE {
            let Some(old) = self.ring.pop_front() else {
                break;
            };
            self.ring_bytes -= old.len() as u64;
            self.dropped.0 += 1;
            self.dropped.1 += old.len() as u64;
        }
        Ok(())
    }

    /// Writes an event at once, with everything before it.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn event(&mut self, t: i64, event: Event) -> std::io::Result<()> {
        if matches!(event, Event::PhaseEnded { .. } | Event::Result { .. }) {
            self.write_tail(t)?;
        }
        self.encode_event(t, self.n, event);
        self.flush()
    }

    fn encode_event(&mut self, t: i64, n: u64, event: Event) {
        LogRecord {
            n,
            t,
            body: Body::Event(Box::new(event)),
        }
        .encode(&mut self.buffer);
    }

    fn write_tail(&mut self, t: i64) -> std::io::Result<()> {
        let (lines, bytes) = std::mem::take(&mut self.dropped);
        if lines > 0 {
            let before = self.n - self.ring.len() as u64 - lines;
            self.encode_event(t, before, Event::Gap { lines, bytes });
        }
        self.ring_bytes = 0;
        for bytes in std::mem::take(&mut self.ring) {
            self.buffer.extend_from_slice(&bytes);
        }
        self.flush()
    }

    /// Writes what is buffered, whole records at a time.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn flush(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            self.out.write_all(&self.buffer)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Phase, request::Stream};

    fn line(text: &str) -> Line {
        Line {
            phase: Phase::Build,
            step: Some((1, 2)),
            test: None,
            stream: Stream::Output,
            text: text.into(),
        }
    }

    #[test]
    fn head_and_tail_are_kept_and_the_gap_is_stated() {
        let mut out = Vec::new();
        let mut writer = RecordWriter::new(&mut out, 10, 20_000);
        for i in 0..2000 {
            writer.line(0, line(&format!("line {i}"))).unwrap();
        }
        writer
            .event(
                0,
                Event::PhaseEnded {
                    phase: Phase::Build,
                    seconds: 1.0,
                },
            )
            .unwrap();
        assert_eq!(writer.last(), 2010);
        drop(writer);
        let records: Vec<LogRecord> = out
            .split(|&b| b == b'\n')
            .filter_map(LogRecord::decode)
            .collect();
        let numbers: Vec<u64> = records
            .iter()
            .filter(|r| matches!(r.body, Body::Line(_)))
            .map(|r| r.n)
            .collect();
        assert_eq!((numbers[0], *numbers.last().unwrap()), (11, 2010));
        let gap = records
            .iter()
            .find_map(|r| match &r.body {
                Body::Event(e) => match **e {
                    Event::Gap { lines, .. } => Some((r.n, lines)),
                    _ => None,
                },
                Body::Line(_) => None,
            })
            .unwrap();
        assert_eq!(numbers.len() as u64 + gap.1, 2000);
        assert!(numbers.contains(&gap.0) && !numbers.contains(&(gap.0 + 1)));
        assert!(numbers.contains(&(gap.0 + gap.1 + 1)));
        assert!(out.len() < 26_000);
    }
}

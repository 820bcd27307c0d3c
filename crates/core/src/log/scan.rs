//! Goes through the records of a log in either direction, block by block.
//!
//! A torn last line (the runner is writing it, or died) counts as not there yet; what is longer than any record is
//! passed over.

use std::io;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

use super::reader::LogReader;
use super::record::LogRecord;

/// How much is read at once.
pub(super) const BLOCK: u64 = 64 * 1024;
/// A record is at most this long: the longest line with every byte escaped, or a large event.
const LONGEST_RECORD: usize = 1 << 20;

/// Lines from an offset on, undecoded.
#[derive(Debug)]
pub(super) struct RawLines<'a> {
    log: &'a LogReader,
    end: u64,
    block: u64,
    /// What was read, and its offset.
    buffer: Vec<u8>,
    base: u64,
    /// How much of it was handed out.
    used: usize,
    /// What comes up to the next newline is the end of something too long.
    is_too_long: bool,
}

impl<'a> RawLines<'a> {
    /// From an offset on, so many bytes at a time.
    pub(super) fn new(log: &'a LogReader, offset: u64, block: u64) -> Self {
        Self {
            log,
            end: log.len(),
            block,
            buffer: Vec::new(),
            base: offset,
            used: 0,
            is_too_long: false,
        }
    }

    /// Where the next line stands, its newline included.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn advance(&mut self) -> io::Result<Option<Range<u64>>> {
        let mut searched = self.used;
        loop {
            let rest = self.buffer.get(searched..).unwrap_or_default();
            if let Some(newline) = memchr(b'\n', rest) {
                let end = searched + newline + 1;
                let line = self.base + self.used as u64..self.base + end as u64;
                self.used = end;
                if !std::mem::take(&mut self.is_too_long) {
                    return Ok(Some(line));
                }
                searched = end;
                continue;
            }
            self.buffer.drain(..self.used);
            self.base += std::mem::take(&mut self.used) as u64;
            if self.buffer.len() > LONGEST_RECORD {
                self.base += self.buffer.len() as u64;
                self.buffer.clear();
                self.is_too_long = true;
            }
            searched = self.buffer.len();
            let next = self.base + self.buffer.len() as u64;
            if next >= self.end {
                // A line without its newline is still being written.
                return Ok(None);
            }
            let part = next..(next + self.block).min(self.end);
            self.log.append_to(part, &mut self.buffer)?;
        }
    }

    /// The line that was handed out last, without its newline.
    pub(super) fn bytes(&self, line: &Range<u64>) -> &[u8] {
        let place = |at: u64| usize::try_from(at.saturating_sub(self.base)).unwrap_or(0);
        let line = self.buffer.get(place(line.start)..place(line.end) - 1);
        line.unwrap_or_default()
    }
}

/// See [`LogReader::forward`].
#[derive(Debug)]
pub struct Forward<'a> {
    raw: RawLines<'a>,
}

impl<'a> Forward<'a> {
    pub(super) fn new(log: &'a LogReader, offset: u64) -> Self {
        Self {
            raw: RawLines::new(log, offset, BLOCK),
        }
    }

    /// The next record, and where it stands.
    pub fn next_placed(&mut self) -> Option<(Range<u64>, LogRecord)> {
        loop {
            let place = self.raw.advance().ok()??;
            if let Some(record) = decode(self.raw.bytes(&place)) {
                return Some((place, record));
            }
        }
    }
}

impl Iterator for Forward<'_> {
    type Item = (u64, LogRecord);

    fn next(&mut self) -> Option<Self::Item> {
        let (place, record) = self.next_placed()?;
        Some((place.end, record))
    }
}

/// See [`LogReader::backward`].
#[derive(Debug)]
pub struct Backward<'a> {
    log: &'a LogReader,
    /// Offset before which nothing was read.
    begin: u64,
    bytes: Vec<u8>,
    /// The beginning of what was read: the end of a record that began before it.
    pending: Vec<u8>,
    /// What is before `begin` is the beginning of something too long.
    is_too_long: bool,
    /// Lines in `bytes`, which begin at `begin`; the last is the next.
    ready: Vec<Range<usize>>,
}

impl<'a> Backward<'a> {
    pub(super) fn new(log: &'a LogReader, offset: u64) -> Self {
        Self {
            begin: offset.min(log.len()),
            log,
            bytes: Vec::new(),
            pending: Vec::new(),
            is_too_long: false,
            ready: Vec::new(),
        }
    }

    fn fill(&mut self) -> Option<()> {
        let size = self.begin.min(BLOCK);
        if size == 0 {
            return None;
        }
        if self.pending.len() > LONGEST_RECORD {
            self.pending.clear();
            self.is_too_long = true;
        }
        let start = self.begin - size;
        let part = start..self.begin;
        self.log.read_into(part, &mut self.bytes).ok()?;
        self.begin = start;
        if self.is_too_long {
            let end = memrchr(b'\n', &self.bytes).map_or(0, |newline| newline + 1);
            self.bytes.truncate(end);
            self.is_too_long = end == 0;
        }
        self.bytes.append(&mut self.pending);
        let mut from = 0;
        if start > 0 {
            // What is in front of the first newline began before this part.
            from = memchr(b'\n', &self.bytes).map_or(self.bytes.len(), |newline| newline + 1);
        }
        self.pending.extend_from_slice(self.bytes.get(..from)?);
        let mut begin = from;
        for newline in memchr_iter(b'\n', self.bytes.get(from..)?) {
            let end = from + newline + 1;
            self.ready.push(begin..end);
            begin = end;
        }
        Some(())
    }

    /// The next record, and where it stands.
    pub fn next_placed(&mut self) -> Option<(Range<u64>, LogRecord)> {
        loop {
            let Some(line) = self.ready.pop() else {
                self.fill()?;
                continue;
            };
            let place = self.begin + line.start as u64..self.begin + line.end as u64;
            if let Some(record) = decode(self.bytes.get(line.start..line.end - 1)?) {
                return Some((place, record));
            }
        }
    }
}

impl Iterator for Backward<'_> {
    type Item = (u64, LogRecord);

    fn next(&mut self) -> Option<Self::Item> {
        let (place, record) = self.next_placed()?;
        Some((place.start, record))
    }
}

fn decode(line: &[u8]) -> Option<LogRecord> {
    (line.len() < LONGEST_RECORD).then(|| LogRecord::decode(line))?
}

#[cfg(test)]
mod tests {
    use super::super::reader::tests::{all, open, write_log};
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn what_is_too_long_is_passed_over_in_bounded_memory() {
        for size in [
            LONGEST_RECORD - 1,
            LONGEST_RECORD,
            LONGEST_RECORD + 1,
            9 << 20,
        ] {
            let mut file = write_log(&[5, 5], 0);
            file.as_file_mut().seek(SeekFrom::End(0)).unwrap();
            let mut bytes = vec![b'x'; size];
            // What ends it looks like a record, and is none.
            bytes.extend_from_slice(&std::fs::read(file.path()).unwrap());
            file.write_all(&bytes).unwrap();
            let log = open(&file);
            assert_eq!(all(&log), [1, 2, 2]);
            let mut forward = log.forward(0);
            while forward.next().is_some() {
                assert!(forward.raw.buffer.capacity() < 4 * LONGEST_RECORD);
            }
            let mut backward = log.backward(log.len());
            while backward.next().is_some() {
                assert!(backward.pending.capacity() < 4 * LONGEST_RECORD);
            }
        }
    }
}

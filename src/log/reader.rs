//! Reads a log file: any line by its number in a few seeks, forwards and backwards.
//!
//! Numbers only grow along the file, so a line is found by bisection over byte offsets; nothing
//! is kept in memory, and the cost does not grow with the log. A torn last line (the runner is
//! writing it, or died) counts as not there yet.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::record::{Body, LogRecord};

const BLOCK: usize = 64 * 1024;
/// A record is at most this long: the longest line with every byte escaped, or a large event.
const LONGEST_RECORD: u64 = 4 * 1024 * 1024;

/// A log file.
#[derive(Debug)]
pub struct LogReader {
    file: File,
    len: u64,
}

impl LogReader {
    /// Opens the log as it is now; a missing file is an empty log.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let len = file.metadata()?.len();
                Ok(Some(Self { file, len }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bytes of the log.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of the last line.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_number(&mut self) -> io::Result<u64> {
        Ok(self
            .backward(self.len)?
            .next()
            .map_or(0, |(_, record)| record.n))
    }

    /// Offset of the first record behind line `n`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn offset_after(&mut self, n: u64) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.len);
        // Invariant: every record that begins before `low` has a number ≤ n.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_from(middle)? {
                Some((start, end, number)) if number <= n => low = end.max(start + 1),
                // Nothing above n begins between `middle` and `start`.
                _ => high = middle,
            }
        }
        Ok(self.first_from(low)?.map_or(self.len, |(start, ..)| start))
    }

    /// The first whole record that begins at or after `offset`: begin, end, number.
    fn first_from(&mut self, offset: u64) -> io::Result<Option<(u64, u64, u64)>> {
        let mut start = offset;
        if offset > 0 {
            // A record begins after a newline: look from the byte before.
            match self.find_newline(offset - 1)? {
                Some(newline) => start = newline + 1,
                None => return Ok(None),
            }
        }
        while start < self.len {
            let Some(newline) = self.find_newline(start)? else {
                return Ok(None);
            };
            let mut bytes = vec![0; usize::try_from(newline - start).unwrap_or(0)];
            self.read_at(start, &mut bytes)?;
            if let Some(record) = LogRecord::decode(&bytes) {
                return Ok(Some((start, newline + 1, record.n)));
            }
            start = newline + 1;
        }
        Ok(None)
    }

    fn find_newline(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        let mut block = [0u8; 4096];
        while at < self.len {
            let want = usize::try_from(self.len - at)
                .unwrap_or(usize::MAX)
                .min(block.len());
            let Some(part) = block.get_mut(..want) else {
                return Ok(None);
            };
            self.read_at(at, part)?;
            if let Some(i) = part.iter().position(|&b| b == b'\n') {
                return Ok(Some(at + i as u64));
            }
            at += want as u64;
        }
        Ok(None)
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(into)
    }

    /// The records from `offset` on, each with the offset behind it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn forward(&mut self, offset: u64) -> io::Result<Forward<'_>> {
        self.file.seek(SeekFrom::Start(offset))?;
        Ok(Forward {
            reader: io::BufReader::with_capacity(
                BLOCK,
                (&mut self.file).take(self.len - offset.min(self.len)),
            ),
            at: offset,
            line: Vec::new(),
        })
    }

    /// The records that end at or before `offset`, newest first, each with its offset.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn backward(&mut self, offset: u64) -> io::Result<Backward<'_>> {
        Ok(Backward {
            begin: offset.min(self.len),
            log: self,
            pending: Vec::new(),
            ready: VecDeque::new(),
        })
    }
}

/// See [`LogReader::forward`].
#[derive(Debug)]
pub struct Forward<'a> {
    reader: io::BufReader<io::Take<&'a mut File>>,
    at: u64,
    line: Vec<u8>,
}

impl Iterator for Forward<'_> {
    type Item = (u64, LogRecord);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.line.clear();
            let read = io::BufRead::read_until(&mut self.reader, b'\n', &mut self.line).ok()?;
            // A line without its newline is still being written.
            let body = self.line.strip_suffix(b"\n")?;
            self.at += read as u64;
            if let Some(record) = LogRecord::decode(body) {
                return Some((self.at, record));
            }
        }
    }
}

/// See [`LogReader::backward`].
#[derive(Debug)]
pub struct Backward<'a> {
    log: &'a mut LogReader,
    /// Offset before which nothing was read.
    begin: u64,
    /// The beginning of what was read: the end of a record that began before it.
    pending: Vec<u8>,
    ready: VecDeque<(u64, LogRecord)>,
}

impl Backward<'_> {
    fn fill(&mut self) -> Option<()> {
        let size = self.begin.min(BLOCK as u64);
        if size == 0 || self.pending.len() as u64 > LONGEST_RECORD {
            return None;
        }
        let start = self.begin - size;
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        self.log.read_at(start, &mut bytes).ok()?;
        bytes.append(&mut self.pending);
        let whole_from = match (start, bytes.iter().position(|&b| b == b'\n')) {
            (0, _) => 0,
            (_, Some(i)) => i + 1,
            (_, None) => bytes.len(),
        };
        let mut at = start + whole_from as u64;
        for line in bytes.get(whole_from..)?.split_inclusive(|&b| b == b'\n') {
            if let Some(record) = line.strip_suffix(b"\n").and_then(LogRecord::decode) {
                self.ready.push_front((at, record));
            }
            at += line.len() as u64;
        }
        bytes.truncate(whole_from);
        self.pending = bytes;
        self.begin = start;
        Some(())
    }
}

impl Iterator for Backward<'_> {
    type Item = (u64, LogRecord);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Some(next);
            }
            self.fill()?;
        }
    }
}

/// Keeps the lines of a stream of records.
pub fn lines(
    records: impl Iterator<Item = (u64, LogRecord)>,
) -> impl Iterator<Item = (u64, super::Line)> {
    records.filter_map(|(_, record)| match record.body {
        Body::Line(line) => Some((record.n, line)),
        Body::Event(_) => None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::record::{Event, Line};
    use super::super::writer::RecordWriter;
    use super::*;
    use crate::build::{Phase, request::Stream};
    use proptest::prelude::*;

    pub(crate) fn write_log(lengths: &[usize], events_every: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = RecordWriter::new(file.reopen().unwrap(), 0, u64::MAX);
        for (i, len) in lengths.iter().enumerate() {
            writer
                .line(
                    i as i64,
                    Line {
                        phase: Phase::Build,
                        step: Some((i as u32 % 3 + 1, 3)),
                        test: None,
                        stream: Stream::Output,
                        text: format!("{i} {}", "x".repeat(*len)),
                    },
                )
                .unwrap();
            if events_every > 0 && i % events_every == 0 {
                writer.event(0, Event::Committed).unwrap();
            }
        }
        writer.flush().unwrap();
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_line_is_found_and_both_directions_agree(
            lengths in prop::collection::vec(prop_oneof![9 => 0usize..200, 1 => 4000usize..20000], 0..300),
            every in 0usize..5, torn in 0usize..30) {
            let file = write_log(&lengths, every);
            let whole = std::fs::metadata(file.path()).unwrap().len();
            if torn > 0 {
                use std::io::Write;
                let mut end = std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
                end.write_all(&b"{\"v\":1,\"n\":99999,\"t\":0,\"phase\":\"build\""[..torn]).unwrap();
            }
            let mut log = LogReader::open(file.path()).unwrap().unwrap();
            let total = lengths.len() as u64;
            prop_assert_eq!(log.last_number().unwrap(), total);
            let all: Vec<u64> = lines(log.forward(0).unwrap()).map(|(n, _)| n).collect();
            prop_assert_eq!(&all, &(1..=total).collect::<Vec<_>>());
            let end = log.len();
            let mut back: Vec<u64> = lines(log.backward(end).unwrap()).map(|(n, _)| n).collect();
            back.reverse();
            prop_assert_eq!(&back, &all);
            for n in [0, 1, total / 2, total.saturating_sub(1), total, total + 5] {
                let offset = log.offset_after(n).unwrap();
                let next = lines(log.forward(offset).unwrap()).next().map(|(n, _)| n);
                prop_assert_eq!(next, (n < total).then_some(n + 1));
                let before = lines(log.backward(offset).unwrap()).next().map(|(n, _)| n);
                prop_assert_eq!(before, (n.min(total) > 0).then_some(n.min(total)));
                prop_assert!(offset <= whole + torn as u64);
            }
        }
    }

    #[test]
    fn a_missing_file_is_an_empty_log() {
        assert!(
            LogReader::open(Path::new("/nonexistent/log"))
                .unwrap()
                .is_none()
        );
    }
}

//! Opens a log file, and finds any line of it by its number in a few reads.
//!
//! The numbers of lines only grow along the file, so a line is found by bisection over byte offsets, and
//! so is the end of a run of lines (`frame` says what that is); nothing is kept in memory, and the cost
//! does not grow with the log.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memchr::memchr;
use vmap::Map;

use super::fold::Fold;
use super::frame;
use super::progress::Progress;
use super::scan::{BLOCK, Backward, Forward, RawLines};

/// How much is read at once for single records.
const SMALL_BLOCK: u64 = 4096;

/// A log file, as long as it was when it was opened.
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
    pub fn last_number(&self) -> u64 {
        let last = self.backward(self.len).next();
        last.map_or(0, |(_, record)| record.n)
    }

    /// Offset of the first line behind line `n`; the log's end when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn offset_after(&self, n: u64) -> io::Result<u64> {
        self.bisect(0, |head| head.n <= n)
    }

    /// Offset of the first line behind the run that began with line `since`, which is looked for from
    /// `offset` on; the log's end when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn offset_after_run(&self, since: u64, offset: u64) -> io::Result<u64> {
        self.bisect(offset, |head| head.since <= since)
    }

    /// Offset of the first line at or behind `from` that is not `before`; all that are stand in front.
    fn bisect(&self, from: u64, before: impl Fn(frame::Head) -> bool) -> io::Result<u64> {
        let (mut low, mut high) = (from.min(self.len), self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_line(middle)? {
                Some((line, head)) if before(head) => low = line.end.max(middle + 1),
                // Nothing else begins between `middle` and that line.
                _ => high = middle,
            }
        }
        Ok(self
            .first_line(low)?
            .map_or(self.len, |(line, _)| line.start))
    }

    /// The first whole line that begins at or after `offset`.
    fn first_line(&self, offset: u64) -> io::Result<Option<(Range<u64>, frame::Head)>> {
        // A record begins after a newline: look from the byte before.
        let mut raw = RawLines::new(self, offset.saturating_sub(1), SMALL_BLOCK);
        if offset > 0 && raw.advance()?.is_none() {
            return Ok(None);
        }
        while let Some(place) = raw.advance()? {
            if let Some(head) = frame::head(raw.bytes(&place))
                && head.is_line
            {
                return Ok(Some((place, head)));
            }
        }
        Ok(None)
    }

    /// Reads a part into `into`, which is emptied before; less where the file ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read_into(&self, part: Range<u64>, into: &mut Vec<u8>) -> io::Result<()> {
        let size = part.end.min(self.len).saturating_sub(part.start);
        // What was there is overwritten, and need not be emptied before.
        into.resize(usize::try_from(size).unwrap_or(0), 0);
        self.file.read_exact_at(into, part.start)
    }

    /// A part as it lies in memory, without a copy, less where the file ends; `None` where it cannot be mapped. What is
    /// there stays as it is: a log only grows.
    pub(super) fn map(&self, part: Range<u64>) -> Option<Map> {
        let size = part.end.min(self.len).checked_sub(part.start)?;
        let (offset, size) = (part.start.try_into().ok()?, size.try_into().ok()?);
        let mut options = Map::with_options();
        options
            .offset(offset)
            .len::<usize>(size)
            .map(&self.file)
            .ok()
    }

    /// The first place at or behind `offset` where a line begins, if one does within `reach` bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn line_begin(&self, offset: u64, reach: u64) -> io::Result<Option<u64>> {
        if offset == 0 {
            return Ok(Some(0));
        }
        let end = self.len.min(offset.saturating_add(reach));
        let mut at = offset - 1;
        let mut block = Vec::new();
        while at < end {
            let part = at..end.min(at + SMALL_BLOCK);
            self.read_into(part.clone(), &mut block)?;
            if let Some(newline) = memchr(b'\n', &block) {
                return Ok(Some(at + newline as u64 + 1));
            }
            at = part.end;
        }
        Ok(None)
    }

    /// Reads a part behind what is in `into`; less where the file ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn append_to(&self, part: Range<u64>, into: &mut Vec<u8>) -> io::Result<()> {
        let size = part.end.min(self.len).saturating_sub(part.start);
        let had = into.len();
        into.resize(had + usize::try_from(size).unwrap_or(0), 0);
        let room = into.get_mut(had..).unwrap_or_default();
        self.file.read_exact_at(room, part.start)
    }

    /// Takes what the records from `offset` on tell into `progress`, and says where the last one ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tell(&self, offset: u64, progress: &mut Progress) -> io::Result<u64> {
        let (mut raw, mut fold) = (RawLines::new(self, offset, BLOCK), Fold::new(progress));
        let mut reached = offset;
        while let Some(place) = raw.advance()? {
            fold.take(raw.bytes(&place));
            reached = place.end;
        }
        Ok(reached)
    }

    /// The records from `offset` on, each with the offset behind it.
    pub fn forward(&self, offset: u64) -> Forward<'_> {
        Forward::new(self, offset)
    }

    /// The records that end at or before `offset`, newest first, each with its offset.
    pub fn backward(&self, offset: u64) -> Backward<'_> {
        Backward::new(self, offset)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::record::{Body, Event, Line, LogRecord};
    use super::super::writer::RecordWriter;
    use super::*;
    use crate::build::{Phase, request::Stream};
    use proptest::prelude::*;
    use std::io::Write;

    pub(crate) fn write_log(lengths: &[usize], events_every: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = RecordWriter::new(file.reopen().unwrap(), 0, u64::MAX);
        for (i, len) in lengths.iter().enumerate() {
            let line = Line {
                phase: Phase::Build,
                step: Some((i as u32 % 3 + 1, 3)),
                test: None,
                stream: Stream::Output,
                text: format!("{i} {}", "x".repeat(*len)),
            };
            writer.line(i as i64, &line).unwrap();
            if events_every > 0 && i % events_every == 0 {
                writer.event(0, Event::Committed).unwrap();
            }
        }
        writer.flush().unwrap();
        file
    }

    /// Keeps the lines of a stream of records.
    pub(crate) fn lines(
        records: impl Iterator<Item = (u64, LogRecord)>,
    ) -> impl Iterator<Item = (u64, Line)> {
        records.filter_map(|(_, record)| match record.body {
            Body::Line(line) => Some((record.n, line)),
            Body::Event(_) => None,
        })
    }

    pub(crate) fn open(file: &tempfile::NamedTempFile) -> LogReader {
        LogReader::open(file.path()).unwrap().unwrap()
    }

    /// Both directions give the same lines.
    pub(crate) fn all(log: &LogReader) -> Vec<u64> {
        let all: Vec<u64> = lines(log.forward(0)).map(|(n, _)| n).collect();
        let mut back: Vec<u64> = lines(log.backward(log.len())).map(|(n, _)| n).collect();
        back.reverse();
        assert_eq!(back, all);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_line_is_found_and_both_directions_agree(
            lengths in prop::collection::vec(prop_oneof![9 => 0usize..200, 1 => 4000usize..20000], 0..300),
            every in 0usize..5, torn in 0usize..30) {
            let mut file = write_log(&lengths, every);
            let whole = std::fs::metadata(file.path()).unwrap().len();
            if torn > 0 {
                let mut end = std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
                end.write_all(&b"{\"v\":1,\"n\":99999,\"t\":0,\"phase\":\"build\""[..torn]).unwrap();
            }
            file.flush().unwrap();
            let log = open(&file);
            let total = lengths.len() as u64;
            prop_assert_eq!(log.last_number(), total);
            prop_assert_eq!(all(&log), (1..=total).collect::<Vec<_>>());
            for n in [0, 1, total / 2, total.saturating_sub(1), total, total + 5] {
                let offset = log.offset_after(n).unwrap();
                let next = lines(log.forward(offset)).next().map(|(n, _)| n);
                prop_assert_eq!(next, (n < total).then_some(n + 1));
                let before = lines(log.backward(offset)).next().map(|(n, _)| n);
                prop_assert_eq!(before, (n.min(total) > 0).then_some(n.min(total)));
                prop_assert!(offset <= whole + torn as u64);
            }
        }

        #[test]
        fn arbitrary_bytes_neither_panic_nor_hide_records(
            parts in prop::collection::vec(prop_oneof![
                3 => prop::collection::vec(any::<u8>(), 0..200),
                2 => "\\{\"v\":1,\"n\":[0-9]{1,25}(,\"s\":[0-9]{0,3})?,\"t\":0(,\"phase\":\"build\"(,\"text\":\"[a-z\\\\\"]{0,9}\"\\}?)?)?\n?"
                    .prop_map(String::into_bytes),
                1 => (1usize..300_000).prop_map(|size| vec![b'x'; size]),
            ], 0..12),
            n: u64) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let mut bytes = parts.concat();
            bytes.extend(b"\n");
            let line = Line { phase: Phase::Build, step: None, test: None, stream: Stream::Output, text: "there".into() };
            LogRecord::of_line(7, 7, 0, line).encode(&mut bytes);
            file.write_all(&bytes).unwrap();
            let log = open(&file);
            prop_assert_eq!(all(&log).pop(), Some(7));
            prop_assert!(log.offset_after(n).unwrap() <= log.len());
            prop_assert!(log.offset_after_run(n, n / 2).unwrap() <= log.len());
        }
    }

    #[test]
    fn the_end_of_a_run_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = RecordWriter::new(file.reopen().unwrap(), 0, u64::MAX);
        for (step, count) in [(1, 3u64), (2, 400), (1, 1), (3, 2)] {
            for _ in 0..count {
                let line = Line {
                    phase: Phase::Build,
                    step: Some((step, 3)),
                    test: None,
                    stream: Stream::Output,
                    text: "x".repeat(50),
                };
                writer.line(0, &line).unwrap();
            }
            writer.event(0, Event::Committed).unwrap();
        }
        let log = open(&file);
        let next = |since, from| {
            let offset = log.offset_after_run(since, log.offset_after(from).unwrap());
            lines(log.forward(offset.unwrap())).next().map(|(n, _)| n)
        };
        assert_eq!(next(1, 0), Some(4));
        assert_eq!(next(4, 9), Some(404));
        assert_eq!(next(404, 403), Some(405));
        assert_eq!(next(405, 404), None);
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

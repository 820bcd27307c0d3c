//! Finds the lines of a log that match, without decoding the others.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use memchr::{memchr, memrchr};

use crate::build::request::Stream;

use super::frame;
use super::pattern::{Literals, Pattern};
use super::reader::LogReader;
use super::record::LogRecord;

/// How much is read at once; it fits into the cache of a processor.
const BLOCK: u64 = if cfg!(test) { 512 } else { 256 * 1024 };
/// Most of a log that one line can take here.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Tells which records may be lines that match: none is missed, and hardly one is told that is not.
#[derive(Debug)]
pub struct Finder<'a> {
    grep: Option<&'a Pattern>,
    stream: Option<&'static [u8]>,
    /// How a record of the wanted stream is found, where nothing else is wanted.
    of_stream: Option<Literals>,
}

impl<'a> Finder<'a> {
    /// A finder for lines of a stream that match; `None` where it would find most lines.
    pub fn new(grep: Option<&'a Pattern>, stream: Option<Stream>) -> Option<Self> {
        let alone = stream.filter(|stream| grep.is_none() && *stream == Stream::Runner);
        (grep.is_some() || alone.is_some()).then(|| Self {
            grep,
            stream: stream.map(frame::of_stream),
            of_stream: alone
                .and_then(|stream| Literals::new(vec![frame::of_stream(stream).to_vec()])),
        })
    }

    fn literals(&self) -> Option<&Literals> {
        self.of_stream.as_ref().or_else(|| self.grep?.literals())
    }

    fn is_hit(&self, record: &[u8]) -> bool {
        let Some((front, text)) = frame::split(record) else {
            // An event, or written by somebody else.
            return LogRecord::decode(record).is_some_and(|record| record.line().is_some());
        };
        self.stream.is_none_or(|stream| front.ends_with(stream))
            && self
                .grep
                .is_none_or(|grep| frame::unescaped(text).is_some_and(|text| grep.is_match(&text)))
    }

    /// Tells where the hits stand in whole records.
    fn hits(&self, block: &[u8], mut tell: impl FnMut(Range<usize>)) {
        let mut at = 0;
        while let Some(rest) = block.get(at..).filter(|rest| !rest.is_empty()) {
            let candidate = match self.literals() {
                None => Some(0),
                Some(literals) => literals.find(rest),
            };
            let Some(candidate) = candidate.map(|found| at + found) else {
                return;
            };
            let (before, behind) = block.split_at_checked(candidate).unwrap_or((block, &[]));
            let start = memrchr(b'\n', before).map_or(0, |newline| newline + 1);
            let Some(length) = memchr(b'\n', behind) else {
                return;
            };
            let end = candidate + length;
            if block
                .get(start..end)
                .is_some_and(|record| self.is_hit(record))
            {
                tell(start..end + 1);
            }
            at = end + 1;
        }
    }
}

/// A part of a log that begins and ends with whole records, and how it is gone through.
#[derive(Debug, Clone)]
pub struct Part {
    /// From its end to its beginning.
    pub is_back: bool,
    /// What of it was not searched yet.
    pub left: Range<u64>,
}

/// The hits of a part of a log, in one direction.
#[derive(Debug)]
pub struct Hits<'a> {
    log: &'a LogReader,
    finder: &'a Finder<'a>,
    is_back: bool,
    left: Range<u64>,
    found: VecDeque<Range<u64>>,
    block: Vec<u8>,
}

/// What a search says next.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A hit stands here.
    Hit(Range<u64>),
    /// There is none as far as the search has come; it goes on there.
    NotYet(u64),
    /// There is none any more.
    End,
}

impl<'a> Hits<'a> {
    /// Begins a search.
    pub fn new(log: &'a LogReader, finder: &'a Finder<'a>, part: Part) -> Self {
        Self {
            log,
            finder,
            is_back: part.is_back,
            left: part.left,
            found: VecDeque::new(),
            block: Vec::new(),
        }
    }

    /// What stands beyond `passed` in the direction of the search; searches one block at most.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next(&mut self, passed: u64) -> io::Result<Found> {
        loop {
            match self.found.front() {
                Some(hit) if self.is_behind(hit, passed) => _ = self.found.pop_front(),
                Some(hit) => return Ok(Found::Hit(hit.clone())),
                None if self.left.is_empty() => return Ok(Found::End),
                None => break,
            }
        }
        self.search_on()?;
        match self.found.front() {
            Some(hit) if !self.is_behind(hit, passed) => Ok(Found::Hit(hit.clone())),
            _ if self.left.is_empty() => Ok(Found::End),
            _ if self.is_back => Ok(Found::NotYet(self.left.end)),
            _ => Ok(Found::NotYet(self.left.start)),
        }
    }

    fn is_behind(&self, hit: &Range<u64>, passed: u64) -> bool {
        if self.is_back {
            hit.start >= passed
        } else {
            hit.start < passed
        }
    }

    fn search_on(&mut self) -> io::Result<()> {
        let left = self.left.clone();
        let mut size = BLOCK;
        let (searched, skipped) = loop {
            let part = if self.is_back {
                left.end.saturating_sub(size).max(left.start)..left.end
            } else {
                left.start..left.start.saturating_add(size).min(left.end)
            };
            self.log.read_into(part.clone(), &mut self.block)?;
            let is_all = part == left;
            let whole = if self.is_back && !is_all {
                let first = memchr(b'\n', &self.block).map(|newline| newline as u64 + 1);
                first.map(|first| part.start + first..part.end)
            } else {
                let last = memrchr(b'\n', &self.block).map(|newline| newline as u64 + 1);
                last.map(|last| part.start..part.start + last)
            };
            match whole {
                Some(whole) if !whole.is_empty() => {
                    self.left = match (is_all, self.is_back) {
                        (true, _) => left.end..left.end,
                        (false, true) => left.start..whole.start,
                        (false, false) => whole.end..left.end,
                    };
                    let skipped = usize::try_from(whole.start - part.start).unwrap_or(0);
                    break (whole, skipped);
                }
                // Without a newline there is nothing to be found.
                _ if is_all => {
                    self.left = left.end..left.end;
                    return Ok(());
                }
                _ if size >= LONGEST => {
                    self.left = match self.is_back {
                        true => left.start..part.start,
                        false => part.end..left.end,
                    };
                    return Ok(());
                }
                _ => size *= 2,
            }
        };
        let found = &mut self.found;
        let block = self.block.get(skipped..).unwrap_or_default();
        self.finder.hits(block, |hit| {
            found.push_back(searched.start + hit.start as u64..searched.start + hit.end as u64);
        });
        if self.is_back {
            self.found.make_contiguous().reverse();
        }
        Ok(())
    }
}

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

/// A part of this size is worth the threads that search it.
const WORTH_SHARING: u64 = if cfg!(test) { 700 } else { 2 << 20 };
/// Most that is searched at once, before anybody looks at the time.
const FURTHEST: u64 = 32 << 20;
/// Others have work to do, too.
const MOST_PROCESSORS: u64 = 4;
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
    /// How much is searched next.
    reach: u64,
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
            reach: BLOCK,
        }
    }

    /// What stands beyond `passed` in the direction of the search; searches one part at most.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next(&mut self, passed: u64) -> io::Result<Found> {
        self.drop_passed(passed);
        if self.found.is_empty() && !self.left.is_empty() {
            self.search_on()?;
            self.drop_passed(passed);
        }
        Ok(match self.found.front() {
            Some(hit) => Found::Hit(hit.clone()),
            None if self.left.is_empty() => Found::End,
            None if self.is_back => Found::NotYet(self.left.end),
            None => Found::NotYet(self.left.start),
        })
    }

    /// Forgets the hits that somebody has gone past.
    fn drop_passed(&mut self, passed: u64) {
        while self
            .found
            .front()
            .is_some_and(|hit| self.is_behind(hit, passed))
        {
            self.found.pop_front();
        }
    }

    fn is_behind(&self, hit: &Range<u64>, passed: u64) -> bool {
        if self.is_back {
            hit.start >= passed
        } else {
            hit.start < passed
        }
    }

    /// Searches the next part, which is the larger the longer nothing was found.
    fn search_on(&mut self) -> io::Result<()> {
        let left = self.left.clone();
        let reach = self.reach;
        self.reach = (reach * 4).min(FURTHEST);
        let (part, rest) = if self.is_back {
            let begin = left.end.saturating_sub(reach).max(left.start);
            let begin = self.begin_near(begin, &left)?;
            (begin..left.end, left.start..begin)
        } else {
            let end = left.start.saturating_add(reach).min(left.end);
            let end = self.log.line_begin(end, LONGEST)?.unwrap_or(left.end);
            let end = end.min(left.end);
            (left.start..end, end..left.end)
        };
        self.left = rest;
        let mut found = self.search(part)?;
        if self.is_back {
            found.reverse();
        }
        self.found.extend(found);
        Ok(())
    }

    /// Where a line begins at `at` or behind it.
    fn begin_near(&self, at: u64, left: &Range<u64>) -> io::Result<u64> {
        if at <= left.start {
            return Ok(left.start);
        }
        let begin = self.log.line_begin(at, LONGEST)?;
        let within = begin.filter(|begin| *begin < left.end);
        // So much of a line is no record, wherever it began.
        let is_too_long = left.end - at >= LONGEST;
        Ok(within.unwrap_or(if is_too_long { at } else { left.end }))
    }

    /// The hits of a part in their order; several processors share a large one.
    fn search(&self, part: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let shares = match (part.end - part.start) / WORTH_SHARING {
            0 => 1,
            shares => shares.min(processors()),
        };
        let mut borders = vec![part.start];
        for share in 1..shares {
            let at = part.start + (part.end - part.start) / shares * share;
            let begin = self.log.line_begin(at, LONGEST)?.unwrap_or(part.end);
            borders.push(begin.min(part.end));
        }
        borders.push(part.end);
        let shares: Vec<Range<u64>> = (borders.iter().zip(borders.iter().skip(1)))
            .map(|(begin, end)| *begin..*end)
            .collect();
        let [first, others @ ..] = shares.as_slice() else {
            return Ok(Vec::new());
        };
        let search = |share: &Range<u64>| hits_of(self.log, self.finder, share.clone());
        std::thread::scope(|scope| {
            let others: Vec<_> = (others.iter())
                .map(|share| {
                    let thread = std::thread::Builder::new();
                    (share, thread.spawn_scoped(scope, move || search(share)))
                })
                .collect();
            let mut found = search(first)?;
            for (share, other) in others {
                let panicked = |_| io::Error::other("a search panicked");
                found.extend(match other {
                    Ok(other) => other.join().map_err(panicked)??,
                    // There are no threads to be had.
                    Err(_) => search(share)?,
                });
            }
            Ok(found)
        })
    }
}

fn processors() -> u64 {
    let all = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    all.min(MOST_PROCESSORS)
}

/// The hits of a part, block by block.
fn hits_of(log: &LogReader, finder: &Finder<'_>, part: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut block = Vec::new();
    let mut at = part.start;
    let mut size = BLOCK;
    while at < part.end {
        let end = at.saturating_add(size).min(part.end);
        log.read_into(at..end, &mut block)?;
        match memrchr(b'\n', &block) {
            Some(newline) => {
                let whole = block.get(..newline + 1).unwrap_or_default();
                finder.hits(whole, |hit| {
                    found.push(at + hit.start as u64..at + hit.end as u64);
                });
                at += newline as u64 + 1;
                size = BLOCK;
            }
            // Without a newline there is nothing to be found.
            None if end == part.end => break,
            None if size >= LONGEST => at = end,
            None => size *= 2,
        }
    }
    Ok(found)
}

//! Finds the lines of a log that match, without decoding the others. The log is mapped, as ripgrep does: half of the time
//! would be spent on copying it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Instant;

use grep_matcher::{LineMatchKind, LineTerminator, Match, Matcher, NoCaptures, NoError};
use grep_searcher::{Searcher, SearcherBuilder, Sink, SinkMatch};
use memchr::memrchr;

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
/// How much is searched at first.
const BLOCK: u64 = if cfg!(test) { 512 } else { 512 * 1024 };
/// How much is mapped at once: each time costs the kernel something, and what is mapped counts as the server's memory.
const WINDOW: u64 = if cfg!(test) { 512 } else { 4 << 20 };
/// Where memory can be mapped.
const ALIGNED: u64 = if cfg!(test) { 64 } else { 4096 };
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
}

/// What ripgrep's searcher is told: which records are worth a look, and what a look says.
impl Matcher for Finder<'_> {
    type Captures = NoCaptures;
    type Error = NoError;

    fn find_at(&self, record: &[u8], at: usize) -> Result<Option<Match>, NoError> {
        Ok(self.is_hit(record).then(|| Match::zero(at)))
    }

    fn new_captures(&self) -> Result<NoCaptures, NoError> {
        Ok(NoCaptures::new())
    }

    fn line_terminator(&self) -> Option<LineTerminator> {
        Some(LineTerminator::byte(b'\n'))
    }

    fn find_candidate_line(&self, block: &[u8]) -> Result<Option<LineMatchKind>, NoError> {
        let found = match self.literals() {
            None => Some(0),
            Some(literals) => literals.find(block),
        };
        Ok(found.map(LineMatchKind::Candidate))
    }
}

/// Takes the places of hits.
struct Told<F>(F);

impl<F: FnMut(Range<u64>)> Sink for Told<F> {
    type Error = io::Error;

    fn matched(&mut self, _searcher: &Searcher, hit: &SinkMatch<'_>) -> io::Result<bool> {
        let start = hit.absolute_byte_offset();
        (self.0)(start..start + hit.bytes().len() as u64);
        Ok(true)
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

    /// What stands beyond `passed` in the direction of the search; searches one part at most, and after `until` as
    /// little as it can.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next(&mut self, passed: u64, until: Instant) -> io::Result<Found> {
        self.drop_passed(passed);
        if self.found.is_empty() && !self.left.is_empty() {
            self.search_on(until)?;
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
    fn search_on(&mut self, until: Instant) -> io::Result<()> {
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
        // The smallest part is searched to its end, so that each call comes on.
        let until = (reach > BLOCK).then_some(until);
        let is_empty = part.is_empty();
        let (found, searched) = self.search(part, until)?;
        self.left = if self.is_back {
            rest.start..searched.start
        } else {
            searched.end..rest.end
        };
        match self.is_back {
            true => self.found.extend(found.into_iter().rev()),
            false => self.found.extend(found),
        }
        if searched.is_empty() && !is_empty {
            // However long that takes.
            self.reach = BLOCK;
        }
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

    /// The hits of a part in their order, and what of it was searched when the time was up, from where the search came;
    /// several processors share a large one.
    fn search(
        &self,
        part: Range<u64>,
        until: Option<Instant>,
    ) -> io::Result<(Vec<Range<u64>>, Range<u64>)> {
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
            return Ok((Vec::new(), part));
        };
        let search = |share: &Range<u64>| hits_of(self.log, self.finder, share.clone(), until);
        let searched = std::thread::scope(|scope| -> io::Result<Vec<_>> {
            let others: Vec<_> = (others.iter())
                .map(|share| {
                    let thread = std::thread::Builder::new();
                    (share, thread.spawn_scoped(scope, move || search(share)))
                })
                .collect();
            let mut searched = vec![search(first)?];
            for (share, other) in others {
                let panicked = |_| io::Error::other("a search panicked");
                searched.push(match other {
                    Ok(other) => other.join().map_err(panicked)??,
                    // There are no threads to be had.
                    Err(_) => search(share)?,
                });
            }
            Ok(searched)
        })?;
        Ok(connected(self.is_back, &shares, searched))
    }
}

/// What was searched without a gap, from where the search came: the hits in their order, and its place. `searched` has
/// for each share its hits, and how far it was searched from its beginning.
fn connected(
    is_back: bool,
    shares: &[Range<u64>],
    searched: Vec<(Vec<Range<u64>>, u64)>,
) -> (Vec<Range<u64>>, Range<u64>) {
    let start = shares.first().map_or(0, |share| share.start);
    let end = shares.last().map_or(0, |share| share.end);
    let is_whole = |index: usize, at: u64| shares.get(index).is_some_and(|share| at >= share.end);
    let mut found = Vec::new();
    if !is_back {
        let mut until = start;
        for (index, (hits, at)) in searched.into_iter().enumerate() {
            found.extend(hits);
            until = at;
            if !is_whole(index, at) {
                break;
            }
        }
        return (found, start..until);
    }
    // From its end on, only whole shares count.
    let whole = (searched.iter().enumerate().rev())
        .take_while(|(index, (_, at))| is_whole(*index, *at))
        .count();
    let first = searched.len() - whole;
    let from = shares.get(first).map_or(end, |share| share.start);
    for (hits, _) in searched.into_iter().skip(first) {
        found.extend(hits);
    }
    (found, from..end)
}

fn processors() -> u64 {
    let all = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    all.min(MOST_PROCESSORS)
}

/// The hits of a part, window by window, and how far it was searched.
fn hits_of(
    log: &LogReader,
    finder: &Finder<'_>,
    part: Range<u64>,
    until: Option<Instant>,
) -> io::Result<(Vec<Range<u64>>, u64)> {
    let mut found = Vec::new();
    let mut searcher = SearcherBuilder::new()
        .line_number(false)
        .bom_sniffing(false)
        .build();
    let mut copy = Vec::new();
    let mut at = part.start;
    let mut size = WINDOW;
    while at < part.end {
        if until.is_some_and(|until| Instant::now() > until) {
            return Ok((found, at));
        }
        let begin = at - at % ALIGNED;
        let end = begin.saturating_add(size).min(part.end);
        let mapped = log.map(begin..end);
        let window = match &mapped {
            Some(mapped) => mapped,
            None => {
                log.read_into(begin..end, &mut copy)?;
                copy.as_slice()
            }
        };
        let unseen = usize::try_from(at - begin)
            .ok()
            .and_then(|seen| window.get(seen..));
        let unseen = unseen.unwrap_or_default();
        match memrchr(b'\n', unseen) {
            Some(newline) => {
                let whole = unseen.get(..newline + 1).unwrap_or_default();
                let tell = Told(|hit: Range<u64>| found.push(at + hit.start..at + hit.end));
                searcher.search_slice(finder, whole, tell)?;
                at += newline as u64 + 1;
                size = WINDOW;
            }
            // Without a newline there is nothing to be found.
            None if end == part.end => break,
            None if size >= LONGEST => at = end,
            None => size *= 2,
        }
    }
    Ok((found, part.end))
}

#[cfg(test)]
mod tests {
    use super::super::reader::tests::{open, write_log};
    use super::*;

    #[test]
    fn whose_time_is_up_comes_on_and_misses_nothing() {
        let file = write_log(&[40; 400], 0);
        let log = open(&file);
        let pattern = Pattern::new("^[0-9]*7 ", false).unwrap();
        let finder = Finder::new(Some(&pattern), None).unwrap();
        for is_back in [false, true] {
            let part = Part {
                is_back,
                left: 0..log.len(),
            };
            let mut hits = Hits::new(&log, &finder, part);
            // A part that several processors share.
            hits.reach = 8 * WORTH_SHARING;
            let mut at = if is_back { log.len() } else { 0 };
            let (mut found, mut calls) = (0, 0);
            loop {
                calls += 1;
                match hits.next(at, Instant::now()).unwrap() {
                    Found::Hit(hit) => {
                        found += 1;
                        at = if is_back { hit.start } else { hit.end };
                    }
                    Found::NotYet(searched) => at = searched,
                    Found::End => break,
                }
                assert!(calls < 10_000, "it does not come on");
            }
            assert_eq!(found, 40, "back: {is_back}");
        }
    }
}

//! Goes through the lines of a log in either direction, and leaves out what nobody asked for.

use std::io;
use std::ops::Range;
use std::time::Instant;

use super::reader::LogReader;
use super::record::{Body, Line};
use super::scan::{Backward, Forward};
use super::search::{Found, Hits, Part};

/// A hit so near is walked to.
const NEAR: u64 = if cfg!(test) { 300 } else { 32 * 1024 };

/// A line on the way.
#[derive(Debug)]
pub struct Passed {
    /// Where its record stands.
    pub place: Range<u64>,
    /// Its number.
    pub n: u64,
    /// The first line of its run; 0: not known.
    pub since: u64,
    /// When it was printed, in milliseconds since 1970.
    pub t: i64,
    /// The line.
    pub line: Line,
}

/// See the module.
#[derive(Debug)]
pub struct Walk<'a> {
    log: &'a LogReader,
    is_back: bool,
    /// What was gone through lies on one side of it.
    at: u64,
    reader: Option<Reader<'a>>,
}

#[derive(Debug)]
enum Reader<'a> {
    Forward(Forward<'a>),
    Backward(Backward<'a>),
}

/// How a jump ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Jump {
    /// Near the next hit, which stands here; the lines up to it are to be looked at.
    Near(u64),
    /// The time was over before.
    OutOfTime,
}

impl<'a> Walk<'a> {
    /// Begins at an offset where a record begins, or at the end.
    pub fn new(log: &'a LogReader, is_back: bool, at: u64) -> Self {
        Self {
            log,
            is_back,
            at,
            reader: None,
        }
    }

    /// How far it has come.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Goes on elsewhere.
    fn go_to(&mut self, at: u64) {
        self.at = at;
        self.reader = None;
    }

    /// The next line.
    pub fn step(&mut self) -> Option<Passed> {
        let (log, at) = (self.log, self.at);
        let is_back = self.is_back;
        let reader = self.reader.get_or_insert_with(|| match is_back {
            true => Reader::Backward(log.backward(at)),
            false => Reader::Forward(log.forward(at)),
        });
        let passed = loop {
            let (place, record) = match reader {
                Reader::Forward(reader) => reader.next_placed()?,
                Reader::Backward(reader) => reader.next_placed()?,
            };
            if let Body::Line(line) = record.body {
                break Passed {
                    place,
                    n: record.n,
                    since: record.since,
                    t: record.t,
                    line,
                };
            }
        };
        self.at = match is_back {
            true => passed.place.start,
            false => passed.place.end,
        };
        Some(passed)
    }

    /// Leaves out the rest of the run in which the walk is.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn leave_run(&mut self, since: u64) -> io::Result<()> {
        let end = self.end_of_run(since)?;
        self.go_to(end);
        Ok(())
    }

    /// Where the run in which the walk is ends, in its direction.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn end_of_run(&self, since: u64) -> io::Result<u64> {
        Ok(match self.is_back {
            true => self.log.offset_after(since.saturating_sub(1))?.min(self.at),
            false => self.log.offset_after_run(since, self.at)?,
        })
    }

    /// The log's end in the direction of the walk.
    pub fn end(&self) -> u64 {
        match self.is_back {
            true => 0,
            false => self.log.len(),
        }
    }

    /// Number of the line that was gone through last.
    pub fn last_passed(&self) -> Option<u64> {
        let behind = Walk::new(self.log, !self.is_back, self.at).step();
        behind.map(|passed| passed.n)
    }

    /// What lies between here and `end`, and in which direction.
    pub fn part(&self, end: u64) -> Part {
        let left = match self.is_back {
            true => end..self.at,
            false => self.at..end,
        };
        Part {
            is_back: self.is_back,
            left,
        }
    }

    /// The log.
    pub fn log(&self) -> &'a LogReader {
        self.log
    }

    /// Whether it goes to the beginning.
    pub fn is_back(&self) -> bool {
        self.is_back
    }

    /// Goes to the `context` wanted lines in front of the next hit; when there is none, to those in front
    /// of the end of the search.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn jump(
        &mut self,
        hits: &mut Hits<'_>,
        end: u64,
        context: usize,
        wanted: impl Fn(&Line) -> bool,
        until: Instant,
    ) -> io::Result<Jump> {
        let goal = loop {
            match hits.next(self.at, until)? {
                Found::Hit(hit) => break if self.is_back { hit.end } else { hit.start },
                Found::End => break end,
                Found::NotYet(searched) if Instant::now() > until => {
                    self.go_to(searched);
                    return Ok(Jump::OutOfTime);
                }
                Found::NotYet(_) => {}
            }
        };
        if goal.abs_diff(self.at) <= NEAR {
            return Ok(Jump::Near(goal));
        }
        let mut back = Walk::new(self.log, !self.is_back, goal);
        let mut target = goal;
        let mut left = context;
        while left > 0
            && let Some(passed) = back.step()
        {
            if self.is_past(back.at) {
                break;
            }
            if wanted(&passed.line) {
                target = back.at;
                left -= 1;
            }
        }
        // Where there are not enough of them, those that were gone through count, too.
        if left == 0 || !self.is_past(back.at) {
            self.go_to(target);
        }
        Ok(Jump::Near(goal))
    }

    /// Whether a place was gone through already.
    fn is_past(&self, at: u64) -> bool {
        match self.is_back {
            true => at > self.at,
            false => at < self.at,
        }
    }
}

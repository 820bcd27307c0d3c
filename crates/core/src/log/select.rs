//! Which lines of a log are shown: from where, how many, which match.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::build::Phase;
use crate::build::request::Stream;

use super::lean::{self, Row};
use super::pattern::Pattern;
use super::reader::LogReader;
use super::record::Line;
use super::search::{Finder, Hits};
use super::walk::{Jump, Walk};

/// How long one search may take; then it stops and says where to go on.
const SEARCH_TIME: Duration = Duration::from_secs(5);
/// How often the time is looked at, in lines.
const LOOK: u32 = 1024;
/// Of a run of lines of a filter so many are looked at one by one before its end is looked for. (In tests
/// small logs go through everything.)
const PATIENCE: u32 = if cfg!(test) { 4 } else { 64 };
/// Most lines that one answer folds: the rest is the next one's.
const MOST_FOLDED: u64 = 20_000;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind this line, forwards.
    After(u64),
    /// Before this line, backwards; `None`: from the end.
    Before(Option<u64>),
}

/// What to select.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where to begin.
    pub start: Start,
    /// Lines of text at most.
    pub lines: usize,
    /// Bytes of text at most.
    pub max_bytes: usize,
    /// Only of this phase.
    pub phase: Option<Phase>,
    /// Only of this step.
    pub step: Option<u32>,
    /// Only of this test.
    pub test: Option<String>,
    /// Only of this stream.
    pub stream: Option<Stream>,
    /// Only what matches.
    pub grep: Option<Pattern>,
    /// Lines around each match.
    pub context: usize,
    /// Runs of identical lines are folded, and very long ones cut.
    pub lean: bool,
    /// Each line begins with the time at which it was printed.
    pub timestamps: bool,
}

/// What was selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The lines in their order.
    pub rows: Vec<Row>,
    /// How many matched `grep`.
    pub matches: u64,
    /// Number of the log's last line.
    pub total: u64,
    /// The last line that was looked at, in the direction of reading.
    pub reached: Option<u64>,
    /// The direction's end was not reached.
    pub more: bool,
    /// The search took too long and stopped.
    pub out_of_time: bool,
}

impl Selection {
    /// How many lines of the log are in it.
    pub fn shown(&self) -> u64 {
        self.rows.iter().map(|row| row.times).sum()
    }

    /// All of them, one by one.
    pub fn into_lines(self) -> Vec<(u64, Line)> {
        let all = self.rows.into_iter();
        all.flat_map(|row| (row.n..=row.last()).map(move |n| (n, row.line.clone())))
            .collect()
    }

    /// The lines that are not there between those that are, and before them where the query began: first and last of
    /// each gap.
    pub fn gaps(&self, start: Start) -> impl Iterator<Item = (u64, u64)> {
        let (before, behind) = match start {
            Start::After(n) => (Some(n), None),
            // One may begin behind the end, as around a failure in the last lines.
            Start::Before(n) => (None, n.map(|n| n.min(self.total + 1))),
        };
        let begins = self.rows.iter().map(|row| row.n);
        let begins = begins.skip(usize::from(before.is_none())).chain(behind);
        let ends = before.into_iter().chain(self.rows.iter().map(Row::last));
        ends.zip(begins)
            .map(|(end, begin)| (end + 1, begin.saturating_sub(1)))
            .filter(|(first, last)| first <= last)
    }
}

impl Query {
    /// Lines of a log from a place on, all of them.
    pub fn new(start: Start, lines: usize, max_bytes: usize) -> Self {
        Self {
            start,
            lines,
            max_bytes,
            phase: None,
            step: None,
            test: None,
            stream: None,
            grep: None,
            context: 0,
            lean: false,
            timestamps: false,
        }
    }

    /// Whether it leaves out lines on purpose.
    pub fn is_filtered(&self) -> bool {
        self.is_by_run() || self.stream.is_some() || self.grep.is_some()
    }

    /// Whether it asks for runs of lines of a phase, step or test.
    fn is_by_run(&self) -> bool {
        self.phase.is_some() || self.step.is_some() || self.test.is_some()
    }

    fn concerns_run(&self, line: &Line) -> bool {
        self.phase.is_none_or(|phase| phase == line.phase)
            && (self.step).is_none_or(|step| line.step.is_some_and(|(s, _)| s == step))
            && (self.test.as_ref()).is_none_or(|test| line.test.as_ref() == Some(test))
    }

    fn concerns(&self, line: &Line) -> bool {
        self.stream.is_none_or(|stream| stream == line.stream) && self.concerns_run(line)
    }

    /// Reads the lines from the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn run(&self, log: &LogReader) -> io::Result<Selection> {
        let is_back = matches!(self.start, Start::Before(_));
        let at = match self.start {
            Start::After(n) => log.offset_after(n)?,
            Start::Before(Some(n)) => log.offset_after(n.saturating_sub(1))?,
            Start::Before(None) => log.len(),
        };
        let mut pick = Pick::new(self, is_back);
        self.walk(Walk::new(log, is_back, at), &mut pick)?;
        let mut selection = pick.out;
        if is_back {
            selection.rows.reverse();
        }
        selection.total = log.last_number();
        Ok(selection)
    }

    fn walk<'a>(&'a self, mut walk: Walk<'a>, pick: &mut Pick<'_>) -> io::Result<()> {
        let until = Instant::now() + SEARCH_TIME;
        let finder = Finder::new(self.grep.as_ref(), self.stream);
        let context = self.grep.as_ref().map_or(0, |_| self.context);
        let mut search: Option<(Hits<'_>, u64)> = None;
        // The next hit, when it is known.
        let mut goal = None;
        let mut run = (0, 0);
        let mut steps = 0u32;
        loop {
            let is_long = !self.is_by_run() || (run.0 > 0 && run.1 >= PATIENCE);
            if let Some(finder) = &finder
                && goal.is_none()
                && is_long
                && pick.is_idle()
            {
                if search.is_none() {
                    let end = match self.is_by_run() {
                        true => walk.end_of_run(run.0)?,
                        false => walk.end(),
                    };
                    search = Some((Hits::new(walk.log(), finder, walk.part(end)), end));
                }
                if let Some((hits, end)) = &mut search {
                    let from = walk.at();
                    let jump = walk.jump(hits, *end, context, |line| self.concerns(line), until)?;
                    if walk.at() != from {
                        pick.leave_out(walk.last_passed());
                    }
                    match jump {
                        Jump::Near(hit) => goal = Some(hit),
                        Jump::OutOfTime => {
                            pick.stop();
                            return Ok(());
                        }
                    }
                }
            }
            let Some(passed) = walk.step() else {
                return Ok(());
            };
            goal = goal.filter(|goal| match walk.is_back() {
                true => passed.place.end > *goal,
                false => passed.place.start < *goal,
            });
            steps += 1;
            if steps.is_multiple_of(LOOK) && Instant::now() > until {
                pick.stop();
                return Ok(());
            }
            if run.0 != passed.since {
                run = (passed.since, 0);
                if self.is_by_run() {
                    (search, goal) = (None, None);
                }
            }
            run.1 += 1;
            if !self.concerns_run(&passed.line) {
                pick.leave_out_one(passed.n);
                if run.0 > 0 && run.1 >= PATIENCE {
                    walk.leave_run(run.0)?;
                    pick.leave_out_one(walk.last_passed().unwrap_or(passed.n));
                }
                continue;
            }
            if !pick.take(passed.n, passed.t, passed.line) {
                return Ok(());
            }
        }
    }
}

/// Picks from all lines, in either direction; context works alike in both.
struct Pick<'a> {
    query: &'a Query,
    is_back: bool,
    out: Selection,
    /// Of the text so far.
    lines: usize,
    bytes: usize,
    folded: u64,
    before: VecDeque<(u64, i64, Line)>,
    /// So many lines are shown behind a match, with the match itself.
    after: usize,
}

impl<'a> Pick<'a> {
    fn new(query: &'a Query, is_back: bool) -> Self {
        Self {
            query,
            is_back,
            out: Selection::default(),
            lines: 0,
            bytes: 0,
            folded: 0,
            before: VecDeque::new(),
            after: 0,
        }
    }

    /// Whether lines that do not match would change nothing but what surrounds the next match.
    fn is_idle(&self) -> bool {
        self.after == 0
    }

    /// Lines were left out, enough of them to forget what surrounds; `last` was the last one.
    fn leave_out(&mut self, last: Option<u64>) {
        self.before.clear();
        self.out.reached = last.or(self.out.reached);
    }

    fn leave_out_one(&mut self, n: u64) {
        self.out.reached = Some(n);
    }

    /// The time is over.
    fn stop(&mut self) {
        self.out.more = true;
        self.out.out_of_time = true;
    }

    /// Takes a line; `false`: no more.
    fn take(&mut self, n: u64, t: i64, line: Line) -> bool {
        if !self.query.concerns(&line) {
            self.out.reached = Some(n);
            return true;
        }
        let is_match = (self.query.grep.as_ref()).is_none_or(|grep| grep.is_match(&line.text));
        let is_searched = self.query.grep.is_some();
        if is_match && is_searched {
            self.after = self.query.context + 1;
        }
        if !is_match && self.after == 0 {
            self.before.push_back((n, t, line));
            if self.before.len() > self.query.context {
                self.before.pop_front();
            }
            self.out.reached = Some(n);
            return true;
        }
        if !self.make_room(n, &line) {
            self.out.more = true;
            return false;
        }
        if is_match && is_searched {
            self.out.matches += 1;
        }
        self.after = self.after.saturating_sub(1);
        for (n, t, line) in std::mem::take(&mut self.before) {
            self.push(n, t, line);
        }
        self.push(n, t, line);
        self.out.reached = Some(n);
        true
    }

    /// Whether a line still fits, with what surrounds it.
    fn make_room(&mut self, n: u64, line: &Line) -> bool {
        if self.before.is_empty()
            && let Some(times @ 2..) = self.folds(n, line)
        {
            if times == 2 {
                // From now on a fold stands for the second line.
                self.bytes += lean::FOLD.saturating_sub(line.text.len());
            }
            self.folded += 1;
            return self.folded <= MOST_FOLDED && self.bytes <= self.query.max_bytes;
        }
        let query = self.query;
        let size = |(n, line): (u64, &Line)| lean::size(query, n, line);
        let before = self.before.iter().map(|(n, _, line)| (*n, line));
        let bytes: usize = before.map(size).sum::<usize>() + size((n, line));
        let lines = self.before.len() + 1;
        let full = self.lines + lines > query.lines || self.bytes + bytes > query.max_bytes;
        if full && !self.out.rows.is_empty() {
            return false;
        }
        if full {
            // At least one line is always shown, without what surrounds it.
            self.before.clear();
        }
        self.lines += lines;
        self.bytes += bytes;
        true
    }

    /// How often the last row was there, when this line is the same once more.
    fn folds(&self, n: u64, line: &Line) -> Option<u64> {
        let row = self.out.rows.last().filter(|_| self.query.lean)?;
        let is_next = match self.is_back {
            true => n.checked_add(1) == Some(row.n),
            false => row.last().checked_add(1) == Some(n),
        };
        (is_next && row.line == *line).then_some(row.times)
    }

    fn push(&mut self, n: u64, t: i64, line: Line) {
        if self.folds(n, &line).is_some()
            && let Some(row) = self.out.rows.last_mut()
        {
            row.n = row.n.min(n);
            row.times += 1;
            match self.is_back {
                true => row.began = t,
                false => row.ended = t,
            }
        } else {
            self.out.rows.push(Row {
                n,
                times: 1,
                began: t,
                ended: t,
                line,
            });
        }
    }
}

#[cfg(test)]
mod tests;

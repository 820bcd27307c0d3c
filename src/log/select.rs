//! Which lines of a log are shown: from where, how many, which match.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use regex::Regex;

use crate::build::Phase;
use crate::build::request::Stream;

use super::reader::{LogReader, lines};
use super::record::Line;

/// How long one search may take; then it stops and says where to go on.
const SEARCH_TIME: Duration = Duration::from_secs(5);

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
    /// Lines at most.
    pub lines: usize,
    /// Bytes of rendered text at most.
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
    pub grep: Option<Regex>,
    /// Lines around each match.
    pub context: usize,
}

/// What was selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The lines in their order.
    pub lines: Vec<(u64, Line)>,
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

impl Query {
    fn concerns(&self, line: &Line) -> bool {
        self.phase.is_none_or(|phase| phase == line.phase)
            && self
                .step
                .is_none_or(|step| line.step.is_some_and(|(s, _)| s == step))
            && self
                .test
                .as_ref()
                .is_none_or(|test| line.test.as_ref() == Some(test))
            && self.stream.is_none_or(|stream| stream == line.stream)
    }

    /// Reads the lines from the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn run(&self, log: &mut LogReader) -> io::Result<Selection> {
        let total = log.last_number()?;
        let mut selection = match self.start {
            Start::After(n) => {
                let offset = log.offset_after(n)?;
                self.collect(lines(log.forward(offset)?))
            }
            Start::Before(n) => {
                let offset = match n {
                    Some(n) => log.offset_after(n.saturating_sub(1))?,
                    None => log.len(),
                };
                let mut selection = self.collect(lines(log.backward(offset)?));
                selection.lines.reverse();
                selection
            }
        };
        selection.total = total;
        Ok(selection)
    }

    /// Collects in the direction of the iterator; context works alike in both.
    fn collect(&self, lines: impl Iterator<Item = (u64, Line)>) -> Selection {
        let begun = Instant::now();
        let mut out = Selection::default();
        let mut bytes = 0;
        let mut before: VecDeque<(u64, Line)> = VecDeque::new();
        let mut after = 0;
        for (i, (n, line)) in lines.enumerate() {
            if i % 1024 == 1023 && begun.elapsed() > SEARCH_TIME {
                out.more = true;
                out.out_of_time = true;
                break;
            }
            if !self.concerns(&line) {
                out.reached = Some(n);
                continue;
            }
            let wanted = match &self.grep {
                None => true,
                Some(grep) if grep.is_match(&line.text) => {
                    after = self.context + 1;
                    true
                }
                Some(_) => after > 0,
            };
            if !wanted {
                before.push_back((n, line));
                if before.len() > self.context {
                    before.pop_front();
                }
                out.reached = Some(n);
                continue;
            }
            let size: usize = before
                .iter()
                .map(|(n, l)| l.render(*n).len() + 1)
                .sum::<usize>()
                + line.render(n).len()
                + 1;
            let full =
                out.lines.len() + before.len() + 1 > self.lines || bytes + size > self.max_bytes;
            if full && !out.lines.is_empty() {
                out.more = true;
                break;
            }
            if full {
                // At least one line is always shown, without what surrounds it.
                before.clear();
            }
            bytes += size;
            if self.grep.is_some() && after == self.context + 1 {
                out.matches += 1;
            }
            after = after.saturating_sub(1);
            out.lines.extend(before.drain(..));
            out.lines.push((n, line));
            out.reached = Some(n);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::tests::write_log;
    use super::*;

    fn query(start: Start) -> Query {
        Query {
            start,
            lines: 5,
            max_bytes: 16_000,
            phase: None,
            step: None,
            test: None,
            stream: None,
            grep: None,
            context: 2,
        }
    }

    fn run(query: &Query) -> (Vec<u64>, Selection) {
        let file = write_log(&[3; 50], 7);
        let mut log = LogReader::open(file.path()).unwrap().unwrap();
        let selection = query.run(&mut log).unwrap();
        (selection.lines.iter().map(|(n, _)| *n).collect(), selection)
    }

    #[test]
    fn pages_meet_in_both_directions() {
        assert_eq!(run(&query(Start::After(0))).0, [1, 2, 3, 4, 5]);
        assert_eq!(run(&query(Start::After(5))).0, [6, 7, 8, 9, 10]);
        assert_eq!(run(&query(Start::Before(None))).0, [46, 47, 48, 49, 50]);
        assert_eq!(run(&query(Start::Before(Some(46)))).0, [41, 42, 43, 44, 45]);
        let (numbers, selection) = run(&query(Start::After(47)));
        assert_eq!((numbers, selection.more), (vec![48, 49, 50], false));
        assert_eq!(run(&query(Start::Before(Some(3)))).0, [1, 2]);
    }

    #[test]
    fn grep_shows_what_surrounds_and_counts() {
        let grep = Regex::new("^2[05] ").unwrap();
        for start in [Start::After(0), Start::Before(None)] {
            let mut wanted = query(start);
            wanted.grep = Some(grep.clone());
            wanted.lines = 50;
            let (numbers, selection) = run(&wanted);
            assert_eq!(
                numbers,
                [19, 20, 21, 22, 23, 24, 25, 26, 27, 28],
                "{start:?}"
            );
            assert_eq!((selection.matches, selection.more), (2, false));
        }
    }

    #[test]
    fn one_line_is_always_shown() {
        let mut small = query(Start::Before(None));
        small.max_bytes = 1;
        assert_eq!(run(&small).0, [50]);
        let mut step = query(Start::After(0));
        step.step = Some(2);
        assert_eq!(run(&step).0, [2, 5, 8, 11, 14]);
    }
}

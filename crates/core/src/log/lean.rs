//! Lines as an agent sees them: no more of them than tell something. A matter of rendering alone: numbers
//! and cursors stay those of the stored records.

use std::borrow::Cow;

use super::record::Line;
use super::select::Query;

/// Longest text of a line among others, in bytes.
const WIDEST: usize = 1000;
/// How much of it stands before a match that is further behind.
const BEFORE_MATCH: usize = 200;
/// So often a line must be there to be folded.
const FOLDED: u64 = 3;
/// Most bytes that a fold has besides its place.
pub(super) const FOLD: usize = "… 20000 times the same".len() + 4;
/// Bytes of a time with a space.
const TIME: usize = "2026-01-01T00:00:00.000Z ".len();
/// The same of what tells that a line was cut.
const CUT: usize = 96;

/// A line, and how often it is there in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number of the first.
    pub n: u64,
    /// How many there are.
    pub times: u64,
    /// When the first was printed, in milliseconds since 1970.
    pub began: i64,
    /// When the last was.
    pub ended: i64,
    /// The line.
    pub line: Line,
}

impl Row {
    /// Number of the last.
    pub fn last(&self) -> u64 {
        self.n + self.times - 1
    }
}

impl Query {
    /// A row as text, line by line: one that is there more than twice is folded.
    pub fn render(&self, row: &Row) -> Vec<String> {
        let place = row.line.place();
        let text = self.text(&row.line);
        let line = |n: u64, text: &str| {
            let t = if n == row.n { row.began } else { row.ended };
            match self.timestamps {
                true => format!("{n} {} {place} | {text}", time(t)),
                false => format!("{n} {place} | {text}"),
            }
        };
        if self.lean && row.times >= FOLDED {
            let fold = format!("… {} times the same", row.times - 1);
            return vec![line(row.n, &text), line(row.last(), &fold)];
        }
        (row.n..=row.last()).map(|n| line(n, &text)).collect()
    }

    /// The text of a line; a very long one is cut, unless nothing else was asked for.
    fn text<'a>(&self, line: &'a Line) -> Cow<'a, str> {
        let text = line.text.as_str();
        if !self.cuts() || text.len() <= WIDEST {
            return text.into();
        }
        let found = self.grep.as_ref().and_then(|grep| grep.find(text));
        let begin = match found {
            Some(at) if at + BEFORE_MATCH > WIDEST => at - BEFORE_MATCH,
            _ => 0,
        };
        let begin = text.floor_char_boundary(begin);
        let end = text.floor_char_boundary(begin + WIDEST);
        let left_out = |bytes: usize| format!("({bytes} bytes left out)");
        let mut cut = String::with_capacity(WIDEST + 64);
        if begin > 0 {
            cut.push_str(&left_out(begin));
            cut.push_str(" … ");
        }
        cut.push_str(text.get(begin..end).unwrap_or_default());
        if end < text.len() {
            cut.push_str(" … ");
            cut.push_str(&left_out(text.len() - end));
        }
        cut.into()
    }

    fn cuts(&self) -> bool {
        self.lean && self.lines > 1
    }
}

/// A time (RFC 3339) in [`TIME`] bytes, with its milliseconds.
fn time(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .map(|time| format!("{time:.3}"))
        .unwrap_or_default()
}

/// Most bytes that a line takes, with its end, once or folded.
pub(super) fn size(query: &Query, n: u64, line: &Line) -> usize {
    let place = n.checked_ilog10().unwrap_or(0) as usize + 1 + line.place().len();
    let text = match query.cuts() && line.text.len() > WIDEST {
        true => WIDEST + CUT,
        false => line.text.len(),
    };
    let time = if query.timestamps { TIME } else { 0 };
    time + place + " ".len() + " | ".len() + text + "\n".len()
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Pattern;
    use super::super::select::Start;
    use super::*;
    use crate::build::{Phase, request::Stream};

    fn row(n: u64, times: u64, text: &str) -> Row {
        let line = Line {
            phase: Phase::Build,
            step: Some((3, 7)),
            test: None,
            stream: Stream::Output,
            text: text.into(),
        };
        Row {
            n,
            times,
            began: 1_000,
            ended: 1_250,
            line,
        }
    }

    fn lean() -> Query {
        let mut query = Query::new(Start::After(0), 10, 10_000);
        query.lean = true;
        query
    }

    #[test]
    fn identical_lines_are_counted() {
        let query = lean();
        assert_eq!(query.render(&row(9, 1, "x")), ["9 build 3/7 | x"]);
        assert_eq!(
            query.render(&row(9, 2, "x")),
            ["9 build 3/7 | x", "10 build 3/7 | x"]
        );
        assert_eq!(
            query.render(&row(9, 42, "x")),
            ["9 build 3/7 | x", "50 build 3/7 | … 41 times the same"]
        );
        let timed = Query {
            timestamps: true,
            ..lean()
        };
        assert_eq!(
            timed.render(&row(9, 42, "x")),
            [
                "9 1970-01-01T00:00:01.000Z build 3/7 | x",
                "50 1970-01-01T00:00:01.250Z build 3/7 | … 41 times the same"
            ]
        );
        let whole = Query::new(Start::After(0), 10, 10_000);
        assert_eq!(whole.render(&row(9, 42, "x")).len(), 42);
    }

    #[test]
    fn long_lines_are_cut_around_what_matches() {
        let mut query = lean();
        let text = format!("{}needle{}", "é".repeat(1000), "y".repeat(2000));
        let cut = query.render(&row(1, 1, &text)).remove(0);
        assert!(cut.ends_with("é … (3006 bytes left out)"), "{cut}");
        query.grep = Some(Pattern::new("needle", false).unwrap());
        let cut = query.render(&row(1, 1, &text)).remove(0);
        assert!(
            cut.starts_with("1 build 3/7 | (1800 bytes left out) … é"),
            "{cut}"
        );
        assert!(
            cut.contains("needley") && cut.ends_with(" … (1206 bytes left out)"),
            "{cut}"
        );
        assert!(cut.len() < size(&query, 1, &row(1, 1, &text).line));
        query.lines = 1;
        assert_eq!(
            query.render(&row(1, 1, &text)),
            [format!("1 build 3/7 | {text}")]
        );
    }
}

//! Takes the records of a log into what they tell of its build.
//!
//! Of the lines of one origin in a row only the first and the last tell anything: the others are passed over without
//! being decoded, so that a log of hundreds of megabytes is read about as fast as it is copied.

use memchr::memmem::Finder;

use super::frame;
use super::progress::Progress;
use super::record::LogRecord;

/// See the module.
#[derive(Debug)]
pub struct Fold<'a> {
    progress: &'a mut Progress,
    /// The origin of the line before.
    origin: Option<Finder<'static>>,
    /// A line that nothing is known of yet but that it has this origin and is not empty.
    waiting: Vec<u8>,
}

impl<'a> Fold<'a> {
    /// Adds to `progress`, which has everything when this is dropped.
    pub fn new(progress: &'a mut Progress) -> Self {
        Self {
            progress,
            origin: None,
            waiting: Vec::new(),
        }
    }

    /// Takes one record, with its newline or without; what is none is passed over.
    pub fn take(&mut self, record: &[u8]) {
        let record = record.trim_ascii_end();
        if let Some(origin) = &self.origin
            && frame::text_of(record, origin).is_some_and(is_surely_not_blank)
        {
            self.waiting.clear();
            self.waiting.extend_from_slice(record);
            return;
        }
        self.settle();
        let Some(decoded) = LogRecord::decode(record) else {
            return;
        };
        let line = decoded.line();
        self.origin = line.map(|line| {
            let mut origin = Vec::new();
            frame::origin(line, &mut origin);
            Finder::new(&origin).into_owned()
        });
        self.progress.take(decoded);
    }

    fn settle(&mut self) {
        if !self.waiting.is_empty()
            && let Some(record) = LogRecord::decode(&self.waiting)
        {
            self.progress.take(record);
        }
        self.waiting.clear();
    }
}

impl Drop for Fold<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Whether a text, as it stands between its quotes, begins with something that can be seen.
fn is_surely_not_blank(text: &[u8]) -> bool {
    let first = text.trim_ascii_start().first();
    first.is_some_and(|first| first.is_ascii_graphic() && *first != b'\\')
}

#[cfg(test)]
mod tests {
    use super::super::record::{Event, Line};
    use super::*;
    use crate::build::Phase;
    use crate::build::request::Stream;
    use proptest::prelude::*;

    fn phase() -> impl Strategy<Value = Phase> {
        prop_oneof![Just(Phase::Source), Just(Phase::Build), Just(Phase::Test)]
    }

    /// Lines that often have the same origin, blank ones, such as look like an origin, and events between them.
    fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let text = prop_oneof![
            Just(String::new()),
            Just(" \t\u{2003}".to_owned()),
            Just(",\"phase\":\"build\",\"stream\":\"output\",\"text\":\"x".to_owned()),
            Just("\\".to_owned()),
            "\\PC{0,9}",
        ];
        let test = prop::option::of(Just("a\"},b".to_owned()));
        let lines = prop::collection::vec(text, 1..6);
        let run = (phase(), prop::option::of(Just((1, 2))), test, lines).prop_map(Some);
        let run = prop_oneof![4 => run, 1 => Just(None)];
        prop::collection::vec(run, 0..8).prop_map(|runs| {
            let (mut n, mut records) = (0, Vec::new());
            let mut add = |record: LogRecord| {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                records.push(bytes);
            };
            for run in runs {
                let Some((phase, step, test, texts)) = run else {
                    let phase = Phase::Build;
                    add(LogRecord::of_event(n, 7, Event::PhaseStarted { phase }));
                    continue;
                };
                for text in texts {
                    n += 1;
                    let line = Line {
                        phase,
                        step,
                        test: test.clone(),
                        stream: Stream::Output,
                        text,
                    };
                    add(LogRecord::of_line(n, 0, 7 * n.cast_signed(), line));
                }
            }
            records
        })
    }

    proptest! {
        #[test]
        fn it_is_the_same_as_taking_each_record(records in records(), torn in any::<prop::sample::Index>()) {
            let mut records = records;
            if !records.is_empty() {
                // What was torn in the middle is no record.
                let torn = torn.index(records.len());
                let half = records[torn].len() / 2;
                records[torn].truncate(half);
            }
            let mut each = Progress::default();
            for record in &records {
                if let Some(record) = LogRecord::decode(record.trim_ascii_end()) {
                    each.take(record);
                }
            }
            let mut folded = Progress::default();
            let mut fold = Fold::new(&mut folded);
            records.iter().for_each(|record| fold.take(record));
            drop(fold);
            prop_assert_eq!(folded, each);
        }
    }
}

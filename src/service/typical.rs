//! How long a build of its kind usually takes.

use crate::build::status::SourceStatus;
use crate::build::{Record, State};

use super::{Principal, Service};

/// How many of the last successes count.
const COUNTED: usize = 9;

impl Service {
    /// Median of the last successes of the same name or source, in seconds.
    pub async fn typical_seconds(&self, principal: &Principal, record: &Record) -> Option<u64> {
        if record.end.is_some() {
            return None;
        }
        if let Some(known) = self.typical.known(&record.id) {
            return known;
        }
        let own = self.own(principal).await.ok()?;
        let mut seconds: Vec<i64> = (own.iter())
            .filter(|view| view.state() == State::Succeeded && is_same(record, &view.record))
            .filter_map(|view| Some((view.record.end.as_ref()?.at - view.record.began?) / 1000))
            .take(COUNTED)
            .collect();
        seconds.sort_unstable();
        let median = seconds.get(seconds.len() / 2);
        let median = median.and_then(|median| u64::try_from(*median).ok());
        self.typical.keep(&record.id, median)
    }
}

fn is_same(one: &Record, other: &Record) -> bool {
    match (&one.name, &other.name) {
        (Some(one), Some(other)) => one == other,
        (None, None) => {
            let (one, other) = (&one.source, &other.source);
            (&one.git, &one.path, &one.subdir) == (&other.git, &other.path, &other.subdir)
                && *one != SourceStatus::default()
        }
        _ => false,
    }
}

//! What this server knows of all builds: kept up to date by the feed, lost with the server, read
//! back from the cluster by the next one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::build::BuildId;
use crate::log::Progress;
use crate::runner::reporter::now_ms;

use super::cluster::Known;
use super::store::Versioned;
use super::stored::Stored;

/// One build.
#[derive(Debug, Default)]
struct Entry {
    /// Its record, as soon as that was read.
    record: Option<Arc<Versioned>>,
    known: Arc<Known>,
    /// What its log tells, as far as it was read.
    progress: Arc<Progress>,
    /// When this server first saw its record, in milliseconds since 1970.
    seen: i64,
    /// Somebody looks after it.
    tended: bool,
    /// Grows with each change.
    tell: watch::Sender<u64>,
}

/// A build as this server knows it: cheap to hand out, since everybody asks all the time.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Its record.
    pub record: Arc<Versioned>,
    /// What the cluster tells.
    pub known: Arc<Known>,
    /// What its log tells, as far as it was read.
    pub progress: Arc<Progress>,
    /// When this server first saw its record, in milliseconds since 1970.
    pub seen: i64,
}

impl Entry {
    fn page(&self) -> Option<Page> {
        Some(Page {
            record: self.record.clone()?,
            known: Arc::clone(&self.known),
            progress: Arc::clone(&self.progress),
            seen: self.seen,
        })
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Books {
    entries: Mutex<HashMap<BuildId, Entry>>,
    /// Which parts of the feed have been read as a whole since they were last connected.
    ready: watch::Sender<Ready>,
}

/// See [`Books::ready`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// The records.
    pub records: bool,
    /// Jobs and allocations.
    pub cluster: bool,
    /// They were once, since this server began.
    pub cluster_once: bool,
}

impl Books {
    fn with<R>(&self, f: impl FnOnce(&mut HashMap<BuildId, Entry>) -> R) -> R {
        f(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a part of the feed was read as a whole, or is not up to date any more.
    pub fn set_ready(&self, change: impl FnOnce(&mut Ready)) {
        self.ready.send_if_modified(|ready| {
            let before = *ready;
            change(ready);
            *ready != before
        });
    }

    /// What was read as a whole; to wait for it.
    pub fn ready(&self) -> watch::Receiver<Ready> {
        self.ready.subscribe()
    }

    /// Takes a record in; `true`: nobody looks after the build yet, and the caller must see to it.
    pub fn take_record(&self, record: Versioned) -> bool {
        let id = record.stored.record.id.clone();
        self.with(|entries| {
            let entry = entries.entry(id).or_default();
            let known = entry.record.as_ref().map_or(0, |known| known.index);
            if entry.record.is_none() {
                entry.seen = now_ms();
            }
            if record.index > known {
                entry.record = Some(Arc::new(record));
                entry.tell.send_modify(|count| *count += 1);
            }
            !std::mem::replace(&mut entry.tended, true)
        })
    }

    /// The cluster was restored to an earlier state: its indexes begin again lower.
    pub fn restart(&self) {
        self.with(|entries| {
            for entry in entries.values_mut() {
                if let Some(record) = &mut entry.record {
                    Arc::make_mut(record).index = 0;
                }
                Arc::make_mut(&mut entry.known).restart();
            }
        });
    }

    /// Nobody looks after the build any more; a change of its record makes somebody do so again.
    pub fn leave(&self, id: &BuildId) {
        self.with(|entries| {
            if let Some(entry) = entries.get_mut(id) {
                entry.tended = false;
            }
        });
    }

    /// Index of the last change of a record that is known; 0: of none.
    pub fn index(&self, id: &BuildId) -> u64 {
        self.with(|entries| {
            let record = entries.get(id).and_then(|entry| entry.record.as_ref());
            record.map_or(0, |record| record.index)
        })
    }

    /// Forgets the builds whose records were not in a list of the index `listed`.
    pub fn retain(&self, there: &HashSet<BuildId>, listed: u64) {
        self.with(|entries| {
            entries.retain(|id, entry| {
                let gone = entry
                    .record
                    .as_ref()
                    .is_some_and(|record| record.index <= listed && !there.contains(id));
                if gone {
                    entry.tell.send_modify(|count| *count += 1);
                }
                !gone
            });
        });
    }

    /// Forgets a build.
    pub fn forget(&self, id: &BuildId) {
        self.with(|entries| {
            if let Some(entry) = entries.remove(id) {
                entry.tell.send_modify(|count| *count += 1);
            }
        });
    }

    /// Changes what the cluster tells of a build; `change` says whether there was anything new.
    pub fn take(&self, id: &BuildId, change: impl FnOnce(&mut Known) -> bool) {
        self.with(|entries| {
            let entry = entries.entry(id.clone()).or_default();
            if change(Arc::make_mut(&mut entry.known)) {
                entry.tell.send_modify(|count| *count += 1);
            }
        });
    }

    /// Changes what the cluster tells of every build.
    pub fn take_all(&self, mut change: impl FnMut(&BuildId, &mut Known) -> bool) {
        self.with(|entries| {
            for (id, entry) in entries {
                if change(id, Arc::make_mut(&mut entry.known)) {
                    entry.tell.send_modify(|count| *count += 1);
                }
            }
        });
    }

    /// Notes what a log tells.
    pub fn set_progress(&self, id: &BuildId, progress: Progress) {
        self.with(|entries| {
            // Whoever reads it waits for changes, too: the same again must not wake it.
            if let Some(entry) = entries.get_mut(id)
                && *entry.progress != progress
            {
                entry.progress = Arc::new(progress);
                entry.tell.send_modify(|count| *count += 1);
            }
        });
    }

    /// A build, if its record is known.
    pub fn page(&self, id: &BuildId) -> Option<Page> {
        self.with(|entries| entries.get(id)?.page())
    }

    /// Every build whose record is known.
    pub fn pages(&self) -> Vec<Page> {
        self.with(|entries| entries.values().filter_map(Entry::page).collect())
    }

    /// Tells of each change of a build; of one that is not known, when it becomes so.
    pub fn subscribe(&self, id: &BuildId) -> watch::Receiver<u64> {
        self.with(|entries| entries.entry(id.clone()).or_default().tell.subscribe())
    }

    /// How many other unfinished builds a principal has.
    pub fn unfinished(&self, principal: &str, but: &BuildId) -> usize {
        self.with(|entries| {
            let records = entries.values().filter_map(|entry| entry.record.as_ref());
            let records = records.map(|versioned| &versioned.stored.record);
            let own = records.filter(|record| record.principal == principal && record.id != *but);
            own.filter(|record| record.end.is_none()).count()
        })
    }

    /// How many builds of the same profile wait before this one.
    pub fn ahead(&self, stored: &Stored) -> usize {
        self.with(|entries| {
            let others = entries.iter().filter_map(|(id, entry)| {
                Some((id, &entry.record.as_ref()?.stored, &*entry.known))
            });
            super::decide::ahead(stored, others)
        })
    }

    /// Removes what was only asked for and never there.
    pub fn tidy(&self) {
        self.with(|entries| {
            entries.retain(|_, entry| {
                let over = entry.known.job.as_ref().is_none_or(|job| job.is_over());
                let gone = entry.known.gone_since.is_some();
                entry.record.is_some() || entry.tell.receiver_count() > 0 || !(over || gone)
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nomad::stored::tests::stored;

    #[test]
    fn only_what_is_new_wakes_those_who_wait() {
        let books = Books::default();
        let stored = stored();
        let id = stored.record.id.clone();
        let record = Versioned { stored, index: 7 };
        assert!(
            books.take_record(record.clone()),
            "nobody looks after it yet"
        );
        let mut changed = books.subscribe(&id);
        changed.borrow_and_update();
        assert!(!books.take_record(record.clone()));
        books.set_progress(&id, Progress::default());
        books.take(&id, |_| false);
        assert!(!changed.has_changed().unwrap());
        let lines = Progress {
            lines: 1,
            ..Progress::default()
        };
        books.set_progress(&id, lines.clone());
        assert!(changed.has_changed().unwrap());
        changed.borrow_and_update();
        books.set_progress(&id, lines);
        assert!(!changed.has_changed().unwrap());
        // An older record than the one that is known is none.
        let older = Versioned { index: 6, ..record };
        books.take_record(older);
        assert!(!changed.has_changed().unwrap());
        assert_eq!(books.index(&id), 7);
        books.forget(&id);
        assert!(changed.has_changed().is_err() || changed.borrow_and_update().eq(&3));
        assert!(books.page(&id).is_none());
    }
}

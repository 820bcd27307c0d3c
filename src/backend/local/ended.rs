//! Records of builds that have ended, remembered for as long as their files are the same: a list of hundreds of
//! them costs a look at each file, not its reading.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::build::{BuildId, Record};
use crate::runner::fingerprint::Fingerprint;

use super::layout::BuildDir;
use super::store;

/// What is remembered.
#[derive(Debug, Default)]
pub struct Ended(Mutex<HashMap<BuildId, (Fingerprint, Record)>>);

impl Ended {
    /// The record of a build that was read at its end, unless its file has changed or is gone.
    pub fn known(&self, id: &BuildId, dir: &BuildDir) -> Option<Record> {
        let mut all = self.lock();
        let (then, record) = all.get(id)?;
        let now = fs::metadata(dir.record()).map(|metadata| Fingerprint::of(&metadata));
        if now.is_ok_and(|now| now == *then) {
            return Some(record.clone());
        }
        all.remove(id);
        None
    }

    /// Reads a record, and remembers it if it says how the build ended.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn read(&self, dir: &BuildDir) -> io::Result<Record> {
        // Before it is read: what is written meanwhile makes it another file.
        let fingerprint = Fingerprint::of(&fs::metadata(dir.record())?);
        let record = store::read(dir)?;
        if record.end.is_some() {
            let known = (fingerprint, record.clone());
            self.lock().insert(record.id.clone(), known);
        }
        Ok(record)
    }

    /// Forgets all builds but these.
    pub fn forget_but(&self, ids: &HashSet<BuildId>) {
        self.lock().retain(|id, _| ids.contains(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, (Fingerprint, Record)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::State;
    use crate::build::samples::{end, record};

    #[test]
    fn what_has_ended_is_known_until_its_file_is_another() {
        let root = tempfile::tempdir().unwrap();
        let (dir, all) = (BuildDir::new(root.path()), Ended::default());
        let mut record = record();
        let write = |record: &Record| {
            store::replace(&dir.record(), &serde_json::to_vec(record).unwrap()).unwrap();
        };
        write(&record);
        assert_eq!(all.read(&dir).unwrap(), record);
        assert_eq!(all.known(&record.id, &dir), None, "it runs on");
        record.finish(end(State::Succeeded));
        write(&record);
        assert_eq!(all.read(&dir).unwrap(), record);
        assert_eq!(all.known(&record.id, &dir).as_ref(), Some(&record));
        record.name = Some("another".into());
        write(&record);
        assert_eq!(all.known(&record.id, &dir), None, "it was replaced");
        all.read(&dir).unwrap();
        fs::remove_file(dir.record()).unwrap();
        assert_eq!(all.known(&record.id, &dir), None, "it is gone");
        write(&record);
        all.read(&dir).unwrap();
        all.forget_but(&HashSet::new());
        assert_eq!(
            all.known(&record.id, &dir),
            None,
            "nobody lists it any more"
        );
    }
}

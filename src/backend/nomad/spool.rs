//! Logs that this server has read: one file a build, disposable, lost with the server.
//!
//! The records of all tasks of a build stand in it one behind the other, as the runner numbered
//! them; so it is read like the log of a build on this machine.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tokio::sync::Mutex as AsyncMutex;

use crate::build::BuildId;
use crate::log::{LogReader, LogRecord, Progress};
use crate::runner::lock::{lock, try_lock};

use super::cluster::PUBLISH;

const PREFIX: &str = "spool-";
const LOCK: &str = ".lock";
const OUTPUTS: &str = "outputs";
/// Most bytes of outputs that are kept at the same time.
const MAX_OUTPUTS: u64 = 4 << 30;
/// Most logs that are kept at the same time; the oldest goes first.
const MAX_LOGS: usize = 500;

/// Logs by their builds.
#[derive(Debug)]
pub struct Spool {
    dir: TempDir,
    /// Held as long as this server lives.
    _lock: File,
    logs: Mutex<HashMap<BuildId, Arc<AsyncMutex<Spooled>>>>,
    /// Held while an output is fetched: one at a time, so that nobody fetches the same or fills the disk.
    pub fetching: AsyncMutex<()>,
}

/// One log, as far as it was read.
#[derive(Debug)]
pub struct Spooled {
    path: PathBuf,
    /// Bytes that were read of each task, by its name.
    offsets: HashMap<&'static str, u64>,
    /// The beginning of a record whose end has not come yet.
    torn: Vec<u8>,
    /// The task that said it.
    torn_of: &'static str,
    /// What it tells.
    pub progress: Progress,
    /// The beginning of a task's output was gone already.
    pub headless: bool,
}

impl Spool {
    /// A spool below `dir`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        remove_dead(dir)?;
        let own = tempfile::Builder::new().prefix(PREFIX).tempdir_in(dir)?;
        let lock = lock(&own.path().join(LOCK))?;
        Ok(Self {
            dir: own,
            _lock: lock,
            logs: Mutex::default(),
            fetching: AsyncMutex::default(),
        })
    }

    /// The log of a build; whoever holds it is alone with it.
    pub fn log(&self, id: &BuildId) -> Arc<AsyncMutex<Spooled>> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if !logs.contains_key(id) && logs.len() >= MAX_LOGS {
            // One that nobody holds; which one does not matter, it can be read again.
            let idle = logs.iter().find(|(_, log)| Arc::strong_count(log) == 1);
            if let Some(idle) = idle.map(|(id, _)| id.clone()) {
                logs.remove(&idle);
                let _ = fs::remove_file(self.path(&idle));
            }
        }
        let path = self.path(id);
        let log = logs.entry(id.clone()).or_insert_with(|| {
            Arc::new(AsyncMutex::new(Spooled {
                path,
                offsets: HashMap::new(),
                torn: Vec::new(),
                torn_of: "",
                progress: Progress::default(),
                headless: false,
            }))
        });
        Arc::clone(log)
    }

    /// Forgets a build's log.
    pub fn forget(&self, id: &BuildId) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.remove(id);
        let _ = fs::remove_file(self.path(id));
    }

    /// Where an output of a build is, once it was fetched.
    pub fn output(&self, id: &BuildId, name: &str) -> PathBuf {
        self.dir.path().join(OUTPUTS).join(format!("{id}-{name}"))
    }

    /// Removes outputs of other builds, the oldest first, until with `more` bytes there are no more than what is kept
    /// of them.
    ///
    /// # Errors
    /// When they cannot be listed or removed.
    pub fn make_room(&self, id: &BuildId, more: u64) -> io::Result<()> {
        let dir = self.dir.path().join(OUTPUTS);
        fs::create_dir_all(&dir)?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            kept.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        kept.sort();
        let mut total = kept.iter().map(|(_, size, _)| size).sum::<u64>() + more;
        let own = self.output(id, "");
        let of_others = |path: &Path| !path.to_string_lossy().starts_with(&*own.to_string_lossy());
        for (_, size, path) in kept.into_iter().filter(|(_, _, path)| of_others(path)) {
            if total <= MAX_OUTPUTS {
                break;
            }
            // Whoever reads it reads on.
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }

    /// Where a build's log is.
    pub fn path(&self, id: &BuildId) -> PathBuf {
        self.dir.path().join(format!("{id}.ndjson"))
    }
}

/// Removes the spools of servers that were killed.
fn remove_dead(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_spool = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        // One without a lock is being made.
        let file = path.join(LOCK);
        if is_spool && file.exists() && try_lock(&file)?.is_some() {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

impl Spooled {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that were read of a task.
    pub fn offset(&self, task: &'static str) -> u64 {
        self.offsets.get(task).copied().unwrap_or(0)
    }

    /// Whether what a task says may follow: what the one before it said has to be here as a whole.
    pub fn is_next(&self, task: &'static str) -> bool {
        task != PUBLISH || self.progress.outcome.is_some() || self.offset(PUBLISH) > 0
    }

    /// Adds what a task said next; only whole records are added.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, task: &'static str, bytes: &[u8]) -> io::Result<()> {
        *self.offsets.entry(task).or_default() += bytes.len() as u64;
        // A task that was killed in the middle of a record will not end it.
        if std::mem::replace(&mut self.torn_of, task) != task {
            self.torn.clear();
        }
        self.torn.extend_from_slice(bytes);
        let Some(end) = self.torn.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let whole: Vec<u8> = self.torn.drain(..=end).collect();
        let mut kept = Vec::with_capacity(whole.len());
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            if let Some(record) = LogRecord::decode(line.trim_ascii_end()) {
                self.progress.take(record);
                kept.extend_from_slice(line);
            }
        }
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)?;
        file.write_all(&kept)
    }

    /// Reads the file anew, which somebody has replaced by the whole log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn reread(&mut self) -> io::Result<()> {
        let mut progress = Progress::default();
        if let Some(log) = LogReader::open(&self.path)? {
            log.tell(0, &mut progress)?;
        }
        self.torn.clear();
        self.progress = progress;
        Ok(())
    }
}

//! Records of the runner on their way through the task to Nomad, which keeps them; read in passing.

use std::io::{self, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backend::local::workshop::Output;
use crate::log::{Event, Fold, Progress, RecordWriter};
use crate::runner::entry::stdout;
use crate::runner::reporter::now_ms;

/// How much is read at once.
const BLOCK: usize = 1 << 16;
/// How long the last records of a part that has ended may take to come through.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct PassedOn {
    progress: Arc<Mutex<Progress>>,
    bytes: Arc<AtomicU64>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl PassedOn {
    fn take(progress: &Mutex<Progress>, records: &[u8]) {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fold = Fold::new(&mut progress);
        for record in records.split_inclusive(|byte| *byte == b'\n') {
            fold.take(record);
        }
    }
}

fn pass_on(
    mut from: impl io::Read,
    progress: &Mutex<Progress>,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut out = stdout()?;
    let mut buffer = vec![0; BLOCK];
    let mut used = 0;
    loop {
        if used == buffer.len() {
            buffer.resize(used + BLOCK, 0);
        }
        let read = from.read(buffer.get_mut(used..).unwrap_or_default())?;
        let came = buffer.get(used..used + read).unwrap_or_default();
        let last = memchr::memrchr(b'\n', came).map(|newline| used + newline + 1);
        used += read;
        // At the end also what a killed runner has begun.
        let Some(whole) = last.or((read == 0).then_some(used)) else {
            continue;
        };
        let records = buffer.get(..whole).unwrap_or_default();
        PassedOn::take(progress, records);
        // Whole lines: Nomad's log is read by others while it grows.
        out.write_all(records)?;
        passed.fetch_add(whole as u64, Ordering::Relaxed);
        if read == 0 {
            return Ok(());
        }
        buffer.copy_within(whole..used, 0);
        used -= whole;
    }
}

impl Output for PassedOn {
    fn open(&self) -> io::Result<(Stdio, Stdio)> {
        let (from, to) = io::pipe()?;
        let progress = Arc::clone(&self.progress);
        let bytes = Arc::clone(&self.bytes);
        let reader = std::thread::spawn(move || {
            if let Err(error) = pass_on(from, &progress, &bytes) {
                tracing::error!(%error, "records cannot be passed on");
            }
        });
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.push(reader);
        Ok((to.into(), Stdio::inherit()))
    }

    fn progress(&self) -> io::Result<Progress> {
        let deadline = Instant::now() + LAST_WORDS;
        let readers = {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *readers)
        };
        for reader in readers {
            while !reader.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let progress = self.progress.lock();
        Ok(progress.unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.load(Ordering::Relaxed))
    }

    fn append(&self, event: Event) -> io::Result<()> {
        let last = self.progress()?.lines;
        let mut bytes = Vec::new();
        RecordWriter::new(&mut bytes, last, u64::MAX).event(now_ms(), event)?;
        Self::take(&self.progress, &bytes);
        stdout()?.write_all(&bytes)
    }
}

//! Records of the runner on their way through the task to Nomad, which keeps them; read in passing.

use std::io::{self, BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backend::local::workshop::Output;
use crate::log::{Event, LogRecord, Progress, RecordWriter};
use crate::runner::entry::stdout;
use crate::runner::reporter::now_ms;

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
    fn take(progress: &Mutex<Progress>, line: &[u8]) {
        if let Some(record) = LogRecord::decode(line.trim_ascii_end()) {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.take(record);
        }
    }
}

fn pass_on(from: impl io::Read, progress: &Mutex<Progress>, bytes: &AtomicU64) -> io::Result<()> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut out = stdout()?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        PassedOn::take(progress, &line);
        bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
        // Whole lines: Nomad's log is read by others while it grows.
        out.write_all(&line)?;
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

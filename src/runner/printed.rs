//! What comes out of a pipe, made into lines by a task of its own while those before are written.
//!
//! ```text
//! pipe ─▶ read ─▶ split, cleaned, without secrets ─▶ lines ─▶ whoever writes them
//!          └──────────── this task ─────────────┘   └ given back when they are written ┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::diagnosis::LastWords;
use crate::log::Redactor;
use crate::log::lines::LineSplitter;

/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;
/// Blocks of lines: while one is written the next ones are made.
const BLOCKS: usize = 3;

/// Bytes that may be read and not yet handed out.
pub const AHEAD: usize = BLOCKS * BUFFER;

/// Lines that came together.
#[derive(Debug, Default)]
pub struct Lines {
    text: String,
    /// Where each line ends in the text; the next one begins there.
    ends: Vec<usize>,
    /// Bytes that were read for them.
    read: usize,
}

impl Lines {
    /// Each line, cleaned and masked.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(&0).chain(&self.ends);
        (begins.zip(&self.ends)).map(|(begin, end)| self.text.get(*begin..*end).unwrap_or_default())
    }

    /// Bytes that were read for them.
    pub fn read(&self) -> usize {
        self.read
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.ends.push(self.text.len());
    }

    /// Makes room for others, and keeps no more memory than most need.
    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(2 * BUFFER);
        self.ends.clear();
        self.ends.shrink_to(BUFFER / 8);
    }
}

/// See the module.
pub struct Printed {
    filled: mpsc::Receiver<Lines>,
    empty: mpsc::Sender<Lines>,
    splitting: Arc<Mutex<Splitting>>,
    /// Whoever escaped the group may hold the pipe open.
    _reader: AbortOnDropHandle<()>,
}

/// What is known of the bytes that were read.
struct Splitting {
    splitter: LineSplitter,
    last_words: LastWords,
    redactor: Arc<Redactor>,
}

impl Splitting {
    fn take(&mut self, bytes: &[u8], lines: &mut Lines) {
        self.last_words.push(bytes, &self.redactor);
        lines.read = bytes.len();
        (self.splitter).push(bytes, &self.redactor, |line| lines.push(line));
    }
}

impl Printed {
    /// Begins to read.
    pub fn of(mut pipe: Receiver, redactor: Arc<Redactor>) -> Self {
        let (empty, mut to_fill) = mpsc::channel::<Lines>(BLOCKS);
        let (give, filled) = mpsc::channel(BLOCKS);
        for _ in 0..BLOCKS {
            // There is room for all of them.
            let _ = empty.try_send(Lines::default());
        }
        let splitting = Arc::new(Mutex::new(Splitting {
            splitter: LineSplitter::default(),
            last_words: LastWords::default(),
            redactor,
        }));
        let known = Arc::clone(&splitting);
        let read_on = async move {
            let mut bytes = Vec::with_capacity(BUFFER);
            while let Some(mut lines) = to_fill.recv().await {
                bytes.clear();
                match pipe.read_buf(&mut bytes).await {
                    Ok(1..) => locked(&known).take(&bytes, &mut lines),
                    _ => return,
                }
                if give.send(lines).await.is_err() {
                    return;
                }
            }
        };
        Self {
            filled,
            empty,
            splitting,
            _reader: AbortOnDropHandle::new(tokio::spawn(read_on)),
        }
    }

    /// The next lines; there may be none among what was read. `None` at the end.
    pub async fn next(&mut self) -> Option<Lines> {
        self.filled.recv().await
    }

    /// The next lines, where they are there already.
    pub fn at_hand(&mut self) -> Option<Lines> {
        self.filled.try_recv().ok()
    }

    /// Lets the next lines into the memory of these.
    pub fn give_back(&self, mut lines: Lines) {
        lines.clear();
        // Refused only when nobody reads any more.
        let _ = self.empty.try_send(lines);
    }

    /// Hands out what has come since the last newline, and the end of all that was read.
    pub fn finish(self, emit: impl FnOnce(&str)) -> LastWords {
        let mut splitting = locked(&self.splitting);
        let Splitting {
            splitter,
            last_words,
            redactor,
        } = &mut *splitting;
        splitter.finish(redactor, emit);
        std::mem::take(last_words)
    }
}

fn locked(splitting: &Mutex<Splitting>) -> MutexGuard<'_, Splitting> {
    splitting.lock().unwrap_or_else(PoisonError::into_inner)
}

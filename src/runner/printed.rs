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
use crate::log::lines::{LineSplitter, Lines};

use super::leftovers::Leftovers;

/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;
/// Blocks of lines: while one is written the next ones are made.
const BLOCKS: usize = 3;

/// Bytes that may be read and not yet handed out.
pub const AHEAD: usize = BLOCKS * BUFFER;

/// What was read together.
#[derive(Debug, Default)]
pub struct Block {
    /// Cleaned and masked.
    pub lines: Lines,
    /// Bytes that were read for them.
    pub read: usize,
}

/// See the module.
pub struct Printed {
    filled: mpsc::Receiver<Block>,
    empty: mpsc::Sender<Block>,
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
    fn take(&mut self, bytes: &[u8], block: &mut Block) {
        self.last_words.push(bytes, &self.redactor);
        block.read = bytes.len();
        (self.splitter).push(bytes, &self.redactor, &mut block.lines);
    }
}

impl Printed {
    /// Begins to read.
    pub fn of(
        mut pipe: Receiver,
        redactor: Arc<Redactor>,
        leftovers: Option<Arc<Leftovers>>,
    ) -> Self {
        let (empty, mut to_fill) = mpsc::channel::<Block>(BLOCKS);
        let (give, filled) = mpsc::channel(BLOCKS);
        for _ in 0..BLOCKS {
            // There is room for all of them.
            let _ = empty.try_send(Block::default());
        }
        let splitting = Arc::new(Mutex::new(Splitting {
            splitter: LineSplitter::default(),
            last_words: LastWords::default(),
            redactor,
        }));
        let known = Arc::clone(&splitting);
        let read_on = async move {
            let mut bytes = Vec::with_capacity(BUFFER);
            while let Some(mut block) = to_fill.recv().await {
                bytes.clear();
                bytes.shrink_to(BUFFER);
                let is_end = !matches!(pipe.read_buf(&mut bytes).await, Ok(1..));
                if let Some(leftovers) = &leftovers {
                    leftovers.add_to(&mut bytes, &pipe, is_end).await;
                }
                locked(&known).take(&bytes, &mut block);
                if give.send(block).await.is_err() || is_end {
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
    pub async fn next(&mut self) -> Option<Block> {
        self.filled.recv().await
    }

    /// The next lines, where they are there already.
    pub fn at_hand(&mut self) -> Option<Block> {
        self.filled.try_recv().ok()
    }

    /// Lets the next lines into the memory of these.
    pub fn give_back(&self, mut block: Block) {
        block.lines.clear(2 * BUFFER);
        // Refused only when nobody reads any more.
        let _ = self.empty.try_send(block);
    }

    /// What has come since the last newline, and the end of all that was read.
    pub fn finish(self) -> (Lines, LastWords) {
        let mut splitting = locked(&self.splitting);
        let Splitting {
            splitter,
            last_words,
            redactor,
        } = &mut *splitting;
        let mut lines = Lines::default();
        splitter.finish(redactor, &mut lines);
        (lines, std::mem::take(last_words))
    }
}

fn locked(splitting: &Mutex<Splitting>) -> MutexGuard<'_, Splitting> {
    splitting.lock().unwrap_or_else(PoisonError::into_inner)
}

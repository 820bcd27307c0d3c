//! A file that is written by a thread of its own, while the next bytes are made: of a flood of output the kernel's part
//! takes as long as everything else.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Fewer bytes are written at once: to tell a thread of them would take longer.
const WORTH_TELLING: usize = 64 * 1024;
/// Blocks that exist at the same time: one is written, the next one waits.
const BLOCKS: usize = 2;

/// Writes to a file in order. What [`Write::write`] took may fail later: [`Write::flush`] waits for all of it, and gives
/// the first error.
#[derive(Debug)]
pub struct BackgroundWriter {
    file: Arc<File>,
    thread: Option<Thread>,
    error: Option<io::Error>,
}

#[derive(Debug)]
struct Thread {
    /// `None` while it ends.
    blocks: Option<Sender<Vec<u8>>>,
    written: Receiver<(Vec<u8>, io::Result<()>)>,
    /// Blocks that were not given back yet.
    away: usize,
    spare: Vec<Vec<u8>>,
    handle: Option<JoinHandle<()>>,
}

impl BackgroundWriter {
    /// A writer to this file; the thread begins with the first large write.
    pub fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            thread: None,
            error: None,
        }
    }

    /// The thread, where there is one to be had.
    fn thread(&mut self) -> Option<&mut Thread> {
        if self.thread.is_none() {
            self.thread = Thread::start(Arc::clone(&self.file)).ok();
        }
        self.thread.as_mut()
    }

    fn is_idle(&self) -> bool {
        self.thread.as_ref().is_none_or(|thread| thread.away == 0)
    }

    /// Takes one block back.
    fn wait(&mut self) {
        let written = self.thread.as_mut().map(Thread::take_back);
        if let Some(Err(error)) = written {
            self.error.get_or_insert(error);
        }
    }
}

impl Write for BackgroundWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() < WORTH_TELLING && self.is_idle() {
            return (&*self.file).write(bytes);
        }
        while self
            .thread
            .as_ref()
            .is_some_and(|thread| thread.away == BLOCKS)
        {
            self.wait();
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match self.thread() {
            Some(thread) => thread.hand_over(bytes).map(|()| bytes.len()),
            None => (&*self.file).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.is_idle() {
            self.wait();
        }
        self.error.take().map_or(Ok(()), Err)
    }
}

impl Thread {
    fn start(file: Arc<File>) -> io::Result<Self> {
        let (blocks, to_write) = channel::<Vec<u8>>();
        let (give_back, written) = channel();
        let write = move || {
            for block in to_write {
                let result = (&*file).write_all(&block);
                if give_back.send((block, result)).is_err() {
                    return;
                }
            }
        };
        let handle = std::thread::Builder::new()
            .name("log".into())
            .spawn(write)?;
        Ok(Self {
            blocks: Some(blocks),
            written,
            away: 0,
            spare: Vec::new(),
            handle: Some(handle),
        })
    }

    fn hand_over(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut block = self.spare.pop().unwrap_or_default();
        block.clear();
        block.extend_from_slice(bytes);
        let sent = self.blocks.as_ref().map(|blocks| blocks.send(block));
        let Some(Ok(())) = sent else {
            return Err(io::Error::other("the thread that writes has ended"));
        };
        self.away += 1;
        Ok(())
    }

    fn take_back(&mut self) -> io::Result<()> {
        self.away -= 1;
        let (block, result) = self.written.recv().map_err(io::Error::other)?;
        self.spare.push(block);
        result
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.blocks = None;
        if let Some(handle) = self.handle.take() {
            // It has no more to say than it has given back.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn writer(path: &std::path::Path) -> BackgroundWriter {
        BackgroundWriter::new(File::create(path).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_flushed_is_there_in_its_order(sizes in prop::collection::vec((0usize..200_000, any::<bool>()), 0..12)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut writer = writer(&path);
            let mut all = Vec::new();
            for (number, (size, flush)) in sizes.into_iter().enumerate() {
                let bytes = vec![u8::try_from(number).unwrap(); size];
                writer.write_all(&bytes).unwrap();
                all.extend(bytes);
                if flush {
                    writer.flush().unwrap();
                    prop_assert!(std::fs::read(&path).unwrap() == all);
                }
            }
            drop(writer);
            prop_assert!(std::fs::read(&path).unwrap() == all, "what was not flushed is written at the end");
        }
    }

    #[test]
    fn a_disk_that_is_full_is_told_and_nothing_hangs() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = BackgroundWriter::new(full);
        let is_full = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        };
        for _ in 0..3 {
            // Told by one of both, and then no more.
            writer.write_all(&vec![b'x'; WORTH_TELLING]).unwrap();
            is_full(writer.flush());
            writer.flush().unwrap();
            is_full(writer.write_all(b"few"));
        }
        let block = vec![b'x'; WORTH_TELLING];
        let told = (0..9).filter(|_| writer.write_all(&block).is_err()).count();
        assert!(told > 0, "not only at the end");
    }
}

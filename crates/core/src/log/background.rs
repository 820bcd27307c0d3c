//! A file that is written by a thread of its own, while the next bytes are made: of a flood of output the kernel's part
//! takes as long as everything else.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::writer::Records;

/// Where nothing is being written, fewer bytes are written at once: to tell a thread of them would take longer.
const WORTH_TELLING: usize = 64 * 1024;
/// More bytes are written at once: nobody keeps memory for them.
const LARGEST: usize = 1024 * 1024;
/// Blocks that exist at the same time: one is written, the next one waits.
const BLOCKS: usize = 2;

/// Writes lines to a file in order, whole ones at a time. What [`Records::take`] took may fail later: [`Records::flush`]
/// waits for all of it, and gives the first error. What comes behind an error is written nevertheless, on a line of its
/// own.
#[derive(Debug)]
pub struct BackgroundWriter {
    lines: Arc<Mutex<Lines<File>>>,
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

/// Where lines are written.
#[derive(Debug)]
struct Lines<W> {
    out: W,
    /// The last one may have no end, as on a disk that was full.
    is_torn: bool,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.out.write_all(b"\n")?;
        }
        let written = self.out.write_all(lines);
        self.is_torn = written.is_err();
        written
    }
}

impl BackgroundWriter {
    /// A writer to this file; the thread begins with the first large write.
    pub fn new(file: File) -> Self {
        let lines = Lines {
            out: file,
            is_torn: false,
        };
        Self {
            lines: Arc::new(Mutex::new(lines)),
            thread: None,
            error: None,
        }
    }

    fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.write(bytes)
    }

    /// The thread, where there is one to be had.
    fn thread(&mut self) -> Option<&mut Thread> {
        if self.thread.is_none() {
            self.thread = Thread::start(Arc::clone(&self.lines)).ok();
        }
        self.thread.as_mut()
    }

    fn away(&self) -> usize {
        self.thread.as_ref().map_or(0, |thread| thread.away)
    }

    /// Takes blocks back until so few are away.
    fn wait_until(&mut self, few: usize) {
        while let Some(thread) = &mut self.thread
            && thread.away > few
        {
            if let Err(error) = thread.take_back() {
                self.error.get_or_insert(error);
            }
        }
    }
}

impl Records for BackgroundWriter {
    fn take(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        // Memory that is handed over stays.
        let is_large = records.capacity() > LARGEST;
        self.wait_until(if is_large { 0 } else { BLOCKS - 1 });
        let is_worth_it = !is_large && (records.len() >= WORTH_TELLING || self.away() > 0);
        if is_worth_it && let Some(thread) = self.thread() {
            return thread.hand_over(records);
        }
        let written = self.write_at_once(records);
        records.clear();
        records.shrink_to(LARGEST);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_until(0);
        self.error.take().map_or(Ok(()), Err)
    }
}

impl Thread {
    fn start(lines: Arc<Mutex<Lines<File>>>) -> io::Result<Self> {
        let (blocks, to_write) = channel::<Vec<u8>>();
        let (give_back, written) = channel();
        let write = move || {
            for block in to_write {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                let result = lines.write(&block);
                drop(lines);
                if give_back.send((block, result)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("log".into());
        Ok(Self {
            blocks: Some(blocks),
            written,
            away: 0,
            spare: Vec::new(),
            handle: Some(thread.spawn(write)?),
        })
    }

    fn hand_over(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        let mut spare = self.spare.pop().unwrap_or_default();
        spare.clear();
        let block = std::mem::replace(records, spare);
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
        fn what_is_flushed_is_there_in_its_order(
            sizes in prop::collection::vec((prop_oneof![0usize..200_000, 0..3_000_000usize], any::<bool>()), 0..12)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut writer = writer(&path);
            let mut all = Vec::new();
            for (number, (size, flush)) in sizes.into_iter().enumerate() {
                let mut bytes = vec![u8::try_from(number).unwrap(); size];
                all.extend_from_slice(&bytes);
                writer.take(&mut bytes).unwrap();
                prop_assert!(bytes.is_empty());
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
            writer.take(&mut vec![b'x'; WORTH_TELLING]).unwrap();
            is_full(writer.flush());
            writer.flush().unwrap();
            is_full(writer.take(&mut b"few".to_vec()));
        }
    }

    #[test]
    fn what_comes_behind_a_full_disk_stands_on_a_line_of_its_own() {
        /// Has room for so many bytes.
        struct Disk(Vec<u8>, usize);
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let count = bytes.len().min(self.1 - self.0.len());
                self.0.extend_from_slice(&bytes[..count]);
                match count {
                    0 => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(count),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = Lines {
            out: Disk(Vec::new(), 10),
            is_torn: false,
        };
        lines.write(b"first\n").unwrap();
        assert!(lines.write(b"second\n").is_err());
        assert!(lines.write(b"third\n").is_err());
        lines.out.1 = 100;
        lines.write(b"fourth\n").unwrap();
        lines.write(b"fifth\n").unwrap();
        assert_eq!(lines.out.0, b"first\nseco\nfourth\nfifth\n");
    }
}

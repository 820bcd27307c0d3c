//! What Nomad keeps of the tasks' output: files `TASK.stdout.N` in the allocation's `logs`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::log::{Fold, LogRecord, Progress};

/// How often it is looked whether Nomad has written what a task said.
const LOOK: Duration = Duration::from_millis(20);

/// The records of some tasks, in the order of the tasks.
pub struct SharedLog {
    files: Vec<PathBuf>,
    /// Nomad has thrown away its beginning.
    headless: bool,
}

impl SharedLog {
    /// The records of these tasks as far as they are written.
    pub fn of(alloc_dir: &Path, tasks: &[&str]) -> io::Result<Self> {
        let mut log = Self {
            files: Vec::new(),
            headless: false,
        };
        for task in tasks {
            let prefix = format!("{task}.stdout.");
            let mut files = Vec::new();
            for entry in fs::read_dir(alloc_dir.join("logs"))? {
                let entry = entry?;
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
                if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
                    files.push((number, entry.path()));
                }
            }
            files.sort_unstable();
            log.headless |= files.first().is_some_and(|(number, _)| *number > 0);
            log.files.extend(files.into_iter().map(|(_, path)| path));
        }
        Ok(log)
    }

    /// Whether its beginning is gone.
    pub fn is_headless(&self) -> bool {
        self.headless
    }

    /// Its bytes.
    pub fn bytes(&self) -> io::Result<u64> {
        let sizes = self.files.iter().map(|path| Ok(fs::metadata(path)?.len()));
        sizes.sum()
    }

    /// What it tells.
    pub fn progress(&self) -> io::Result<Progress> {
        let mut progress = Progress::default();
        let mut fold = Fold::new(&mut progress);
        self.each(|line| {
            fold.take(line);
            Ok(())
        })?;
        drop(fold);
        Ok(progress)
    }

    /// Its whole records, one behind the other.
    pub fn copy_to(&self, out: &mut impl Write) -> io::Result<()> {
        self.each(|line| {
            if LogRecord::decode(line.trim_ascii_end()).is_some() {
                out.write_all(line)?;
            }
            Ok(())
        })
    }

    /// Calls for each line; one may begin in a file and end in the next.
    fn each(&self, mut call: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut all: Box<dyn Read> = Box::new(io::empty());
        for path in &self.files {
            all = Box::new(all.chain(File::open(path)?));
        }
        let mut reader = BufReader::with_capacity(1 << 16, all);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.ends_with(b"\n") {
                call(&line)?;
            }
        }
    }
}

/// What the tasks said, as soon as `is_whole` says that they have said all; or after `patience`, because
/// a killed one says nothing more. Nomad writes a little later than they speak.
pub async fn settled(
    alloc_dir: &Path,
    tasks: &[&str],
    patience: Duration,
    is_whole: impl Fn(&Progress) -> bool,
) -> io::Result<Progress> {
    let deadline = Instant::now() + patience;
    let mut read = None;
    loop {
        let log = SharedLog::of(alloc_dir, tasks)?;
        let bytes = log.bytes()?;
        // Not all of it anew while nothing comes.
        let progress = match read.take() {
            Some((had, progress)) if had == bytes => progress,
            _ => log.progress()?,
        };
        if is_whole(&progress) || Instant::now() >= deadline {
            return Ok(progress);
        }
        read = Some((bytes, progress));
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Phase, request::Stream};
    use crate::log::{Line, RecordWriter};

    fn lines(last: u64, count: u64, phase: Phase) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = RecordWriter::new(&mut bytes, last, u64::MAX);
        for n in 0..count {
            let line = Line {
                phase,
                step: None,
                test: None,
                stream: Stream::Output,
                text: format!("line {n}"),
            };
            writer.line(1, &line).unwrap();
        }
        writer.flush().unwrap();
        drop(writer);
        bytes
    }

    #[test]
    fn records_go_through_files_and_tasks() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let built = lines(0, 40, Phase::Build);
        let (head, tail) = built.split_at(built.len() / 2 + 3);
        // By number, not by name; a record may be torn between two files.
        let (middle, tail) = tail.split_at(tail.len() / 2);
        for (number, part) in [(2, head), (9, middle), (10, tail)] {
            fs::write(logs.join(format!("build.stdout.{number}")), part).unwrap();
        }
        fs::write(logs.join("build.stderr.0"), "no record\n").unwrap();
        let mut published = lines(40, 2, Phase::Publish);
        published.extend(b"{\"v\":1,\"n\":");
        fs::write(logs.join("publish.stdout.0"), published).unwrap();
        let log = SharedLog::of(dir.path(), &["build", "publish"]).unwrap();
        assert!(log.is_headless());
        assert_eq!(log.progress().unwrap().lines, 42);
        let mut copy = Vec::new();
        log.copy_to(&mut copy).unwrap();
        let numbers: Vec<u64> = copy
            .split(|byte| *byte == b'\n')
            .filter_map(LogRecord::decode)
            .map(|record| record.n)
            .collect();
        assert_eq!(numbers, (1..=42).collect::<Vec<_>>());
        let alone = SharedLog::of(dir.path(), &["publish"]).unwrap();
        assert!(!alone.is_headless());
    }
}

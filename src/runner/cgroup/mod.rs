//! A control group of one build: limits on memory, processes and CPU for all its processes together.
//!
//! ```text
//! job     Places ─▶ Held::make ─▶ join: the runner is put in ────────────▶ remove
//! runner                          await_entry ─▶ counters, peak
//! ```
//! Both versions of cgroups look alike here: a build has one directory in each hierarchy that
//! allows it, and each file is in one of them. What a host does not allow is not enforced, and said.

mod held;
mod places;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use held::Held;
pub use places::{Controller, Places};

use super::settings::Limits;

/// How long the runner waits for being put in.
const ENTRY: Duration = Duration::from_secs(10);

/// A build's cgroup, one directory a hierarchy; none where this host allows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    dirs: Vec<PathBuf>,
}

/// What the kernel counted; absent where it does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processes killed for want of memory.
    pub killed: Option<u64>,
    /// Processes and threads that could not be started because there were too many.
    pub refused: Option<u64>,
}

impl Counters {
    /// What was counted after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let more = |now: Option<u64>, before: Option<u64>| {
            now.map(|now| now.saturating_sub(before.unwrap_or(0)))
        };
        Self {
            killed: more(self.killed, before.killed),
            refused: more(self.refused, before.refused),
        }
    }
}

impl Cgroup {
    /// The cgroup with these directories.
    pub fn at(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// Its directories.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Waits until this process is in it: before that it must start nothing. Blocks.
    ///
    /// # Errors
    /// When nobody puts it in.
    pub fn await_entry(&self) -> io::Result<()> {
        let deadline = Instant::now() + ENTRY;
        let own = std::process::id().to_string();
        let is_in = |dir: &Path| {
            fs::read_to_string(dir.join("cgroup.procs"))
                .is_ok_and(|all| all.lines().any(|one| one == own))
        };
        while let Some(dir) = self.dirs.iter().find(|dir| !is_in(dir)) {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "the runner was not put into its cgroup {}",
                    dir.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// What the kernel has counted so far.
    pub fn counters(&self) -> Counters {
        let word = |file, key| self.read(&[file]).and_then(|text| keyed(&text, key));
        Counters {
            killed: word("memory.events", "oom_kill")
                .or_else(|| word("memory.oom_control", "oom_kill")),
            refused: word("pids.events", "max"),
        }
    }

    /// Largest memory that all processes had together, with the pages of files they read, in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.number(&["memory.peak", "memory.max_usage_in_bytes"])
    }

    /// Whether its own limit of memory was in the way; else it was the host that had no more.
    pub fn was_full(&self) -> bool {
        if let Some(events) = self.read(&["memory.events"]) {
            return keyed(&events, "oom").is_some_and(|times| times > 0);
        }
        // Version 1 counts such times, but not where memory and swap have the same limit.
        let limit = self.number(&["memory.limit_in_bytes"]);
        let peak = self.number(&["memory.max_usage_in_bytes"]);
        (peak.zip(limit)).is_some_and(|(peak, limit)| peak >= limit - limit / 16)
    }

    /// Which limits do not hold on this host, in words.
    pub fn unenforced(&self, limits: &Limits) -> Vec<&'static str> {
        let holds = |files: &[&str], wanted: bool| {
            // "max", or a size beyond everything, or -1: not limited.
            self.read(files).is_some_and(|text| {
                let first = text.split_whitespace().next().unwrap_or_default();
                let number = first
                    .parse::<u64>()
                    .ok()
                    .filter(|n| *n < i64::MAX as u64 / 2);
                !wanted || number.is_some()
            })
        };
        let memory = ["memory.max", "memory.limit_in_bytes"];
        let cpu = ["cpu.max", "cpu.cfs_quota_us"];
        let mut words = Vec::new();
        if !holds(&memory, limits.memory_bytes.is_some()) {
            words.push("memory");
        }
        if !holds(&cpu, limits.cpus.is_some()) {
            words.push("cpu");
        }
        words
    }

    fn number(&self, files: &[&str]) -> Option<u64> {
        self.read(files)?.trim().parse().ok()
    }

    /// The first of these files that there is.
    fn read(&self, files: &[&str]) -> Option<String> {
        let paths = self
            .dirs
            .iter()
            .flat_map(|dir| files.iter().map(|file| dir.join(file)));
        paths
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok())
    }
}

/// The number behind a key, as in `oom_kill 3`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, number) = line.split_once(' ')?;
        (name == key).then(|| number.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let root = tempfile::tempdir().unwrap();
        let mut dirs = Vec::new();
        for (path, text) in files {
            let path = root.path().join(path);
            let dir = path.parent().unwrap().to_owned();
            fs::create_dir_all(&dir).unwrap();
            fs::write(path, text).unwrap();
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        (root, Cgroup::at(dirs))
    }

    #[test]
    fn version_2_is_read() {
        let (_root, cgroup) = fake(&[
            ("b/memory.peak", "1048576\n"),
            (
                "b/memory.events",
                "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
            ("b/pids.events", "max 3\n"),
            ("b/memory.max", "1073741824\n"),
            ("b/cpu.max", "max 100000\n"),
        ]);
        let counters = Counters {
            killed: Some(1),
            refused: Some(3),
        };
        assert_eq!(cgroup.counters(), counters);
        assert!(cgroup.was_full());
        assert_eq!(cgroup.peak_bytes(), Some(1_048_576));
        let mut limits = Limits {
            memory_bytes: Some(1 << 30),
            ..Limits::default()
        };
        assert_eq!(cgroup.unenforced(&limits), Vec::<&str>::new());
        limits.cpus = Some(1.0);
        assert_eq!(cgroup.unenforced(&limits), ["cpu"]);
    }

    #[test]
    fn version_1_is_read() {
        let (_root, cgroup) = fake(&[
            ("memory/b/memory.max_usage_in_bytes", "4096\n"),
            (
                "memory/b/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
            ("memory/b/memory.limit_in_bytes", "9223372036854771712\n"),
            ("pids/b/pids.events", "max 0\n"),
            ("cpu/b/cpu.cfs_quota_us", "150000\n"),
        ]);
        let counters = cgroup.counters();
        assert_eq!((counters.killed, counters.refused), (Some(2), Some(0)));
        assert_eq!(
            (cgroup.peak_bytes(), cgroup.was_full()),
            (Some(4096), false)
        );
        let limits = Limits {
            memory_bytes: Some(1 << 30),
            cpus: Some(1.5),
            ..Limits::default()
        };
        assert_eq!(cgroup.unenforced(&limits), ["memory"]);
        let before = Counters {
            killed: Some(2),
            refused: None,
        };
        let since = counters.since(before);
        assert_eq!((since.killed, since.refused), (Some(0), Some(0)));
        let (_root, full) = fake(&[
            ("b/memory.max_usage_in_bytes", "67104768\n"),
            ("b/memory.limit_in_bytes", "67108864\n"),
        ]);
        assert!(full.was_full());
    }

    #[test]
    fn a_host_without_cgroups_enforces_and_counts_nothing() {
        let cgroup = Cgroup::default();
        assert_eq!(cgroup.counters(), Counters::default());
        assert_eq!(cgroup.peak_bytes(), None);
        assert_eq!(cgroup.unenforced(&Limits::default()), ["memory", "cpu"]);
        cgroup.await_entry().unwrap();
    }

    #[test]
    fn the_runner_begins_when_it_is_in() {
        let (root, cgroup) = fake(&[("a/cgroup.procs", "1\n"), ("b/cgroup.procs", "")]);
        let waiting = std::thread::spawn(move || cgroup.await_entry());
        let own = format!("1\n{}\n", std::process::id());
        fs::write(root.path().join("a/cgroup.procs"), &own).unwrap();
        assert!(!waiting.is_finished());
        fs::write(root.path().join("b/cgroup.procs"), &own).unwrap();
        waiting.join().unwrap().unwrap();
    }
}

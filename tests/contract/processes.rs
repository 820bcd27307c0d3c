//! Processes and mounts of this machine, as /proc tells them.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process, as far as it can be seen.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    /// Its arguments.
    pub args: Vec<String>,
    environ: String,
}

impl Process {
    /// Whether its environment or its arguments name `text`.
    pub fn mentions(&self, text: &str) -> bool {
        self.environ.contains(text) || self.args.iter().any(|arg| arg.contains(text))
    }

    /// Whether `words` stand next to each other in its arguments.
    pub fn runs(&self, words: &[&str]) -> bool {
        self.args
            .windows(words.len())
            .any(|window| window.iter().zip(words).all(|(arg, word)| arg == word))
    }

    /// Whether it has a handler for a signal.
    pub fn catches(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        // proc_pid_status(5): a mask in hexadecimal digits, bit 0 is signal 1.
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
    }

    /// Process that started it.
    pub fn parent(&self) -> i32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.map_or(0, |pid| pid.trim().parse().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_raw(self.pid).unwrap(), signal);
    }
}

/// Every process but this one.
pub fn all() -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap();
    let words = |path: &Path, name: &str| {
        let bytes = fs::read(path.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (pid != own).then(|| Process {
                pid,
                args: words(&entry.path(), "cmdline")
                    .split_terminator('\0')
                    .map(str::to_owned)
                    .collect(),
                environ: words(&entry.path(), "environ"),
            })
        })
        .collect()
}

/// Mounts below `dir`, in the mount namespace of any process.
pub fn mounts_below(dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("mountinfo")) else {
            continue;
        };
        for line in text.lines() {
            // proc_pid_mountinfo(5): the fifth field is the mount point.
            if line
                .split(' ')
                .nth(4)
                .is_some_and(|at| at.starts_with(&prefix))
            {
                found.push(format!("{}: {line}", entry.path().display()));
            }
        }
    }
    found
}

//! A runtime that is killed while it makes a container.
//!
//! runc then leaves the container's first process behind, which waits to be started and holds the
//! pipe that Buildah reads to its end: both wait for ever (run_linux.go, runUsingRuntime). Foreign code
//! may call its processes what it likes, but it has no way to the runtime's own directory, where a
//! container that was not started has a fifo (libcontainer/container_linux.go, createExecFifo).

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A container's first process that is seen so often without a runtime is nobody's any more.
const LOOKS: u32 = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    parent: i32,
    name: String,
}

/// What a container that was not started has below the runtime's directory.
const FIFO: &str = "exec.fifo";

/// Returns when below this process a container waits for a runtime that is gone; the runtime keeps its
/// containers in `directory`.
pub fn wait_for_an_orphan(directory: &Path) {
    let mut seen = 0;
    while seen < LOOKS {
        std::thread::sleep(INTERVAL);
        let waits = has_unstarted(directory) && own().is_some_and(|own| has_orphan(&table(), own));
        seen = if waits { seen + 1 } else { 0 };
    }
}

fn has_unstarted(directory: &Path) -> bool {
    let containers = fs::read_dir(directory).into_iter().flatten().flatten();
    containers
        .map(|container| container.path().join(FIFO))
        .any(|fifo| fifo.exists())
}

/// This process's number where /proc is mounted, which may be another than here.
fn own() -> Option<i32> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

fn table() -> HashMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|pid: i32| {
            Some((
                pid,
                parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?,
            ))
        })
        .collect()
}

/// A line of `/proc/PID/stat` (proc_pid_stat(5)): the name stands in parentheses and may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(") ")?;
    Some(Process {
        parent: rest.split(' ').nth(1)?.parse().ok()?,
        name: head.split_once('(')?.1.to_owned(),
    })
}

/// Whether a process below `root` is a container's first one (runc names it so) and none is a runtime.
fn has_orphan(processes: &HashMap<i32, Process>, root: i32) -> bool {
    let is_below = |mut pid: i32| {
        // No chain is longer than there are processes.
        (0..processes.len()).any(|_| {
            pid = processes.get(&pid).map_or(0, |process| process.parent);
            pid == root
        })
    };
    let below: Vec<&str> = (processes.iter())
        .filter(|(pid, process)| process.name.starts_with("runc") && is_below(**pid))
        .map(|(_, process)| process.name.as_str())
        .collect();
    below.iter().any(|name| name.starts_with("runc:[")) && !below.contains(&"runc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(lines: &[(i32, &str)]) -> HashMap<i32, Process> {
        lines
            .iter()
            .map(|(pid, stat)| (*pid, parse(stat).unwrap()))
            .collect()
    }

    #[test]
    fn a_container_that_was_not_started_has_a_fifo() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_unstarted(&dir.path().join("missing")));
        let container = dir.path().join("buildah-x");
        fs::create_dir(&container).unwrap();
        assert!(!has_unstarted(dir.path()));
        fs::write(container.join(FIFO), "").unwrap();
        assert!(has_unstarted(dir.path()));
    }

    #[test]
    fn a_container_without_its_runtime_is_an_orphan() {
        let enclose = (5, "5 (nomad-build) S 1 5 5");
        let buildah = (7, "7 (a) b (c) S 5 7 7");
        let init = (9, "9 (runc:[2:INIT]) S 7 9 9");
        let runtime = (8, "8 (runc) S 7 8 8");
        assert!(has_orphan(&processes(&[enclose, buildah, init]), 5));
        assert!(!has_orphan(
            &processes(&[enclose, buildah, init, runtime]),
            5
        ));
        assert!(!has_orphan(&processes(&[enclose, buildah]), 5));
        // That of another build.
        assert!(!has_orphan(
            &processes(&[enclose, buildah, (9, "9 (runc:[2:INIT]) S 3 9 9")]),
            5
        ));
    }
}

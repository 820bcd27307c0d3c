//! Ends whatever still runs under an account, so that nothing of an earlier build is next to the
//! next one.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long killed processes may take to be gone.
const VANISH: Duration = Duration::from_secs(3);

/// Kills every process of which a uid is `theirs`, and waits until they are gone. Blocks.
///
/// # Errors
/// When some are still there after three seconds; names them.
pub fn evict(theirs: impl Fn(u32) -> bool) -> io::Result<()> {
    let deadline = Instant::now() + VANISH;
    let mut pause = Duration::from_millis(1);
    loop {
        let found = running(&theirs)?;
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("processes do not end: {found:?}")));
        }
        for pid in found {
            kill(pid, &theirs);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn running(theirs: &impl Fn(u32) -> bool) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && is_theirs(pid, theirs)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

fn is_theirs(pid: i32, theirs: &impl Fn(u32) -> bool) -> bool {
    // It may have ended meanwhile.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_alive(&status) && uids(&status).any(theirs)
}

/// The number may be another's by now: what is signalled is what was looked at.
fn kill(pid: i32, theirs: &impl Fn(u32) -> bool) {
    let Some(process) = Pid::from_raw(pid) else {
        return;
    };
    if let Ok(process) = pidfd_open(process, PidfdFlags::empty())
        && is_theirs(pid, theirs)
    {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map(str::trim)
}

/// Real, effective, saved and file system uid (proc_pid_status(5)).
fn uids(status: &str) -> impl Iterator<Item = u32> {
    let words = field(status, "Uid").unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.parse().ok())
}

/// A zombie holds nothing and cannot be killed; but a process whose first thread has ended, and no
/// other, looks like one, too.
fn is_alive(status: &str) -> bool {
    let ended = field(status, "State").is_none_or(|state| state.starts_with(['Z', 'X']));
    let threads = field(status, "Threads").and_then(|count| count.parse().ok());
    !ended || threads.is_some_and(|count: u32| count > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_the_four_uids_counts() {
        let status = "Name:\tx\nState:\tS (sleeping)\nUid:\t1\t0\t22\t333\nGid:\t9\t9\t9\t9\n";
        assert_eq!(uids(status).collect::<Vec<_>>(), [1, 0, 22, 333]);
        assert_eq!(uids("").count(), 0);
    }

    #[test]
    fn zombies_are_gone_unless_a_thread_lives_on() {
        for (state, threads, alive) in [
            ("S (sleeping)", 1, true),
            ("D (disk sleep)", 3, true),
            ("Z (zombie)", 1, false),
            ("Z (zombie)", 2, true),
            ("X (dead)", 1, false),
        ] {
            let status = format!("State:\t{state}\nThreads:\t{threads}\n");
            assert_eq!(is_alive(&status), alive, "{status}");
        }
        assert!(!is_alive(""));
    }

    #[test]
    fn who_is_not_theirs_lives() {
        // Nobody has this uid, and this process and its parents must survive.
        evict(|uid| uid == 4_294_967_293).unwrap();
    }
}

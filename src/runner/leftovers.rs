//! What Buildah would lose of a command's output.
//!
//! With chroot isolation a process of Buildah carries from a pipe what the command prints. It ends as soon as the
//! command has, whether or not everything was carried (chroot/run_common.go, `runUsingChrootMain`, up to 1.43 at
//! least): on a busy machine that is now and then the one line that says why. Whoever holds the pipe, too, can read
//! what is left in it.
//!
//! ```text
//! command ─▶ pipe ─▶ Buildah's carrier ─▶ our pipe ─▶ log
//!              └──── held here, read when the carrier is gone
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How Buildah calls its process that becomes the command's parent (chroot/run_common.go).
const EXECUTES: &[u8] = b"buildah-chroot-exec\0";
/// Between two looks for it.
const INTERVAL: Duration = Duration::from_millis(5);
/// From the beginning of a step until its command is started, at most; after that none is looked for.
const BEGINS: Duration = Duration::from_secs(30);
/// Bytes that are read of a pipe at most: who escaped goes on to print.
const MOST: u64 = 1 << 20;
/// What the carrier itself prints at its end, behind all that it has carried.
const LAST: &[u8] = b"subprocess exited ";

/// See the module.
pub struct Leftovers {
    held: Arc<Mutex<Option<Held>>>,
    begun: Arc<Notify>,
    /// Ends with this.
    _search: AbortOnDropHandle<()>,
}

/// The pipes of a command that runs.
struct Held {
    carrier: OwnedFd,
    pipes: Vec<File>,
}

impl Leftovers {
    /// Of commands that processes younger than `leader` execute, carried to the pipe of this inode.
    pub fn watch(leader: Pid, carried_to: u64) -> Self {
        let held = Arc::new(Mutex::new(None));
        let begun = Arc::new(Notify::new());
        let (found, wait) = (Arc::clone(&held), Arc::clone(&begun));
        let search = async move {
            loop {
                wait.notified().await;
                let until = Instant::now() + BEGINS;
                while locked(&found).is_none() && Instant::now() < until {
                    match find(leader.as_raw_nonzero().get(), carried_to) {
                        Some(command) => *locked(&found) = Some(command),
                        None => tokio::time::sleep(INTERVAL).await,
                    }
                }
            }
        };
        Self {
            held,
            begun,
            _search: AbortOnDropHandle::new(tokio::spawn(search)),
        }
    }

    /// Says that a command may start from now on.
    pub fn expect(&self) {
        self.begun.notify_one();
    }

    /// Puts what the command's carrier has left into what was read last, `bytes`: before all that Buildah says when
    /// it is gone.
    pub fn add_to(&self, bytes: &mut Vec<u8>) {
        let mut held = locked(&self.held);
        if !held.as_ref().is_some_and(Held::is_over) {
            return;
        }
        let mut left = Vec::new();
        for mut pipe in held.take().into_iter().flat_map(|held| held.pipes) {
            // Ends with `WouldBlock` where somebody holds the other end.
            let _ = (&mut pipe).take(MOST).read_to_end(&mut left);
        }
        insert(bytes, left);
    }

    #[cfg(test)]
    fn holds(&self) -> bool {
        locked(&self.held).is_some()
    }
}

impl Held {
    fn is_over(&self) -> bool {
        let mut ended = [PollFd::new(&self.carrier, PollFlags::IN)];
        poll(&mut ended, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }
}

fn locked(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(bytes: &mut Vec<u8>, mut left: Vec<u8>) {
    // What comes behind it must begin a line of its own.
    if left.last().is_some_and(|last| *last != b'\n') {
        left.push(b'\n');
    }
    let is_its_line = |at: &usize| {
        let begins = *at == 0 || bytes.get(at - 1) == Some(&b'\n');
        begins && bytes.get(*at..).is_some_and(|rest| rest.starts_with(LAST))
    };
    let at = (0..bytes.len()).find(is_its_line).unwrap_or(0);
    bytes.splice(at..at, left);
}

/// The pipes of a command that is executed now.
fn find(leader: i32, carried_to: u64) -> Option<Held> {
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process: &i32| *process > leader)
        .find_map(|process| held(process, carried_to))
}

fn held(process: i32, carried_to: u64) -> Option<Held> {
    let name = fs::read(format!("/proc/{process}/cmdline")).ok()?;
    if !name.starts_with(EXECUTES) {
        return None;
    }
    // The name stands in parentheses and may hold anything (proc_pid_stat(5)).
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let parent: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    let carrier = pidfd_open(Pid::from_raw(parent)?, PidfdFlags::empty()).ok()?;
    let own = fs::metadata(format!("/proc/{parent}/fd/1")).ok()?;
    let is_another = |file: &fs::Metadata| file.file_type().is_fifo() && file.ino() != carried_to;
    if own.ino() != carried_to {
        return None;
    }
    let mut pipes = Vec::new();
    for descriptor in [1, 2] {
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(format!("/proc/{process}/fd/{descriptor}"))
            .ok()?;
        if pipe.metadata().is_ok_and(|file| is_another(&file)) {
            pipes.push(pipe);
        }
    }
    (!pipes.is_empty()).then_some(Held { carrier, pipes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_comes_before_what_follows_the_end_of_its_carrier() {
        let cases = [
            ("", "why\n", "why\n"),
            ("", "why", "why\n"),
            ("Error: x\n", "why\n", "why\nError: x\n"),
            (
                "out\nsubprocess exited with status 3\nError: x\n",
                "why",
                "out\nwhy\nsubprocess exited with status 3\nError: x\n",
            ),
            (
                "subprocess exited on killed\n",
                "",
                "subprocess exited on killed\n",
            ),
            (
                "no subprocess exited \n",
                "why\n",
                "why\nno subprocess exited \n",
            ),
        ];
        for (read, left, whole) in cases {
            let mut bytes = read.as_bytes().to_vec();
            insert(&mut bytes, left.into());
            assert_eq!(String::from_utf8_lossy(&bytes), whole, "{read:?} {left:?}");
        }
    }

    /// The carrier of this script never reads, as one that is late.
    const SCRIPT: &str = r#"
exec 3> >(exec sleep 1000)
reader=$!
(exec -a buildah-chroot-exec bash -c 'read go < "$0"; echo why; echo too >&2' "$1" >&3 2>&3 3>&-)
kill $reader
exit 3
"#;

    #[tokio::test]
    async fn what_nobody_carried_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &go,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let (mut ours, theirs) = std::io::pipe().unwrap();
        let carried_to = rustix::fs::fstat(&ours).unwrap().st_ino;
        let mut script = std::process::Command::new("bash")
            .args(["-c", SCRIPT, "script"])
            .arg(&go)
            .stdout(theirs)
            .spawn()
            .unwrap();
        let leader = Pid::from_raw(script.id().cast_signed() - 1).unwrap();
        let leftovers = Leftovers::watch(leader, carried_to);
        leftovers.expect();
        let until = Instant::now() + Duration::from_secs(60);
        while !leftovers.holds() {
            assert!(Instant::now() < until, "the command is not found");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut bytes = b"Error: it failed\n".to_vec();
        leftovers.add_to(&mut bytes);
        assert_eq!(
            bytes, b"Error: it failed\n",
            "while its carrier runs nothing is left"
        );
        fs::write(&go, "go\n").unwrap();
        assert_eq!(script.wait().unwrap().code(), Some(3));
        leftovers.add_to(&mut bytes);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "why\ntoo\nError: it failed\n"
        );
        assert!(!leftovers.holds());
        let mut carried = String::new();
        ours.read_to_string(&mut carried).unwrap();
        assert_eq!(carried, "", "the script prints nothing itself");
    }
}

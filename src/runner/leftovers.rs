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
//! Foreign code may call its processes what it likes, but none of them is a child of a carrier, or has our pipe. What a
//! carrier had taken and not written yet is lost, and so is the rest of a command that ends before it was seen.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regex::bytes::Regex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How Buildah calls its process that becomes the command's parent (chroot/run_common.go).
const EXECUTES: &[u8] = b"buildah-chroot-exec\0";
/// The same of that one's parent, which carries.
const CARRIES: &[u8] = b"buildah-chroot-runtime\0";
/// Between two looks for a command, while it is likely to start; later it doubles.
const INTERVAL: Duration = Duration::from_millis(5);
/// The same at last.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// Looks before the interval grows.
const LIKELY: u32 = 200;
/// Processes that are looked at, and bytes of the numbers of one's children, at most.
const PROCESSES: usize = 2000;
const CHILDREN: u64 = 64 * 1024;
/// Bytes that are read of a command's pipe, and that can be in ours, at most.
const PIPE: usize = 1 << 20;
/// Bytes that are read of ours at once.
const CHUNK: usize = 64 * 1024;
/// From the carrier's last words to its end, at most.
const ENDS: Duration = Duration::from_millis(500);

/// What the carrier itself prints when its command failed, behind all that it has carried (chroot/run_common.go).
static LAST: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"subprocess exited (with status \d+|on [^\n]{1,60})\n").ok());
/// How Buildah's error begins when a command has failed (imagebuildah/build.go, cmd/buildah/run.go).
static ERROR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"Error: (building at STEP "|while running runtime: |exit status |signal: )"#).ok()
});
/// What Buildah prints behind a command that ended well (imagebuildah/stage_executor.go).
static NEXT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"STEP \d+/\d+: |(?m:^)COMMIT").ok());

/// A pipe: its device and inode.
pub type PipeId = (u64, u64);

/// See the module.
pub struct Leftovers {
    held: Arc<Mutex<Option<Held>>>,
    /// Whether a command may start.
    expected: watch::Sender<bool>,
    /// Ends with this.
    _search: AbortOnDropHandle<()>,
}

/// The pipes of a command that runs.
struct Held {
    carrier: OwnedFd,
    pipes: Vec<File>,
}

impl Leftovers {
    /// Of commands that are executed below `leader`, and carried to this pipe; one may start at once.
    pub fn watch(leader: Pid, carried_to: PipeId) -> Self {
        let held = Arc::new(Mutex::new(None));
        let (expected, mut is_expected) = watch::channel(true);
        let found = Arc::clone(&held);
        let search = async move {
            'step: loop {
                let (mut interval, mut looks) = (INTERVAL, 0);
                let is_likely = *is_expected.borrow_and_update();
                while is_likely && locked(&found).is_none() {
                    let place = Arc::clone(&found);
                    let look = move || look(leader, carried_to, &place);
                    if tokio::task::spawn_blocking(look).await.is_err() {
                        return;
                    }
                    looks += 1;
                    if looks > LIKELY {
                        interval = (interval * 2).min(LONGEST_INTERVAL);
                    }
                    let changed = tokio::time::timeout(interval, is_expected.changed());
                    match changed.await {
                        Err(_) => {}
                        Ok(Ok(())) => continue 'step,
                        Ok(Err(_)) => return,
                    }
                }
                if is_expected.changed().await.is_err() {
                    return;
                }
            }
        };
        Self {
            held,
            expected,
            _search: AbortOnDropHandle::new(tokio::spawn(search)),
        }
    }

    /// Says whether a command may start from now on.
    pub fn expect(&self, is_likely: bool) {
        // The search has ended where nobody listens.
        let _ = self.expected.send(is_likely);
    }

    /// Puts what the command's carrier has left to what was read last, `bytes`: behind what it has carried, and before
    /// what Buildah says when it is gone. For that it reads on, to what `pipe` holds now; of a pipe that has ended
    /// (`is_end`) nobody carries to any more.
    pub async fn add_to(&self, bytes: &mut Vec<u8>, pipe: &Receiver, is_end: bool) {
        let until = Instant::now() + ENDS;
        while !is_end && self.still_carries() && ends_with_last(bytes) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let held = locked(&self.held).take_if(|held| is_end || held.is_over());
        let Some(held) = held else { return };
        // Where the next command is not told of, it is looked for nevertheless.
        self.expect(true);
        let left = held.read();
        if !left.is_empty() {
            read_on(pipe, bytes);
            let at = boundary(bytes);
            bytes.splice(at..at, left);
        }
    }

    fn still_carries(&self) -> bool {
        locked(&self.held)
            .as_ref()
            .is_some_and(|held| !held.is_over())
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

    fn read(self) -> Vec<u8> {
        let mut left = Vec::new();
        for pipe in self.pipes {
            // Ends with `WouldBlock` where somebody holds the other end.
            let _ = pipe.take(PIPE as u64).read_to_end(&mut left);
            // What comes behind it begins a line of its own.
            if left.last().is_some_and(|last| *last != b'\n') {
                left.push(b'\n');
            }
        }
        left
    }
}

fn locked(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what a pipe holds now: what was carried, and a few lines of Buildah, who alone writes to it behind that.
fn read_on(pipe: &Receiver, bytes: &mut Vec<u8>) {
    let mut chunk = vec![0; CHUNK];
    let room = bytes.len().saturating_add(2 * PIPE);
    // By itself: tokio reads nothing where it has not heard yet that there is something.
    while bytes.len() < room
        && let Ok(read @ 1..) = rustix::io::read(pipe, chunk.as_mut_slice())
    {
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
}

fn ends_with_last(bytes: &[u8]) -> bool {
    let found = LAST.as_ref().and_then(|last| last.find_iter(bytes).last());
    found.is_some_and(|found| found.end() == bytes.len())
}

/// Where what was carried ends, in bytes that reach to what Buildah has said since, if it has. Where the command has
/// printed such words itself it may be too early, but never behind Buildah's error.
fn boundary(bytes: &[u8]) -> usize {
    let error = ERROR
        .as_ref()
        .and_then(|error| error.find_iter(bytes).last());
    let error = error.map_or(bytes.len(), |error| error.start());
    let carried = bytes.get(..error).unwrap_or_default();
    let last = LAST
        .as_ref()
        .and_then(|last| last.find_iter(carried).last());
    let next = || NEXT.as_ref().and_then(|next| next.find(carried));
    last.or_else(next).map_or(error, |found| found.start())
}

/// Looks for a command once.
fn look(leader: Pid, carried_to: PipeId, found: &Mutex<Option<Held>>) {
    if let Some(command) = find(leader, carried_to) {
        let mut found = locked(found);
        // Once it is over Buildah may have said so, and been read.
        if !command.is_over() {
            *found = Some(command);
        }
    }
}

/// The pipes of a command that is executed now.
fn find(leader: Pid, carried_to: PipeId) -> Option<Held> {
    let mut looked_at = 0;
    let mut pending = VecDeque::from([leader.as_raw_nonzero().get()]);
    while let Some(process) = pending.pop_front() {
        looked_at += 1;
        if looked_at > PROCESSES {
            return None;
        }
        let children = children(process);
        if is_called(process, CARRIES) {
            let mut commands = children.iter().filter(|child| is_called(**child, EXECUTES));
            if let Some(held) = commands.find_map(|child| held(process, *child, carried_to)) {
                return Some(held);
            }
        } else {
            pending.extend(children);
        }
    }
    None
}

/// Of each of its threads (proc_tid_children(5)); none where the kernel does not tell them.
fn children(process: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let mut text = String::new();
    for thread in threads.into_iter().flatten().flatten() {
        if let Ok(file) = File::open(thread.path().join("children")) {
            let _ = file.take(CHILDREN).read_to_string(&mut text);
            text.push(' ');
        }
    }
    (text.split_ascii_whitespace())
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Whether its command line begins so; no more of it is read, which may be as long as foreign code likes.
fn is_called(process: i32, name: &[u8]) -> bool {
    let mut begin = Vec::new();
    File::open(format!("/proc/{process}/cmdline"))
        .and_then(|file| file.take(name.len() as u64).read_to_end(&mut begin))
        .is_ok_and(|_| begin == name)
}

fn held(carrier: i32, command: i32, carried_to: PipeId) -> Option<Held> {
    let handle = pidfd_open(Pid::from_raw(carrier)?, PidfdFlags::empty()).ok()?;
    let pipes: Vec<File> = [1, 2]
        .into_iter()
        .filter(|descriptor| pipe_at(command, *descriptor).is_some_and(|pipe| pipe != carried_to))
        .filter_map(|descriptor| {
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits().cast_signed())
                .open(descriptor_of(command, descriptor))
                .ok()
        })
        .collect();
    // They are still those that were found.
    let is_its = is_called(carrier, CARRIES)
        && pipe_at(carrier, 1) == Some(carried_to)
        && children(carrier).contains(&command);
    (is_its && !pipes.is_empty()).then_some(Held {
        carrier: handle,
        pipes,
    })
}

fn descriptor_of(process: i32, descriptor: u32) -> String {
    format!("/proc/{process}/fd/{descriptor}")
}

/// The pipe that a process has there.
fn pipe_at(process: i32, descriptor: u32) -> Option<PipeId> {
    let file = fs::metadata(descriptor_of(process, descriptor)).ok()?;
    (file.file_type().is_fifo()).then(|| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Stdio};

    #[test]
    fn what_was_left_comes_before_what_follows_the_end_of_its_carrier() {
        // The sign stands where it is put.
        for whole in [
            "|",
            "carried\n|",
            "carried|",
            "Error: the command's own\n  at half|",
            "--> of yum\nhalf|",
            "|Error: building at STEP \"RUN x\": exit status 1\n",
            "half|Error: signal: killed\n",
            "out\n|subprocess exited with status 3\nError: exit status 3\n",
            "subprocess exited with status 1\nof a command\n|subprocess exited on killed\n",
            "half a line, |subprocess exited on killed\n",
            "out\n|subprocess exited with status 3\nError: building at STEP \"RUN <<E\nsubprocess exited with status 0\n",
            "[ 42%] cc\n[2/3] |STEP 1/3: FROM x\n",
            "out|STEP 3/4: RUN x\nmore\n",
            "out\n|COMMIT\n",
        ] {
            let read = whole.replace('|', "");
            let mut told = read.clone();
            told.insert(boundary(read.as_bytes()), '|');
            assert_eq!(told, whole);
        }
    }

    /// Starts a command whose carrier never reads, as one that is late; it prints when it may.
    const SCRIPT: &str = r#"
exec 3> >(exec sleep 1000)
first=$!
exec 4> >(exec sleep 1000)
second=$!
(exec -a buildah-chroot-exec bash -c 'read go; echo why; printf too >&2' >&3 2>&4 3>&- 4>&-)
kill $first $second
echo last
exit 3
"#;

    fn script(name: &str) -> (Child, Receiver, PipeId) {
        let (ours, theirs) = std::io::pipe().unwrap();
        let stat = rustix::fs::fstat(&ours).unwrap();
        let script = std::process::Command::new("bash")
            .arg0(name)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(theirs)
            .spawn()
            .unwrap();
        let pipe = Receiver::from_owned_fd(ours.into()).unwrap();
        (script, pipe, (stat.st_dev, stat.st_ino))
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < until, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn pid(script: &Child) -> Pid {
        Pid::from_raw(script.id().cast_signed()).unwrap()
    }

    fn go(script: &mut Child) {
        script.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(script.wait().unwrap().code(), Some(3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_carried_is_read() {
        let (mut script, pipe, carried_to) = script("buildah-chroot-runtime");
        let leftovers = Leftovers::watch(pid(&script), carried_to);
        until("the command is held", || leftovers.holds()).await;
        let mut bytes = b"carried\n".to_vec();
        leftovers.add_to(&mut bytes, &pipe, false).await;
        assert_eq!(
            bytes, b"carried\n",
            "while its carrier runs nothing is left"
        );
        go(&mut script);
        leftovers.add_to(&mut bytes, &pipe, false).await;
        assert_eq!(String::from_utf8_lossy(&bytes), "carried\nlast\nwhy\ntoo\n");
        assert!(!leftovers.holds());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_said_its_last_word_is_waited_for() {
        let (mut script, pipe, carried_to) = script("buildah-chroot-runtime");
        let leftovers = Leftovers::watch(pid(&script), carried_to);
        until("the command is held", || leftovers.holds()).await;
        let said = b"half, subprocess exited with status 3\n";
        let mut bytes = said.to_vec();
        // Not for ever.
        leftovers.add_to(&mut bytes, &pipe, false).await;
        assert_eq!(bytes, said);
        let ended = tokio::task::spawn_blocking(move || go(&mut script));
        // However long that takes here.
        while leftovers.holds() {
            bytes = said.to_vec();
            leftovers.add_to(&mut bytes, &pipe, false).await;
        }
        ended.await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "half, why\ntoo\nsubprocess exited with status 3\nlast\n"
        );
    }

    #[tokio::test]
    async fn a_command_of_another_than_a_carrier_is_not_held() {
        let (mut script, _pipe, carried_to) = script("bash");
        let leader = pid(&script);
        let mut command = None;
        until("there is such a command", || {
            let children = children(script.id().cast_signed());
            command = children
                .into_iter()
                .find(|child| is_called(*child, EXECUTES));
            command.is_some()
        })
        .await;
        assert!(find(leader, carried_to).is_none());
        let carrier = script.id().cast_signed();
        assert!(held(carrier, command.unwrap(), carried_to).is_none());
        go(&mut script);
    }

    #[tokio::test]
    async fn a_carrier_to_elsewhere_is_not_ours() {
        let (mut script, _pipe, carried_to) = script("buildah-chroot-runtime");
        until("the command is there", || {
            find(pid(&script), carried_to).is_some()
        })
        .await;
        let (device, inode) = carried_to;
        assert!(find(pid(&script), (device + 1, inode)).is_none());
        go(&mut script);
    }
}

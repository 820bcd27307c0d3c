//! Runs one git with all its children as a group, which ends as a whole.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use super::error::{GitError, GitErrorKind, classify};
use super::text::Scrubber;
use crate::context::Limits;

/// How long helpers may go on when their git has ended; one that was killed cannot end them.
const ALONE: Duration = Duration::from_secs(1);
/// Between two looks whether git has ended.
const LOOK: Duration = Duration::from_millis(100);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Longest line in bytes; the rest of a longer one becomes the next.
const MAX_LINE: u64 = 4096;
/// How much output is kept for messages and results, in bytes.
const MAX_KEPT: usize = 256 * 1024;

/// What bounds a call, and who hears of it.
pub struct Control<'a> {
    /// Ends the call early.
    pub cancel: CancellationToken,
    /// Ends it at the latest.
    pub deadline: Instant,
    /// How big the tree may be; the repository may be little bigger.
    pub limits: Limits,
    /// Gets each line of git's stderr, cleaned of credentials and control characters.
    pub on_line: &'a mut (dyn FnMut(&str) + Send),
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Outcome {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Outcome {
    /// The error that stderr tells of, if there is one.
    pub fn success(&self, scrubber: &Scrubber) -> Result<(), GitError> {
        if self.status.success() {
            return Ok(());
        }
        let kind = classify(&self.stderr);
        Err(GitError::new(kind, scrubber.message(&self.stderr)))
    }
}

/// Takes git's stdout as it comes; an error ends the call.
pub(super) type Sink<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), GitError> + Send);

/// Runs `command`, with `input` as its stdin, to its end.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    sink: Sink<'_>,
    bounds: Bounds<'_>,
    control: &mut Control<'_>,
    scrubber: &Scrubber,
) -> Result<Outcome, GitError> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let directory = command.as_std().get_current_dir();
    let in_directory = directory.is_none_or(Path::is_dir);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if in_directory => {
            GitError::new(GitErrorKind::Missing, "git cannot be started")
        }
        _ => failed(&error),
    })?;
    let mut group = Group::of(&child);
    group.bound(bounds).map_err(|error| failed(&error))?;
    let Control {
        cancel,
        deadline,
        on_line,
        ..
    } = control;
    let (refuse, mut refused) = oneshot::channel();
    let work = talk(&mut child, input, sink, refuse, scrubber, *on_line);
    tokio::pin!(work);
    let error = tokio::select! {
        // A flood of output is always ready: what ends the call comes first.
        biased;
        () = cancel.cancelled() => GitError::new(GitErrorKind::Cancelled, "stopped on request"),
        () = tokio::time::sleep_until(*deadline) => {
            GitError::new(GitErrorKind::TimedOut, "stopped at its deadline")
        }
        Ok(error) = &mut refused => error,
        error = bounds.exceeded() => error,
        () = group.outlives_its_leader() => GitError::new(
            GitErrorKind::Failed,
            "git was killed, and what it had started was ended",
        ),
        done = &mut work => {
            group.disarm();
            let outcome = done.map_err(|error| failed(&error))?;
            // The last piece may have been refused.
            if let Ok(error) = refused.try_recv() {
                return Err(error);
            }
            // A git that met a bound of the kernel may say anything, or nothing.
            bounds.check().await?;
            return match bounds.out_of_memory(&outcome.stderr) {
                Some(error) if !outcome.status.success() => Err(error),
                _ => Ok(outcome),
            };
        }
    };
    // The work ends when nobody of the group holds its pipes any more, and only then reaps the
    // leader: as long as it goes on, the group's number belongs to nobody else.
    group.signal(Signal::TERM);
    if timeout(GRACE, &mut work).await.is_err() {
        group.signal(Signal::KILL);
        let _ = timeout(GRACE, &mut work).await;
    }
    group.disarm();
    Err(error)
}

async fn talk(
    child: &mut Child,
    input: &[u8],
    sink: Sink<'_>,
    refuse: oneshot::Sender<GitError>,
    scrubber: &Scrubber,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> io::Result<Outcome> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A git that wants no more says why on stderr.
            let _ = stdin.write_all(input).await;
        }
    };
    let taken = pour(stdout, sink, refuse);
    let told = lines(stderr, |line| on_line(&scrubber.clean(line)));
    let (taken, stderr, ()) = tokio::join!(taken, told, feed);
    taken?;
    Ok(Outcome {
        status: child.wait().await?,
        stderr: stderr?,
    })
}

/// Reads to the end, the sink's refusal notwithstanding: the end tells that the group is gone.
async fn pour(
    pipe: Option<impl AsyncRead + Unpin>,
    sink: Sink<'_>,
    refuse: oneshot::Sender<GitError>,
) -> io::Result<()> {
    let Some(mut pipe) = pipe else {
        return Ok(());
    };
    let mut refuse = Some(refuse);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = pipe.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if refuse.is_some()
            && let Err(error) = sink(buffer.get(..count).unwrap_or_default())
            && let Some(refuse) = refuse.take()
        {
            let _ = refuse.send(error);
        }
    }
}

/// Reads to the end; the first [`MAX_KEPT`] bytes are returned.
async fn lines(
    pipe: Option<impl AsyncRead + Unpin>,
    mut on_line: impl FnMut(&str),
) -> io::Result<String> {
    let mut kept = String::new();
    let Some(pipe) = pipe else {
        return Ok(kept);
    };
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_LINE);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(kept);
        }
        let text = String::from_utf8_lossy(&line);
        if kept.len() + text.len() <= MAX_KEPT {
            kept.push_str(&text);
        }
        // Progress overwrites itself with carriage returns.
        let last = text.trim_end().rsplit('\r').next().unwrap_or_default();
        if !last.is_empty() {
            on_line(last);
        }
    }
}

fn failed(error: &io::Error) -> GitError {
    GitError::new(GitErrorKind::Failed, format!("running git failed: {error}"))
}

/// The processes of a call. Dropped while armed (its future was dropped), it kills them.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// What is not bounded does not run: dropped, it is killed.
    fn bound(&self, bounds: Bounds<'_>) -> io::Result<()> {
        match self.0 {
            Some(leader) => Ok(bounds.impose(leader)?),
            None => Ok(()),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Returns when the leader has ended and others still hold its pipes. Reaps nobody.
    async fn outlives_its_leader(&self) {
        let Some(leader) = self.0 else {
            return std::future::pending().await;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while let Ok(None) = waitid(WaitId::Pid(leader), options) {
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(ALONE).await;
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

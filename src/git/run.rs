//! Runs one git with all its children as a group, which ends as a whole.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{GitError, GitErrorKind, classify};
use super::text::Scrubber;

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
    /// Gets each line of git's stderr, cleaned of credentials and control characters.
    pub on_line: &'a mut (dyn FnMut(&str) + Send),
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Its stdout, or the error that stderr tells of.
    pub fn success(self, scrubber: &Scrubber) -> Result<String, GitError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let kind = classify(&self.stderr);
        Err(GitError::new(kind, scrubber.message(&self.stderr)))
    }
}

/// Runs `command`, with `input` as its stdin, to its end.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
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
    let Control {
        cancel,
        deadline,
        on_line,
    } = control;
    let work = talk(&mut child, input, scrubber, *on_line);
    tokio::pin!(work);
    let (kind, message) = tokio::select! {
        done = &mut work => {
            group.disarm();
            return done.map_err(|error| failed(&error));
        }
        () = cancel.cancelled() => (GitErrorKind::Cancelled, "stopped on request"),
        () = tokio::time::sleep_until(*deadline) => (GitErrorKind::TimedOut, "stopped at its deadline"),
    };
    // The work ends when nobody of the group holds its pipes any more, and only then reaps the
    // leader: as long as it goes on, the group's number belongs to nobody else.
    group.signal(Signal::TERM);
    if timeout(GRACE, &mut work).await.is_err() {
        group.signal(Signal::KILL);
        let _ = timeout(GRACE, &mut work).await;
    }
    group.disarm();
    Err(GitError::new(kind, message))
}

async fn talk(
    child: &mut Child,
    input: &[u8],
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
    let told = lines(stderr, |line| on_line(&scrubber.clean(line)));
    let (stdout, stderr, ()) = tokio::join!(lines(stdout, |_| {}), told, feed);
    Ok(Outcome {
        status: child.wait().await?,
        stdout: stdout?,
        stderr: stderr?,
    })
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

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(group, signal);
        }
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

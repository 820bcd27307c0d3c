//! One process group: started, its output carried to the log, ended without a trace.
//!
//! The first request to stop sends SIGTERM to the group, after a grace SIGKILL; in both cases the
//! *group* is waited for, not just its leader.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::build::Phase;
use crate::build::request::Stream;
use crate::log::{Event, Origin};

use super::leftovers::Leftovers;
use super::printed::{self, Printed};
use super::reporter::Reporter;

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long the rest of a killed group may take to vanish.
const VANISH: Duration = Duration::from_secs(20);

/// Bytes that may wait in the pipe: as many as Linux allows everybody (`fs.pipe-max-size`).
const PIPE: usize = 1 << 20;
/// What comes within this time is written together.
const TOGETHER: Duration = Duration::from_millis(10);
/// How long the rest of what a group printed may take to be read, once the group has ended.
const REST: Duration = Duration::from_millis(500);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit status (128 + signal, as a shell tells it).
    Exited(i32),
    /// Somebody told the runner to stop.
    Cancelled,
    /// Its time was over.
    OutOfTime,
}

impl Ended {
    /// Whether it ended by itself with status 0.
    pub fn is_success(self) -> bool {
        self == Ended::Exited(0)
    }
}

/// What bounds a process.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Fired when the runner is told to stop.
    pub cancel: CancellationToken,
    /// When its time is over.
    pub deadline: Instant,
}

impl Bounds {
    /// The same, with an earlier end.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            cancel: self.cancel.clone(),
            deadline: self.deadline.min(Instant::now() + limit),
        }
    }
}

/// Where the output goes.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// The log.
    pub reporter: &'a Reporter,
    /// The phase that prints.
    pub phase: Phase,
    /// The test that prints.
    pub test: Option<&'a str>,
}

impl Output<'_> {
    /// Where its lines come from.
    fn origin(&self) -> Origin<'_> {
        Origin {
            phase: self.phase,
            step: None,
            test: self.test,
            stream: Stream::Output,
        }
    }
}

/// Runs a command to its end; `observe` sees each line before it is written, and says what it tells of.
///
/// # Errors
/// When it cannot be started.
pub async fn run(
    command: &mut Command,
    output: Output<'_>,
    bounds: &Bounds,
    observe: impl FnMut(&str) -> Option<Event>,
) -> io::Result<Ended> {
    let started = Started::begin(command.stdin(Stdio::null()))?;
    Ok(started.run(output, bounds, observe).await)
}

/// Runs a command and keeps at most `limit` bytes of what it prints, for small questions.
///
/// # Errors
/// When it cannot be started.
pub async fn capture(
    command: &mut Command,
    bounds: &Bounds,
    limit: u64,
) -> io::Result<(Ended, String)> {
    let started = Started::begin(command.stdin(Stdio::null()))?;
    Ok(started.capture(bounds, limit).await)
}

/// A command that was started as a group of its own, and whose output nobody has read yet. Its leader is
/// killed when this is dropped.
pub struct Started {
    group: Group,
    pipe: Receiver,
    is_carried: bool,
}

impl Started {
    /// Starts a command; one pipe for both of its streams keeps their order.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(command: &mut Command) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // The command goes on printing while this program reads; where it may not be larger it does as it is.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE);
        command
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        // The command holds the ends of the pipes: without this they would never close.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self {
            group: Group::new(child),
            pipe: Receiver::from_owned_fd(reader.into())?,
            is_carried: false,
        })
    }

    /// Says that what commands print below it is carried into its pipe by Buildah, which may lose the end
    /// ([`Leftovers`]).
    #[must_use]
    pub fn carried(self, is_carried: bool) -> Self {
        Self { is_carried, ..self }
    }

    /// Follows it to its end, as [`run`] does.
    pub async fn run(
        self,
        output: Output<'_>,
        bounds: &Bounds,
        mut observe: impl FnMut(&str) -> Option<Event>,
    ) -> Ended {
        let leftovers = self.leftovers();
        let Self {
            mut group, pipe, ..
        } = self;
        let (reporter, origin) = (output.reporter, output.origin());
        let mut observe = |line: &str| {
            let event = observe(line);
            if let (Some(Event::StepStarted { step }), Some(leftovers)) = (&event, &leftovers) {
                leftovers.expect(may_start_a_command(&step.instruction));
            }
            event
        };
        let mut printed = Printed::of(pipe, Arc::clone(reporter.redactor()), leftovers.clone());
        let ended = loop {
            tokio::select! {
                // A flood of output is always ready: what ends the process comes first.
                biased;
                () = bounds.cancel.cancelled() => break group.stop(Ended::Cancelled).await,
                () = tokio::time::sleep_until(bounds.deadline) => break group.stop(Ended::OutOfTime).await,
                block = printed.next() => match block {
                    None => break group.finish(bounds).await,
                    Some(first) => {
                        let mut batch = reporter.batch();
                        let (mut next, until) = (Some(first), Instant::now() + TOGETHER);
                        while let Some(block) = next {
                            batch.lines(&origin, &block.lines, &mut observe);
                            printed.give_back(block);
                            let goes_on = !bounds.cancel.is_cancelled() && Instant::now() < until;
                            next = if goes_on { printed.at_hand() } else { None };
                        }
                    }
                },
            }
        };
        // What still lay in the pipe when it was stopped: no more than fits, whoever escaped the group prints on.
        let mut room = PIPE + printed::AHEAD;
        while room > 0
            && let Ok(Some(block)) = tokio::time::timeout(REST, printed.next()).await
        {
            room = room.saturating_sub(block.read);
            reporter.batch().lines(&origin, &block.lines, &mut |_| None);
            printed.give_back(block);
        }
        let (lines, last_words) = printed.finish();
        reporter.batch().lines(&origin, &lines, &mut observe);
        let last = reporter.last_text();
        if let Some(error) = last_words.error(last.as_deref(), reporter.redactor()) {
            reporter.batch().line(&origin, &error);
        }
        ended
    }

    /// Watched from now on, where there may be some.
    fn leftovers(&self) -> Option<Arc<Leftovers>> {
        let leader = self.group.id.filter(|_| self.is_carried)?;
        let pipe = rustix::fs::fstat(&self.pipe).ok()?;
        let carried_to = (pipe.st_dev, pipe.st_ino);
        Some(Arc::new(Leftovers::watch(leader, carried_to)))
    }

    /// Waits for its end, as [`capture`] does.
    pub async fn capture(self, bounds: &Bounds, limit: u64) -> (Ended, String) {
        let Self {
            mut group, pipe, ..
        } = self;
        let mut text = Vec::new();
        let mut limited = pipe.take(limit);
        let ended = tokio::select! {
            biased;
            () = bounds.cancel.cancelled() => group.stop(Ended::Cancelled).await,
            () = tokio::time::sleep_until(bounds.deadline) => group.stop(Ended::OutOfTime).await,
            _ = limited.read_to_end(&mut text) => group.finish(bounds).await,
        };
        (ended, String::from_utf8_lossy(&text).into_owned())
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.group.child.try_wait(), Ok(None))
    }

    /// Kills it; what it printed is lost.
    pub async fn kill(mut self) {
        self.group.signal(Signal::KILL);
        let _ = self.group.child.wait().await;
        self.group.sweep().await;
    }
}

/// Whether a step may execute something: that of a base image may, too (ONBUILD).
fn may_start_a_command(instruction: &str) -> bool {
    let word = instruction.split_whitespace().next().unwrap_or_default();
    ["run", "from"]
        .iter()
        .any(|one| word.eq_ignore_ascii_case(one))
}

struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn new(child: Child) -> Self {
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Self { child, id }
    }

    /// The output has ended: waits for the leader, then for whoever is left.
    async fn finish(&mut self, bounds: &Bounds) -> Ended {
        let ended = tokio::select! {
            status = self.child.wait() => Ended::Exited(status.map_or(-1, |s| {
                use std::os::unix::process::ExitStatusExt;
                s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0))
            })),
            () = bounds.cancel.cancelled() => return self.stop(Ended::Cancelled).await,
            () = tokio::time::sleep_until(bounds.deadline) => return self.stop(Ended::OutOfTime).await,
        };
        self.sweep().await;
        ended
    }

    async fn stop(&mut self, why: Ended) -> Ended {
        self.signal(Signal::TERM);
        if tokio::time::timeout(GRACE, self.child.wait())
            .await
            .is_err()
        {
            self.signal(Signal::KILL);
            let _ = self.child.wait().await;
        }
        self.sweep().await;
        why
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, signal);
        }
    }

    /// Kills and reaps what is left of the group (the runner is a subreaper).
    async fn sweep(&self) {
        let Some(id) = self.id else { return };
        let deadline = Instant::now() + VANISH;
        loop {
            self.signal(Signal::KILL);
            while let Ok(Some(_)) = waitpgid(id, WaitOptions::NOHANG) {}
            if test_kill_process_group(id) == Err(Errno::SRCH) {
                return;
            }
            if Instant::now() > deadline {
                tracing::error!(
                    group = id.as_raw_nonzero().get(),
                    "a process group does not end"
                );
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::status::StepStatus;
    use crate::log::record::Body;
    use crate::log::{LogReader, Redactor};
    use crate::runner::LogSoFar;

    #[tokio::test]
    async fn what_was_printed_before_the_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("log")).unwrap();
        let reporter = Reporter::new(file, LogSoFar::default(), 1 << 30, Redactor::default());
        let output = Output {
            reporter: &reporter,
            phase: Phase::Build,
            test: None,
        };
        let cancel = CancellationToken::new();
        let bounds = Bounds {
            cancel: cancel.clone(),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        let mut command = Command::new("sh");
        // As much as fits into the pipe and more, so that it waits for whoever reads.
        command.args(["-c", "seq 300000; kill -USR1 $PPID; sleep 60"]);
        let mut printed =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).unwrap();
        let told = async {
            printed.recv().await;
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(run(&mut command, output, &bounds, |_| None), told);
        assert_eq!(ended.unwrap(), Ended::Cancelled);
        assert_eq!(reporter.last_text().as_deref(), Some("300000"));
    }

    #[tokio::test]
    async fn a_step_begins_between_the_lines_that_come_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = std::fs::File::create(&path).unwrap();
        let reporter = Reporter::new(file, LogSoFar::default(), 1 << 20, Redactor::default());
        let output = Output {
            reporter: &reporter,
            phase: Phase::Build,
            test: None,
        };
        let bounds = Bounds {
            cancel: CancellationToken::new(),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        let mut command = Command::new("printf");
        command.arg("STEP 1/2\\none\\nSTEP 2/2\\ntwo\\n");
        let mut index = 0;
        let ended = run(&mut command, output, &bounds, |line| {
            line.starts_with("STEP").then(|| {
                index += 1;
                let step = StepStatus {
                    index,
                    of: 2,
                    ..StepStatus::default()
                };
                Event::StepStarted { step }
            })
        });
        assert!(ended.await.unwrap().is_success());
        let log = LogReader::open(&path).unwrap().unwrap();
        let told: Vec<String> = log
            .forward(0)
            .map(|(_, record)| match record.body {
                Body::Line(line) => line.render(record.n),
                Body::Event(_) => format!("behind {}", record.n),
            })
            .collect();
        assert_eq!(
            told,
            [
                "behind 0",
                "1 build 1/2 | STEP 1/2",
                "2 build 1/2 | one",
                "behind 2",
                "3 build 2/2 | STEP 2/2",
                "4 build 2/2 | two"
            ]
        );
    }
}

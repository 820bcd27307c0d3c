//! The phases of `runner build`, in their order.

use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Signal, set_child_subreaper, set_parent_process_death_signal};
use tokio::time::Instant;

use crate::build::conclude::Outcome;
use crate::build::failure::{Failure, Fault, Kind};
use crate::build::{Phase, Plan};
use crate::log::Event;

use super::cgroup::{Cgroup, Counters};
use super::limits::{Evidence, explain};
use super::probe::{self, Host};
use super::process::{Bounds, Ended, Output, run};
use super::reporter::Reporter;
use super::sandbox::{Reach, Sandbox};
use super::settings::Settings;
use super::source::{self, Sources};
use super::workdir::WorkDir;
use super::{build, images, test};

/// What every phase works with.
pub struct Job<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The operator's settings.
    pub settings: &'a Settings,
    /// The build's directory.
    pub work: &'a WorkDir,
    /// The log.
    pub reporter: &'a Reporter,
    /// Stop and deadline.
    pub bounds: Bounds,
    /// The build's cgroup.
    pub cgroup: &'a Cgroup,
}

/// Why a phase did not end well.
#[derive(Debug)]
pub enum Stop {
    /// It failed.
    Failed(Box<Failure>),
    /// The build's time is over.
    TimedOut(Box<Failure>),
    /// The runner was told to stop.
    Interrupted,
}

impl Stop {
    /// It failed for this reason.
    pub fn failed(failure: Failure) -> Self {
        if failure.kind == Kind::Interrupted {
            return Stop::Interrupted;
        }
        Stop::Failed(Box::new(failure))
    }

    /// A fault of this program or of the host.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let text = error.to_string();
        let kind = if text.contains("No space left on device") || text.contains("os error 28") {
            Kind::DiskFull
        } else {
            Kind::Internal
        };
        Stop::failed(Failure::new(None, kind, text))
    }

    /// As the runner's last word.
    pub fn outcome(self) -> Outcome {
        match self {
            Stop::Failed(failure) => Outcome::Failed(failure),
            Stop::TimedOut(failure) => Outcome::TimedOut(failure),
            Stop::Interrupted => Outcome::Interrupted,
        }
    }
}

impl Job<'_> {
    /// The failure of a command that its sandbox could not be made for.
    pub fn not_entered(&self) -> Stop {
        let kept = self.reporter.kept();
        let words = kept.last().map_or("", |(_, line)| line.text.as_str());
        Stop::internal(format!("the sandbox could not be entered: {words}"))
    }

    /// A failure of foreign code that began when the counters stood at `before`: where it was a
    /// limit, it is named. Lines of other tests do not count.
    pub fn explained(&self, failure: Failure, before: Counters, test: Option<&str>) -> Failure {
        let mut lines = self.reporter.kept();
        lines.retain(|(_, line)| line.test.as_deref() == test);
        let evidence = Evidence {
            counted: self.cgroup.counters().since(before),
            memory_full: self.cgroup.was_full(),
            over: None,
            lines: &lines,
        };
        explain(
            failure,
            &evidence,
            &self.settings.limits,
            &self.plan.profile,
        )
    }

    /// The failure of a build whose time is over.
    pub fn out_of_time(&self, phase: Phase) -> Stop {
        let failure = Failure::new(
            phase,
            Kind::TimedOut,
            format!(
                "the build did not end within {} s; it was in the phase {}",
                self.plan.timeout,
                phase.as_str()
            ),
        )
        .with_fault(Fault::Unknown)
        .with_hint("Give a longer timeout, or make the build faster.");
        Stop::TimedOut(Box::new(failure))
    }
}

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_secs()).ok())
        .unwrap_or(0)
}

/// A moment given in seconds since 1970, on the monotonic clock.
pub fn deadline(at: i64) -> Instant {
    let left = u64::try_from(at - now_seconds()).unwrap_or(0);
    Instant::now() + Duration::from_secs(left)
}

/// Ties this process to its parent and makes it the one who reaps what its children leave.
pub fn tie() {
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err()
        || set_child_subreaper(Some(rustix::process::getpid())).is_err()
    {
        tracing::warn!("this kernel does not tie processes together");
    }
}

/// Runs source, build and test; says its last word and returns it. `context` is the snapshot of
/// a plan whose source is one.
pub async fn run_build(job: &Job<'_>, context: Option<File>) -> Outcome {
    let outcome = match phases(job, context).await {
        Ok(()) => Outcome::Passed,
        Err(stop) => stop.outcome(),
    };
    let together = job.cgroup.peak_bytes().map(|bytes| bytes >> 20);
    if let Some(peak_memory_mb) = together.or_else(peak_memory_mb) {
        let limits = &job.settings.limits;
        let limit = limits.memory_bytes.map(|bytes| bytes >> 20);
        let holds = !job.cgroup.unenforced(limits).contains(&"memory");
        job.reporter.event(Event::Used {
            peak_memory_mb,
            limit_mb: limit.filter(|_| holds),
        });
    }
    job.reporter.event(Event::result(&outcome));
    outcome
}

async fn phases(job: &Job<'_>, context: Option<File>) -> Result<(), Stop> {
    let (host, sources) = in_phase(job, Phase::Source, async {
        job.work.prepare().map_err(Stop::internal)?;
        std::fs::create_dir_all(&job.settings.cache).map_err(Stop::internal)?;
        let host = probe::probe(job.settings, job.work, &job.bounds)
            .await
            .map_err(|failure| match () {
                () if job.bounds.cancel.is_cancelled() => Stop::Interrupted,
                () if Instant::now() >= job.bounds.deadline => job.out_of_time(Phase::Source),
                () => Stop::failed(failure),
            })?;
        announce(job, &host);
        let sources = source::fetch(job, context).await?;
        refuse_heredocs(&host, &sources)?;
        images::fetch(job, &host, &sources).await?;
        job.work
            .forget_source_credentials()
            .map_err(Stop::internal)?;
        Ok((host, sources))
    })
    .await?;
    let sandbox = Sandbox {
        settings: job.settings,
        host: &host,
        work: job.work,
    };
    let images = in_phase(job, Phase::Build, build_phase(job, &sandbox, &sources)).await?;
    if !job.plan.tests.is_empty() {
        in_phase(job, Phase::Test, test::test(job, &sandbox, &images)).await?;
    }
    if !job.plan.tags.is_empty() {
        pack(job, &sandbox, &images.id).await?;
    }
    Ok(())
}

/// Buildah before 1.33 takes the lines of a here-document for instructions.
fn refuse_heredocs(host: &Host, sources: &Sources) -> Result<(), Stop> {
    let mut numbers = host
        .version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if sources.parsed.uses_heredocs && version < (1, 33) {
        let failure = Failure::new(
            Phase::Source,
            Kind::ContainerfileInvalid,
            format!("the Containerfile uses here-documents, which Buildah {} of this server does not know", host.version),
        )
        .with_hint("Write the commands without a here-document, or ask the operator for Buildah 1.33 or newer.");
        return Err(Stop::failed(
            failure.at(sources.containerfile_shown.clone(), None),
        ));
    }
    Ok(())
}

async fn build_phase(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    sources: &Sources,
) -> Result<build::Images, Stop> {
    let images = build::build(job, sandbox, sources).await?;
    // Nothing after this phase needs them.
    match std::fs::remove_dir_all(job.work.secrets()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Stop::internal(error)),
        _ => Ok(images),
    }
}

/// Frames a phase with its events; a failure that names no phase gets this one.
pub async fn in_phase<T>(
    job: &Job<'_>,
    phase: Phase,
    work: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    job.reporter.event(Event::PhaseStarted { phase });
    let (begun, before) = (Instant::now(), job.cgroup.counters());
    let result = work.await;
    let seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    job.reporter.event(Event::PhaseEnded { phase, seconds });
    result.map_err(|stop| match stop {
        Stop::Failed(mut failure) => {
            failure.phase.get_or_insert(phase);
            // The other phases know better when it began.
            if phase == Phase::Source {
                *failure = job.explained(*failure, before, None);
            }
            Stop::Failed(failure)
        }
        other => other,
    })
}

fn announce(job: &Job<'_>, host: &Host) {
    job.reporter.say(
        Phase::Source,
        format!(
            "buildah {}, isolation: {}",
            host.version,
            host.isolation.join(" ")
        ),
    );
    let mut unenforced = job.cgroup.unenforced(&job.settings.limits);
    unenforced.push("disk");
    job.reporter.say(
        Phase::Source,
        format!(
            "unenforced on this host: limits on {}; RUN shares the host's network",
            unenforced.join(", ")
        ),
    );
}

/// Writes the tested image as an OCI layout, ready for the push.
async fn pack(job: &Job<'_>, sandbox: &Sandbox<'_>, id: &str) -> Result<(), Stop> {
    let phase = if job.plan.tests.is_empty() {
        Phase::Build
    } else {
        Phase::Test
    };
    let mut argv = sandbox.buildah();
    argv.extend(["push", "--quiet", "--format=oci", id].map(String::from));
    argv.push(format!("oci:{}:image", job.work.layout().display()));
    let mut command = sandbox
        .command("pack", vec![argv], Reach::default())
        .map_err(Stop::internal)?;
    job.reporter.say(phase, "packing the image");
    let before = job.cgroup.counters();
    let output = Output {
        reporter: job.reporter,
        phase,
        test: None,
    };
    match run(&mut command, output, &job.bounds, |_| {})
        .await
        .map_err(Stop::internal)?
    {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(status) => {
            let failure = crate::diagnosis::buildah_failure(&crate::diagnosis::BuildahEnd {
                status,
                lines: &job.reporter.kept(),
                place: None,
            });
            Err(Stop::failed(job.explained(failure, before, None)))
        }
        Ended::Cancelled => Err(Stop::Interrupted),
        Ended::OutOfTime => Err(job.out_of_time(phase)),
    }
}

/// Largest memory of one of this runner's finished processes, in MiB (getrusage(2), RUSAGE_CHILDREN).
fn peak_memory_mb() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let kilobytes = getrusage(UsageWho::RUSAGE_CHILDREN).ok()?.max_rss();
    u64::try_from(kilobytes / 1024).ok()
}

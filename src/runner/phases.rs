//! The phases of `runner build`, in their order.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Signal, set_child_subreaper, set_parent_process_death_signal};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::build::conclude::Outcome;
use crate::build::failure::{Failure, Fault, Kind};
use crate::build::plan::PlanSource;
use crate::build::{Phase, Plan};
use crate::diagnosis::{BuildahEnd, Tree, buildah_failure};
use crate::log::Event;

use super::cache::Layers;
use super::cgroup::{Cgroup, Counters};
use super::inputs::Reading;
use super::limits::{Evidence, explain};
use super::outputs::{self, Outputs};
use super::probe::{self, Host};
use super::process::{Bounds, Ended, Output, capture};
use super::reporter::Reporter;
use super::sandbox::{Opening, Reach, Sandbox, Store, remove_tree};
use super::settings::{Network, Settings};
use super::source::{self, Sources};
use super::workdir::WorkDir;
use super::{build, images, test};

/// How long the removal of left containers may take.
const TIDY: Duration = Duration::from_secs(20);

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
    /// What earlier builds left in the cache seems to be damaged.
    Damaged(Box<Failure>),
}

/// How the runner ends.
#[derive(Debug)]
pub enum End {
    /// With its last word.
    Said(Outcome),
    /// Without one: what was damaged is discarded, and the build is to begin anew.
    Again,
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
        let kind = match is_disk_full(&text) {
            true => Kind::DiskFull,
            false => Kind::Internal,
        };
        Stop::failed(Failure::new(None, kind, text))
    }

    /// As the runner's last word.
    pub fn outcome(self) -> Outcome {
        match self {
            Stop::Failed(failure) | Stop::Damaged(failure) => Outcome::Failed(failure),
            Stop::TimedOut(failure) => Outcome::TimedOut(failure),
            Stop::Interrupted => Outcome::Interrupted,
        }
    }
}

/// Whether an error speaks of a full disk: ENOSPC or EDQUOT, in the words of errno(3).
pub fn is_disk_full(text: &str) -> bool {
    [
        "No space left on device",
        "os error 28",
        "Disk quota exceeded",
        "os error 122",
    ]
    .iter()
    .any(|words| text.contains(words))
}

impl Job<'_> {
    /// The failure of a command that its sandbox could not be made for.
    pub fn not_entered(&self) -> Stop {
        let kept = self.reporter.kept();
        let words = kept.last().map_or("", |(_, line)| line.text.as_str());
        Stop::internal(format!("the sandbox could not be entered: {words}"))
    }

    /// Whether the sandbox was killed and no limit was the reason: then it was a stranger.
    pub fn killed_by_a_stranger(
        &self,
        sandbox: &Sandbox<'_>,
        before: Counters,
        test: Option<&str>,
    ) -> bool {
        let unexplained = Failure::new(
            None,
            Kind::BuildError,
            "a process of the sandbox was killed",
        );
        let strange = sandbox.was_killed()
            && self.explained(unexplained.clone(), before, test) == unexplained;
        if strange {
            tracing::warn!("a process of the sandbox was killed by somebody unknown");
        }
        strange
    }

    /// A failure of foreign code that began when the counters stood at `before`: where it was a
    /// limit, it is named. Lines of other tests do not count.
    pub fn explained(&self, failure: Failure, before: Counters, test: Option<&str>) -> Failure {
        let mut lines = self.reporter.kept();
        lines.retain(|(_, line)| line.test.as_deref() == test);
        // What earlier steps printed says nothing of the last one.
        let step = lines.last().and_then(|(_, line)| line.step);
        lines.retain(|(_, line)| line.step == step);
        let evidence = Evidence {
            counted: self.cgroup.counters().since(before),
            memory_full: self.cgroup.was_full(),
            over: self.work.over(),
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
pub async fn run_build(job: &Job<'_>, context: Option<File>) -> End {
    let outcome = match phases(job, context).await {
        Ok(()) => Outcome::Passed,
        Err(Healed::Again) => return End::Again,
        Err(Healed::Stop(stop)) => stop.outcome(),
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
    End::Said(outcome)
}

async fn phases(job: &Job<'_>, context: Option<File>) -> Result<(), Healed> {
    let (gathered, opening) = in_phase(job, Phase::Source, begin(job, context)).await??;
    let Gathered {
        host,
        sources,
        bases,
        layers,
        warm,
    } = gathered;
    let sandbox = Sandbox {
        settings: job.settings,
        host: &host,
        work: job.work,
        layers: Some(&layers),
        bases: &bases.bases,
    };
    let ended = in_sandbox(job, &sandbox, &sources, opening).await;
    if layers.has_containers() {
        tidy(&sandbox).await;
    }
    if let Some(tree) = &sources.tree
        && let Err(error) = layers.sources().keep(tree, &job.work.src())
    {
        tracing::warn!(%error, "the sources cannot be kept");
    }
    match ended {
        Err(Stop::Damaged(failure)) => Err(heal(job, &host, layers, bases, warm, failure).await),
        other => other.map_err(Healed::Stop),
    }
}

/// What the phases after the source work with.
struct Gathered {
    host: Host,
    sources: Sources,
    bases: images::Images,
    layers: Layers,
    warm: Warm,
}

/// The phase source; the first sandbox is made meanwhile.
async fn begin(
    job: &Job<'_>,
    context: Option<File>,
) -> Result<Result<(Gathered, Opening), Healed>, Stop> {
    let opening =
        std::env::current_exe().and_then(|own| Opening::begin(job.settings, &own, job.work, true));
    let opening = opening.map_err(Stop::internal)?;
    let gathered = gather(job, context).await;
    // Not everything in there can be interrupted.
    let gathered = match gathered {
        _ if job.bounds.cancel.is_cancelled() => Err(Stop::Interrupted),
        Ok(Ok(_)) if Instant::now() >= job.bounds.deadline => Err(job.out_of_time(Phase::Source)),
        other => other,
    };
    match gathered {
        Ok(Ok(gathered)) => Ok(Ok((gathered, opening))),
        Ok(Err(healed)) => {
            opening.give_up().await;
            Ok(Err(healed))
        }
        Err(stop) => {
            opening.give_up().await;
            Err(stop)
        }
    }
}

async fn gather(job: &Job<'_>, context: Option<File>) -> Result<Result<Gathered, Healed>, Stop> {
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
    let client = images::NewClient::begin(job.settings);
    let cache = host.cache(&job.settings.cache);
    let take = || cache.take(&job.plan.scopes).map_err(Stop::internal);
    // What the scope may have of the sources is needed before them; from git they may take long, or never come.
    let early = match job.plan.source {
        PlanSource::Snapshot { .. } => Some(take()?),
        PlanSource::Git { .. } => None,
    };
    let kept = early.as_ref().map(Layers::sources);
    let sources = source::fetch(job, context, kept).await?;
    refuse_heredocs(&host, &sources)?;
    let reading = Reading::begin(job, &sources, host.is_since(1, 39));
    let bases = images::fetch(job, &host, &sources, client).await;
    let given = bases.as_ref().ok().map(|images| images.bases.as_slice());
    let made_of = reading.tell(job, given).await?;
    let bases = match bases {
        Err(Stop::Damaged(failure)) => {
            return Ok(Err(heal_images(job, &host, failure).await));
        }
        other => other?,
    };
    let mut layers = match early {
        Some(layers) => layers,
        None => take()?,
    };
    let is_stale = !layers.are_made_of(&made_of);
    if is_stale && layers.is_warm() {
        let what = "layers of earlier builds are not taken: a step mounts what has changed since, or what was not read";
        job.reporter.say(Phase::Source, what);
    }
    if job.plan.no_cache || is_stale {
        // The stages of tests are still built once, and later builds get the new layers.
        forget(job, &host, &mut layers).await?;
    }
    layers.make_of(made_of).map_err(Stop::internal)?;
    layers.lie_on(&bases.bases).map_err(Stop::internal)?;
    job.work
        .forget_source_credentials()
        .map_err(Stop::internal)?;
    let warm = Warm {
        layers: layers.is_warm(),
        shared: layers.shared().is_some(),
        images: bases.were_there,
    };
    Ok(Ok(Gathered {
        host,
        sources,
        bases,
        layers,
        warm,
    }))
}

/// Everything that runs foreign code or works on what it left.
async fn in_sandbox(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    sources: &Sources,
    opening: Opening,
) -> Result<(), Stop> {
    let outputs = Outputs::default();
    let built = build_phase(job, sandbox, sources, opening, &outputs);
    let images = in_phase(job, Phase::Build, built).await?;
    if !job.plan.tests.is_empty() {
        let tested = test::test(job, sandbox, sources, &images, &outputs);
        in_phase(job, Phase::Test, tested).await?;
        job.work.forget_test_secrets().map_err(Stop::internal)?;
    }
    let last = match job.plan.tests.as_slice() {
        [] => Phase::Build,
        _ => Phase::Test,
    };
    if !job.plan.tags.is_empty() || job.plan.wants_image() {
        pack(job, sandbox, last, &images.id).await?;
    }
    if job.plan.wants_image() {
        outputs::of_packed(job, &outputs, last, &images.id).await?;
    }
    Ok(())
}

/// Removes the containers that a build which failed or was stopped left in the store of its scope.
async fn tidy(sandbox: &Sandbox<'_>) {
    let mut argv = sandbox.buildah(Store::Scope);
    argv.extend(["rm", "--all"].map(String::from));
    let reach = Reach {
        layers: true,
        ..Reach::default()
    };
    // It may not be stopped: what it does is short, and what it leaves undone the next build must do.
    let bounds = Bounds {
        cancel: CancellationToken::new(),
        deadline: Instant::now() + TIDY,
    };
    match sandbox.start(vec![argv], reach) {
        Ok(started) => match started.capture(&bounds, 4096).await {
            (Ended::Exited(0), _) => {}
            (_, text) => tracing::warn!(text, "containers remain in the store of the scope"),
        },
        Err(error) => tracing::warn!(%error, "containers remain in the store of the scope"),
    }
}

/// What is to be done after phases that did not end well.
enum Healed {
    Stop(Stop),
    Again,
}

impl From<Stop> for Healed {
    fn from(stop: Stop) -> Self {
        Healed::Stop(stop)
    }
}

/// Discards what is damaged: the layers of the scope; where there were none, the base images.
async fn heal(
    job: &Job<'_>,
    host: &Host,
    layers: Layers,
    images: images::Images,
    warm: Warm,
    failure: Box<Failure>,
) -> Healed {
    match warm {
        Warm { layers: true, .. } => {
            let discarded = discard_layers(job, host, &layers).await;
            without(job, "layers", discarded, failure)
        }
        Warm { shared: true, .. } => {
            let done = layers.stay_alone().map(|()| true);
            without(
                job,
                "layers of the ref",
                done.map_err(Stop::internal),
                failure,
            )
        }
        Warm { images: true, .. } => {
            drop(images);
            heal_images(job, host, failure).await
        }
        // Nothing here is older than this build: the fault is another.
        _ => Healed::Stop(Stop::Failed(failure)),
    }
}

async fn heal_images(job: &Job<'_>, host: &Host, failure: Box<Failure>) -> Healed {
    without(job, "base images", discard_images(job, host).await, failure)
}

/// Begins anew when what was damaged is discarded.
fn without(
    job: &Job<'_>,
    what: &str,
    discarded: Result<bool, Stop>,
    failure: Box<Failure>,
) -> Healed {
    match discarded {
        Ok(true) => {
            let text = format!(
                "the {what} that earlier builds left are damaged; the build begins anew without them"
            );
            job.reporter
                .say(failure.phase.unwrap_or(Phase::Build), text);
            Healed::Again
        }
        Ok(false) => {
            let hint = format!(
                "The {what} that earlier builds left seem to be damaged, and other builds use them at the moment. Build again when those have ended."
            );
            let failure = failure.with_fault(Fault::Transient).with_hint(hint);
            Healed::Stop(Stop::failed(failure))
        }
        Err(Stop::Failed(error)) => {
            tracing::warn!(error = error.message, "damaged {what} cannot be removed");
            Healed::Stop(Stop::Failed(failure))
        }
        Err(stop) => Healed::Stop(stop),
    }
}

/// Discards the layers of a scope, unless another build reads them.
async fn discard_layers(job: &Job<'_>, host: &Host, layers: &Layers) -> Result<bool, Stop> {
    if !layers.close_to_readers().map_err(Stop::internal)? {
        return Ok(false);
    }
    remove(job, host, &layers.store(), Phase::Build)
        .await
        .map(|()| true)
}

/// Discards the base images, unless another build has them.
async fn discard_images(job: &Job<'_>, host: &Host) -> Result<bool, Stop> {
    let cache = host.cache(&job.settings.cache);
    let Some(_held) = cache.own_images().map_err(Stop::internal)? else {
        return Ok(false);
    };
    remove(job, host, &cache.images(), Phase::Build).await?;
    probe::make_image_store(job.settings, host, job.work, &job.bounds)
        .await
        .map_err(Stop::failed)?;
    Ok(true)
}

/// Removes a store; `phase` is the one that this is done in.
async fn remove(job: &Job<'_>, host: &Host, store: &Path, phase: Phase) -> Result<(), Stop> {
    let mut command = Command::from(remove_tree(&host.own_binary, store));
    let removed = capture(&mut command, &job.bounds, 4096).await;
    match removed.map_err(Stop::internal)? {
        (Ended::Exited(0), _) => Ok(()),
        (Ended::Exited(status), said) => Err(Stop::internal(format!(
            "{} cannot be removed: rm ended with {status}: {said}",
            store.display()
        ))),
        (Ended::Cancelled, _) => Err(Stop::Interrupted),
        (Ended::OutOfTime, _) => Err(job.out_of_time(phase)),
    }
}

/// What was there before this build.
#[derive(Debug, Clone, Copy)]
struct Warm {
    layers: bool,
    shared: bool,
    images: bool,
}

/// Begins a scope anew: in a store that no other build reads.
async fn forget(job: &Job<'_>, host: &Host, layers: &mut Layers) -> Result<(), Stop> {
    let cache = host.cache(&job.settings.cache);
    let mut read = Vec::new();
    while !layers.close_to_readers().map_err(Stop::internal)? {
        layers.give_up().map_err(Stop::internal)?;
        let next = cache.take(&job.plan.scopes).map_err(Stop::internal)?;
        read.push(std::mem::replace(layers, next));
    }
    layers.read_nothing();
    remove(job, host, &layers.store(), Phase::Source).await?;
    layers.make_store().map_err(Stop::internal)?;
    layers.open_to_readers().map_err(Stop::internal)
}

/// Buildah before 1.33 takes the lines of a here-document for instructions.
fn refuse_heredocs(host: &Host, sources: &Sources) -> Result<(), Stop> {
    if sources.parsed.uses_heredocs && !host.is_since(1, 33) {
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
    opening: Opening,
    outputs: &Outputs,
) -> Result<build::Images, Stop> {
    let images = build::build(job, sandbox, sources, opening).await?;
    job.work.renew_box().map_err(Stop::internal)?;
    // Nothing after this phase needs them.
    job.work.forget_secrets().map_err(Stop::internal)?;
    outputs::of_image(job, sandbox, outputs, &images.id).await?;
    Ok(images)
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
        Stop::Damaged(mut failure) => {
            failure.phase.get_or_insert(phase);
            Stop::Damaged(failure)
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
    if !host.refused.is_empty() {
        let text = format!(
            "what is stronger does not work: {}",
            host.refused.join(" / ")
        );
        job.reporter.say(Phase::Source, text);
    }
    let mut unenforced: Vec<String> = job
        .cgroup
        .unenforced(&job.settings.limits)
        .iter()
        .map(|what| format!("the limit on {what}"))
        .collect();
    if job.settings.network == Network::Host {
        unenforced.push("the network: RUN shares the host's".into());
    }
    if !job.settings.no_new_privileges {
        unenforced.push("no new privileges, and the filter over system calls".into());
    }
    if !unenforced.is_empty() {
        let text = format!("unenforced on this host: {}", unenforced.join("; "));
        job.reporter.say(Phase::Source, text);
    }
}

/// Writes the tested image as an OCI layout, ready for the push.
async fn pack(job: &Job<'_>, sandbox: &Sandbox<'_>, phase: Phase, id: &str) -> Result<(), Stop> {
    let mut argv = sandbox.buildah(Store::Own);
    argv.extend(["push", "--quiet", "--format=oci", id].map(String::from));
    argv.push(format!("oci:{}:image", job.work.layout().display()));
    let started = sandbox
        .start(vec![argv], Reach::default())
        .map_err(Stop::internal)?;
    job.reporter.say(phase, "packing the image");
    let before = job.cgroup.counters();
    let output = Output {
        reporter: job.reporter,
        phase,
        test: None,
    };
    match started.run(output, &job.bounds, |_| None).await {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(_) if job.killed_by_a_stranger(sandbox, before, None) => {
            Err(Stop::Interrupted)
        }
        Ended::Exited(status) => {
            let end = BuildahEnd {
                status,
                lines: &job.reporter.kept(),
                place: None,
                tree: &Tree::default(),
            };
            let failure = job.explained(buildah_failure(&end), before, None);
            Err(sandbox.stop(&end, failure))
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

//! Phase build: Buildah executes the Containerfile, without any credential.

use std::fs;

use crate::build::Phase;
use crate::build::digest::Digest;
use crate::build::failure::{Failure, Kind};
use crate::build::named_context::NamedContext;
use crate::containerfile::Containerfile;
use crate::diagnosis::{BuildahEnd, Steps, Tree, buildah_failure};
use crate::log::Event;

use super::handed::Handed;
use super::phases::{Job, Stop};
use super::process::{Ended, Output};
use super::reporter::Reporter;
use super::sandbox::{Opening, Reach, Readable, Sandbox, Secrets, Store};
use super::seen;
use super::source::{Sources, needed_stages};
use super::store::image_named;
use super::workdir::read_untrusted;

/// Bytes of an image's id at most.
const MAX_ID: u64 = 256;

/// Builds the stages that tests ask for, then the image itself; returns digests of their configurations.
/// The first of them is built in the sandbox whose making has begun.
///
/// # Errors
/// Why the build stops.
pub async fn build(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    sources: &Sources,
    opening: Opening,
) -> Result<Images, Stop> {
    let _handed =
        Handed::begin(job.work, &job.plan.secrets, sandbox.stores()).map_err(Stop::internal)?;
    let mut opening = Some(opening);
    let mut stages: Vec<(String, String)> = Vec::new();
    for test in &job.plan.tests {
        if let Some(stage) = &test.stage
            && !stages.iter().any(|(name, _)| name == stage)
        {
            let target = select(&sources.parsed, Some(stage), &job.plan.build_args)?;
            let id = one(job, sandbox, sources, target.as_deref(), opening.take()).await?;
            stages.push((stage.clone(), id));
        }
    }
    let target = select(
        &sources.parsed,
        job.plan.target.as_deref(),
        &job.plan.build_args,
    )?;
    let id = one(job, sandbox, sources, target.as_deref(), opening.take()).await?;
    job.reporter.event(Event::Image { id: id.clone() });
    Ok(Images { id, stages })
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Digest of the final image's configuration.
    pub id: String,
    /// The same for each stage that a test runs in.
    pub stages: Vec<(String, String)>,
}

/// The word Buildah knows the target by.
fn select(
    parsed: &Containerfile,
    target: Option<&str>,
    build_args: &[(String, String)],
) -> Result<Option<String>, Stop> {
    let Some(target) = target else {
        return Ok(None);
    };
    let stages = parsed.plan(Some(target), build_args).map_err(|unknown| {
        Stop::failed(
            Failure::new(Phase::Build, Kind::TargetNotFound, unknown.to_string())
                .with_hint("Name a stage of the Containerfile."),
        )
    })?;
    Ok(stages.last().map(|stage| stage.selector()))
}

async fn one(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    sources: &Sources,
    target: Option<&str>,
    opening: Option<Opening>,
) -> Result<String, Stop> {
    let iid = job.work.boxed("out").join("iid");
    let _ = fs::remove_file(&iid);
    let mut commands = preparations(sandbox);
    commands.push(arguments(job, sandbox, sources, target, &iid));
    let reach = Reach {
        sources: readable(job, sandbox, sources),
        secrets: match job.plan.secrets.as_slice() {
            [] => Secrets::None,
            _ => Secrets::OfRun,
        },
        layers: true,
        network: true,
        own_binary: false,
    };
    let started = match opening {
        Some(opening) => sandbox.fill(opening, commands, reach),
        None => sandbox.start(commands, reach),
    }
    .map_err(Stop::internal)?
    .carried(sandbox.is_carried());
    let parsed = as_logged(&sources.parsed, job.reporter);
    let mut steps = Steps::new(&parsed, &sources.containerfile_shown);
    // What an earlier step bore without failing is not the reason why a later one fails.
    let mut before = job.cgroup.counters();
    let output = Output {
        reporter: job.reporter,
        phase: Phase::Build,
        test: None,
    };
    let ended = started.run(output, &job.bounds, |line| {
        let step = steps.observe(line)?;
        before = job.cgroup.counters();
        Some(Event::StepStarted { step })
    });
    match ended.await {
        Ended::Exited(0) => {}
        Ended::Exited(_) if job.killed_by_a_stranger(sandbox, before, None) => {
            return Err(Stop::Interrupted);
        }
        Ended::Exited(_) if !sandbox.was_reached() => return Err(job.not_entered()),
        Ended::Exited(status) => {
            let lines = job.reporter.kept();
            let failed = steps.failed_at(&lines);
            let args = &job.plan.build_args;
            let tree = failed.as_ref().map_or_else(Tree::default, |failed| {
                let layout = sources.parsed.layout(failed.stage, Some(failed.step), args);
                seen::tree(job, layout)
            });
            let end = BuildahEnd {
                status,
                place: failed.as_ref().map(|failed| &failed.place),
                lines: &lines,
                tree: &tree,
            };
            let failure = job.explained(buildah_failure(&end), before, None);
            return Err(sandbox.stop(&end, failure));
        }
        Ended::Cancelled => return Err(Stop::Interrupted),
        Ended::OutOfTime => return Err(job.out_of_time(Phase::Build)),
    }
    let id = read_untrusted(&iid, MAX_ID).map_err(Stop::internal)?;
    String::from_utf8(id)
        .map(|id| id.trim().to_owned())
        .ok()
        .filter(|id| id.starts_with("sha256:"))
        .ok_or_else(|| Stop::internal("Buildah did not tell the image's id"))
}

/// What must be done in the store of the scope before the build: containers of a build that died are
/// removed, and the Containerfile's references stand for the images that this build was given.
fn preparations(sandbox: &Sandbox<'_>) -> Vec<Vec<String>> {
    let Some(layers) = sandbox.layers else {
        return Vec::new();
    };
    let mut commands = Vec::new();
    let mut add = |words: &[&str]| {
        let mut argv = sandbox.buildah(Store::Scope);
        argv.extend(words.iter().map(|&word| word.to_owned()));
        commands.push(argv);
    };
    if layers.has_containers() {
        add(&["rm", "--all"]);
    }
    for base in sandbox.bases {
        let stands_for = image_named(&layers.store(), &base.reference).map(|image| image.id);
        if base.reference == base.name || stands_for == base.id {
            continue;
        }
        if stands_for.is_some() {
            // Buildah 1.28 takes a name from another image only for one that lies in this store: by a name that
            // none has, it comes to (containers/storage, store.go, `updateNames`).
            add(&["tag", &base.name, &unused_name(&base.name)]);
        }
        add(&["tag", &base.name, &base.reference]);
    }
    commands
}

/// A name that no image has but the one of this digest.
fn unused_name(pinned: &str) -> String {
    let digest = Digest::of(pinned.as_bytes());
    let short: String = digest.hex().chars().take(20).collect();
    format!("localhost/nomad-build/moved:{short}")
}

fn arguments(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    sources: &Sources,
    target: Option<&str>,
    iid: &std::path::Path,
) -> Vec<String> {
    let plan = job.plan;
    let mut argv = sandbox.buildah(Store::Scope);
    argv.push("build".into());
    argv.extend(sandbox.isolation());
    argv.extend(
        [
            "--pull=never",
            "--http-proxy=false",
            "--format=oci",
            "--ulimit=core=0:0",
        ]
        .map(String::from),
    );
    argv.push("--layers=true".into());
    argv.push(sandbox.file_limit());
    let mut option = |name: &str, value: String| argv.extend([format!("--{name}"), value]);
    option("iidfile", iid.display().to_string());
    option("file", sources.containerfile.display().to_string());
    // Buildah 1.28 does not look beside the Containerfile.
    if let Some(ignore_file) = &sources.ignore_file {
        option("ignorefile", ignore_file.display().to_string());
    }
    if let Some(target) = target {
        option("target", target.to_owned());
    }
    for (key, value) in &plan.build_args {
        option("build-arg", format!("{key}={value}"));
    }
    for (name, value) in &plan.build_contexts {
        let value = match NamedContext::of(value) {
            NamedContext::Directory(path) => match sources.named(path) {
                Some(directory) => directory.display().to_string(),
                None => continue,
            },
            NamedContext::Image(_) => value.clone(),
        };
        option("build-context", format!("{name}={value}"));
    }
    for (key, value) in &plan.labels {
        option("label", format!("{key}={value}"));
    }
    for name in &plan.secrets {
        let path = job.work.secrets_inside().join(name);
        option("secret", format!("id={name},src={}", path.display()));
    }
    argv.push(sources.context.display().to_string());
    argv
}

fn readable(job: &Job<'_>, sandbox: &Sandbox<'_>, sources: &Sources) -> Readable {
    let stages = needed_stages(&sources.parsed, job.plan);
    let binds = sandbox.host.is_since(1, 39) && sources.parsed.only_binds(&stages);
    match binds {
        true => Readable::AsIfWritable,
        false => Readable::Yes,
    }
}

/// The Containerfile as the log has it: without secrets.
fn as_logged(parsed: &Containerfile, reporter: &Reporter) -> Containerfile {
    let mut parsed = parsed.clone();
    for step in parsed.stages.iter_mut().flat_map(|stage| &mut stage.steps) {
        step.text = reporter.redactor().text(&step.text);
    }
    parsed
}

//! Every image the Containerfile needs, fetched with credentials before foreign code runs.
//!
//! Images lie in one store for all builds of the user and version of Buildah. Each build asks the
//! registry anew (`--policy always`): what a registry would refuse it, it does not get from the
//! store, and layers that are there are not fetched again.

use tokio::process::Command;

use crate::build::Phase;
use crate::containerfile::NeededImage;
use crate::diagnosis::pull_failure;

use super::phases::{Job, Stop};
use super::probe::Host;
use super::process::{Ended, Output, run};
use super::sandbox::{environment, storage};
use super::source::Sources;

/// Fetches the images in order.
///
/// # Errors
/// The first that cannot be had, or why the build stops.
pub async fn fetch(job: &Job<'_>, host: &Host, sources: &Sources) -> Result<(), Stop> {
    let images = sources
        .parsed
        .images(&job.plan.build_args, job.plan.target.as_deref())
        .map_err(|faults| super::source::invalid(sources, &faults))?;
    for image in &images {
        one(job, host, sources, image).await?;
    }
    // Tests may name stages that the target does not need.
    for test in &job.plan.tests {
        if let Some(stage) = &test.stage {
            let more = sources
                .parsed
                .images(&job.plan.build_args, Some(stage))
                .map_err(|faults| super::source::invalid(sources, &faults))?;
            for image in more.iter().filter(|image| !images.contains(image)) {
                one(job, host, sources, image).await?;
            }
        }
    }
    Ok(())
}

async fn one(
    job: &Job<'_>,
    host: &Host,
    sources: &Sources,
    image: &NeededImage,
) -> Result<(), Stop> {
    let store = host.images(&job.settings.cache);
    let mut command = Command::new(&host.buildah);
    command
        .args(storage(&store, &job.work.boxed("r")))
        .args(["pull", "--policy", "always"]);
    let auth = job.work.credentials().join("pull.json");
    if auth.exists() {
        command.arg("--authfile").arg(auth);
    }
    if job.settings.is_insecure(&image.reference) {
        command.arg("--tls-verify=false");
    }
    let certificates = job.work.credentials().join("certs");
    if certificates.exists() {
        command.arg("--cert-dir").arg(certificates);
    }
    if let Some(platform) = &image.platform {
        command.arg("--platform").arg(platform);
    }
    command
        .arg("--")
        .arg(&image.reference)
        .env_clear()
        .envs(environment(&job.work.boxed("")))
        .envs(job.settings.environment.iter().map(|(k, v)| (k, v)));
    job.reporter.say(
        Phase::Source,
        format!("fetching the image {}", image.reference),
    );
    let output = Output {
        reporter: job.reporter,
        phase: Phase::Source,
        test: None,
    };
    let before = job.reporter.last();
    match run(&mut command, output, &job.bounds, |_| {})
        .await
        .map_err(Stop::internal)?
    {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(_) => {
            let mut lines = job.reporter.kept();
            lines.retain(|(n, _)| *n > before);
            let wanted = sources.place_of_line(image.line);
            let mut failure = pull_failure(&image.reference, &lines, wanted.as_ref());
            if let Some(near) = &image.near_stage {
                failure.message = format!(
                    "{}; a stage of the Containerfile is called {near}",
                    failure.message
                );
            }
            Err(Stop::failed(failure))
        }
        Ended::Cancelled => Err(Stop::Interrupted),
        Ended::OutOfTime => Err(job.out_of_time(Phase::Source)),
    }
}

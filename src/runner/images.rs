//! Every image the Containerfile needs, fetched with credentials before foreign code runs.
//!
//! Images lie in one store for all builds of the user and version of Buildah. Each build asks the
//! registry anew, with its own credentials, what a reference stands for: an image that a registry would
//! refuse it, it does not get from the store. What is there under that digest is not fetched again,
//! and the build sees the image of that digest whatever another build fetches meanwhile.

use std::fs::{self, File};
use std::io;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::build::Phase;
use crate::build::failure::{Failure, Kind};
use crate::build::reference::Reference;
use crate::containerfile::NeededImage;
use crate::diagnosis::{BuildahEnd, Tree, points_at_store, pull_failure};
use crate::registry::{Auth, Client, ClientOptions, RegistryError};

use super::cache::{Base, Cache};
use super::mirrored::Mirrored;
use super::phases::{Job, Stop};
use super::probe::Host;
use super::process::{Ended, Output, run};
use super::sandbox::{environment, storage};
use super::settings::Settings;
use super::source::Sources;
use super::store::{image_named, is_id};

/// Name of the registries' credentials among those of the phase source.
pub const PULL: &str = "pull.json";
/// Between two tries to take what another build has.
const AGAIN: Duration = Duration::from_millis(50);

/// The images that a build may use.
#[derive(Debug)]
pub struct Images {
    /// Held while the build runs.
    pub bases: Vec<Base>,
    /// Whether one of them was there before.
    pub were_there: bool,
    _store: File,
}

/// Fetches the images in order.
///
/// # Errors
/// The first that cannot be had, or why the build stops.
pub async fn fetch(
    job: &Job<'_>,
    host: &Host,
    sources: &Sources,
    client: NewClient,
) -> Result<Images, Stop> {
    let mut needed = wanted(job, sources, job.plan.target.as_deref())?;
    // Tests may name stages that the target does not need.
    for test in job.plan.tests.iter().filter(|test| test.stage.is_some()) {
        let of_stage = wanted(job, sources, test.stage.as_deref());
        for image in of_stage.map_err(|stop| of_test(stop, &test.name))? {
            if !needed.contains(&image) {
                needed.push(image);
            }
        }
    }
    let cache = host.cache(&job.settings.cache);
    let mut images = Images {
        bases: Vec::new(),
        were_there: false,
        _store: hold(job, || cache.share_images()).await?,
    };
    if needed.is_empty() {
        return Ok(images);
    }
    let fetch = Fetch {
        job,
        host,
        sources,
        cache,
        registry: Registry::open(job, client).await?,
    };
    for image in &needed {
        fetch.one(image, &mut images).await?;
    }
    Ok(images)
}

/// Takes what another build has for itself only for a short time.
async fn hold<T>(job: &Job<'_>, take: impl Fn() -> io::Result<Option<T>>) -> Result<T, Stop> {
    loop {
        if let Some(held) = take().map_err(Stop::internal)? {
            return Ok(held);
        }
        tokio::select! {
            biased;
            () = job.bounds.cancel.cancelled() => return Err(Stop::Interrupted),
            () = tokio::time::sleep_until(job.bounds.deadline) => return Err(job.out_of_time(Phase::Source)),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

fn wanted(
    job: &Job<'_>,
    sources: &Sources,
    target: Option<&str>,
) -> Result<Vec<NeededImage>, Stop> {
    sources
        .parsed
        .images(&job.plan.build_args, target)
        .map_err(|faults| super::source::invalid(sources, &faults))
}

/// The stage that is not there is the test's, not the target.
fn of_test(stop: Stop, test: &str) -> Stop {
    match stop {
        Stop::Failed(mut failure) if failure.kind == Kind::TargetNotFound => {
            failure.message = format!("test {test}: {}", failure.message);
            failure.test = Some(test.to_owned());
            Stop::failed(
                failure.with_hint("Name a stage of the Containerfile as stage of the test."),
            )
        }
        stop => stop,
    }
}

/// A client that is being made: the certificates of the system are read meanwhile.
#[derive(Debug)]
pub struct NewClient(JoinHandle<Result<Client, RegistryError>>);

impl NewClient {
    /// Begins to make it.
    pub fn begin(settings: &Settings) -> Self {
        let options = ClientOptions {
            insecure: settings.insecure.clone(),
            ca_file: settings.ca_file.clone(),
            ..ClientOptions::default()
        };
        Self(tokio::task::spawn_blocking(|| Client::new(options)))
    }
}

/// Asks registries what a reference stands for.
struct Registry {
    client: Client,
    auth: Auth,
}

impl Registry {
    async fn open(job: &Job<'_>, client: NewClient) -> Result<Self, Stop> {
        let auth = match job.work.credential(PULL) {
            Some(file) => {
                let json = fs::read(file).map_err(Stop::internal)?;
                Auth::from_slice(&json).map_err(Stop::internal)?
            }
            None => Auth::anonymous(),
        };
        let client = client.0.await.map_err(Stop::internal)?;
        Ok(Self {
            client: client.map_err(Stop::internal)?,
            auth,
        })
    }

    /// `None` where Buildah must find out, and say what is wrong.
    async fn pin(&self, image: &NeededImage) -> Option<String> {
        if image.platform.is_some() {
            return None;
        }
        let reference = Reference::parse(&image.reference).ok()?;
        let digest = self.client.resolve(&reference, &self.auth).await.ok()??;
        Some(format!("{}@{digest}", reference.repository()))
    }
}

/// Whether it is this host that failed.
fn is_here(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        Kind::DiskFull | Kind::OutOfMemory | Kind::LimitReached | Kind::Internal
    )
}

/// What an image is called in a store; what is no reference to a registry stays as it is.
fn full_name(image: &str) -> String {
    let Ok(reference) = Reference::parse(image) else {
        return image.to_owned();
    };
    let repository = reference.repository();
    let (host, name) = (repository.host(), repository.name());
    match (reference.digest(), reference.tag()) {
        // Buildah keeps no tag beside a digest.
        (Some(digest), _) => format!("{host}/{name}@{digest}"),
        (None, tag) => format!("{host}/{name}:{}", tag.unwrap_or("latest")),
    }
}

struct Fetch<'a> {
    job: &'a Job<'a>,
    host: &'a Host,
    sources: &'a Sources,
    cache: Cache,
    registry: Registry,
}

impl Fetch<'_> {
    async fn one(&self, image: &NeededImage, images: &mut Images) -> Result<(), Stop> {
        let bounds = &self.job.bounds;
        let pin = tokio::select! {
            biased;
            () = bounds.cancel.cancelled() => return Err(Stop::Interrupted),
            () = tokio::time::sleep_until(bounds.deadline) => return Err(self.job.out_of_time(Phase::Source)),
            pin = self.registry.pin(image) => pin,
        };
        let reference = full_name(&image.reference);
        let name = pin.as_ref().unwrap_or(&reference);
        let mut base = hold(self.job, || self.cache.use_base(name, &reference)).await?;
        let there = pin
            .as_ref()
            .and_then(|_| image_named(&self.cache.images(), name));
        let id = if let Some(there) = there {
            self.say(format!("the image {name} is there"));
            images.were_there = true;
            Some(there.id)
        } else {
            self.pull(image, name, pin.is_some()).await?
        };
        if let Some(id) = id {
            base.identify(id).map_err(Stop::internal)?;
        }
        images.bases.push(base);
        Ok(())
    }

    fn say(&self, text: String) {
        self.job.reporter.say(Phase::Source, text);
    }

    /// Returns the id of the image, which Buildah prints at its end.
    async fn pull(
        &self,
        image: &NeededImage,
        name: &str,
        is_pinned: bool,
    ) -> Result<Option<String>, Stop> {
        self.say(format!("fetching the image {name}"));
        // What the registry has not just told, the mirror would not be told either.
        let mirrored = if is_pinned {
            Mirrored::lay_out(self.job, name).map_err(Stop::internal)?
        } else {
            None
        };
        if let Some(_mirrored) = mirrored {
            match self.pull_once(image, name).await {
                // Without the mirror Buildah tells plainly what is wrong.
                Err(Stop::Failed(failure)) if !is_here(&failure) => {}
                other => return other,
            }
            self.say("fetching it again, from the registry itself".to_owned());
        }
        self.pull_once(image, name).await
    }

    async fn pull_once(&self, image: &NeededImage, name: &str) -> Result<Option<String>, Stop> {
        let job = self.job;
        let mut command = Command::new(&self.host.buildah);
        command
            .args(storage(&self.cache.images(), &job.work.boxed("r")))
            .args(["pull", "--policy", "always"]);
        if let Some(auth) = job.work.credential(PULL) {
            command.arg("--authfile").arg(auth);
        }
        if job.settings.is_insecure(&image.reference) {
            command.arg("--tls-verify=false");
        }
        let certificates = job.work.certs();
        if certificates.exists() {
            command.arg("--cert-dir").arg(certificates);
        }
        if let Some(platform) = &image.platform {
            command.arg("--platform").arg(platform);
        }
        command
            .arg("--")
            .arg(name)
            .env_clear()
            .envs(environment(&job.work.outside()))
            .envs(job.settings.environment.iter().map(|(k, v)| (k, v)));
        let output = Output {
            reporter: job.reporter,
            phase: Phase::Source,
            test: None,
        };
        let before = job.reporter.last();
        let mut id = None;
        let ended = run(&mut command, output, &job.bounds, |line| {
            if is_id(line) {
                id = Some(line.to_owned());
            }
            None
        });
        match ended.await.map_err(Stop::internal)? {
            Ended::Exited(0) => Ok(id),
            Ended::Exited(status) => {
                let mut lines = job.reporter.kept();
                lines.retain(|(n, _)| *n > before);
                let wanted = self.sources.place_of_line(image.line);
                let mut failure = pull_failure(&image.reference, &lines, wanted.as_ref());
                if let Some(near) = &image.near_stage {
                    failure.message = format!(
                        "{}; a stage of the Containerfile is called {near}",
                        failure.message
                    );
                }
                let end = BuildahEnd {
                    status,
                    place: wanted.as_ref(),
                    lines: &lines,
                    tree: &Tree::default(),
                };
                let store = self.cache.images().display().to_string();
                if points_at_store(&end, &failure, &[store], &[]) {
                    return Err(Stop::Damaged(Box::new(failure)));
                }
                Err(Stop::failed(failure))
            }
            Ended::Cancelled => Err(Stop::Interrupted),
            Ended::OutOfTime => Err(job.out_of_time(Phase::Source)),
        }
    }
}

//! Phase publish: blobs and manifest to every repository, the commit point, then the tags.
//!
//! ```text
//! upload ─▶ upload ─▶ … ─▶ gate.commit() ─▶ tag ─▶ read back ─▶ tag ─▶ read back ─▶ …
//!         may be stopped    │                     finishes, whoever asks
//! ```

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::build::conclude::Outcome;
use crate::build::failure::{Failure, Fault, Kind};
use crate::build::record::CommitOutcome;
use crate::build::status::{TagState, TagStatus};
use crate::build::{Phase, Plan};
use crate::log::Event;
use crate::registry::{Auth, Client, ClientOptions, Layout, PushReference, RegistryError};

use super::handoff::Handoff;
use super::phases::{Stop, deadline};
use super::reporter::Reporter;
use super::settings::Settings;
use super::workdir::WorkDir;

/// Where publish asks whether it may pass its commit point; a backend provides it.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Passes the commit point, unless somebody asked for the end before.
    ///
    /// # Errors
    /// When the record cannot be read or written: then no tag may be written.
    async fn commit(&self) -> std::io::Result<CommitOutcome>;
}

/// Everything publish works with.
pub struct Publish<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The operator's settings.
    pub settings: &'a Settings,
    /// The build's directory, with the packed image.
    pub work: &'a WorkDir,
    /// The log.
    pub reporter: &'a Reporter,
    /// What was tested.
    pub handoff: &'a Handoff,
    /// Credentials of the registries.
    pub auth: &'a Auth,
    /// Where the commit point is asked for.
    pub gate: &'a dyn Gate,
}

impl Publish<'_> {
    /// Publishes the tested image; says its last word and returns it.
    pub async fn run(&self, cancel: CancellationToken) -> Outcome {
        let begun = std::time::Instant::now();
        self.reporter.event(Event::PhaseStarted {
            phase: Phase::Publish,
        });
        let uploaded = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Stop::Interrupted),
            () = tokio::time::sleep_until(deadline(self.handoff.deadline)) => Err(Stop::TimedOut(Box::new(
                Failure::new(Phase::Publish, Kind::TimedOut, format!("the build did not end within {} s; it was in the phase publish", self.plan.timeout))
                    .with_hint("Nothing was tagged. Give a longer timeout.")))),
            uploaded = self.upload() => uploaded,
        };
        let result = match uploaded {
            Ok(ready) => self.commit_and_tag(ready).await,
            Err(stop) => Err(stop),
        };
        let seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.reporter.event(Event::PhaseEnded {
            phase: Phase::Publish,
            seconds,
        });
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(stop) => stop.outcome(),
        };
        self.reporter.event(Event::result(&outcome));
        outcome
    }
}

/// Publish cannot even begin; says so as its last word.
pub fn refuse(reporter: &Reporter, error: &RegistryError) -> Outcome {
    reporter.event(Event::PhaseStarted {
        phase: Phase::Publish,
    });
    let outcome = failed(error, None).outcome();
    reporter.event(Event::result(&outcome));
    outcome
}

struct Ready {
    client: Client,
    layout: Layout,
    tags: Vec<PushReference>,
}

impl Publish<'_> {
    async fn upload(&self) -> Result<Ready, Stop> {
        let dir = self.work.layout();
        let limit = u64::MAX;
        let layout = tokio::task::spawn_blocking(move || Layout::open(&dir, limit))
            .await
            .map_err(Stop::internal)?
            .map_err(Stop::internal)?;
        if layout.config_digest().to_string() != self.handoff.image {
            return Err(Stop::internal(
                "the packed image is not the one that was tested; nothing was pushed",
            ));
        }
        self.reporter.event(Event::Packed {
            digest: layout.manifest_digest().to_string(),
            size_bytes: layout.total_size(),
        });
        let client = Client::new(ClientOptions {
            insecure: self.settings.insecure.clone(),
            ca_file: self.settings.ca_file.clone(),
            ..ClientOptions::default()
        })
        .map_err(|error| failed(&error, None))?;
        let mut tags = Vec::new();
        for tag in &self.plan.tags {
            tags.push(PushReference::parse(tag).map_err(Stop::internal)?);
        }
        let mut done = Vec::new();
        for tag in &tags {
            let repository = tag.repository();
            if done.contains(&repository) {
                continue;
            }
            self.say(format!(
                "uploading {} to {repository}",
                size(layout.total_size())
            ));
            client
                .upload_blobs(&layout, repository, self.auth, &mut |_| {})
                .await
                .map_err(|error| failed(&error, Some(tag)))?;
            client
                .put_manifest_by_digest(layout.manifest(), repository, self.auth)
                .await
                .map_err(|error| failed(&error, Some(tag)))?;
            done.push(repository);
        }
        Ok(Ready {
            client,
            layout,
            tags,
        })
    }

    /// From the gate on it finishes, whoever asks; a registry that fails stops it.
    async fn commit_and_tag(&self, ready: Ready) -> Result<(), Stop> {
        match self.gate.commit().await {
            Ok(CommitOutcome::Granted) => self.reporter.event(Event::Committed),
            Ok(CommitOutcome::Refused) => return Err(Stop::Interrupted),
            Err(error) => {
                return Err(Stop::internal(format!(
                    "the build's record cannot be written, so nothing was tagged: {error}"
                )));
            }
        }
        for tag in &ready.tags {
            let unknown = TagStatus {
                tag: tag.to_string(),
                digest: None,
                state: TagState::Unknown,
            };
            self.reporter.event(Event::Tag { tag: unknown });
            self.tag(&ready, tag).await?;
        }
        Ok(())
    }

    async fn tag(&self, ready: &Ready, tag: &PushReference) -> Result<(), Stop> {
        let manifest = ready.layout.manifest();
        if let Err(error) = ready.client.put_tag(manifest, tag, self.auth).await {
            if certainly_refused(&error) {
                self.reporter.event(Event::TagRefused {
                    tag: tag.to_string(),
                });
            }
            return Err(failed(&error, Some(tag)));
        }
        // What the registry hands out under this tag counts, not only what it answered.
        let digest = ready.layout.manifest_digest();
        match ready.client.resolve(&tag.clone().into(), self.auth).await {
            Ok(Some(found)) if found == *digest => {}
            Ok(found) => return Err(not_handed_out(tag, found.is_some())),
            Err(RegistryError::Unauthorized { .. } | RegistryError::Denied { .. }) => self.say(
                format!("{tag} was accepted; these credentials may push it and not read it back"),
            ),
            Err(error) => return Err(failed(&error, Some(tag))),
        }
        let confirmed = TagStatus {
            tag: tag.to_string(),
            digest: Some(digest.to_string()),
            state: TagState::Confirmed,
        };
        self.reporter.event(Event::Tag { tag: confirmed });
        self.say(format!("pushed {tag} @ {digest}"));
        Ok(())
    }

    fn say(&self, text: String) {
        self.reporter.say(Phase::Publish, text);
    }
}

/// Whether the registry refused a tag before it could have been written: its answer is about the
/// caller or the manifest, not about what became of it.
fn certainly_refused(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Unauthorized { .. }
            | RegistryError::Denied { .. }
            | RegistryError::NotFound { .. }
            | RegistryError::Rejected { .. }
    )
}

fn not_handed_out(tag: &PushReference, other: bool) -> Stop {
    let what = if other { "another image" } else { "nothing" };
    Stop::failed(
        Failure::new(
            Phase::Publish,
            Kind::PushRejected,
            format!("the registry accepted {tag} and then had {what} there"),
        )
        .with_hint("Somebody else may push to the same tag; look at the registry."),
    )
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1_048_576)),
    }
}

fn failed(error: &RegistryError, tag: Option<&PushReference>) -> Stop {
    let mut failure = push_failure(error);
    if let Some(tag) = tag {
        failure.message = format!("{tag} cannot be pushed: {}", failure.message);
    }
    Stop::failed(failure)
}

/// What a registry's error means for the build.
fn push_failure(error: &RegistryError) -> Failure {
    use crate::registry::Unreachable;
    let (kind, hint) = match error {
        RegistryError::Unreachable {
            why: Unreachable::Dns,
            ..
        } => (
            Kind::RegistryUnknownHost,
            "Correct the registry's name in tags; where it is right, the machine that builds may be without name resolution or the internet.",
        ),
        RegistryError::Unreachable { .. } => (Kind::RegistryUnreachable, "Try again later."),
        RegistryError::TooManyRequests { .. } => (Kind::RegistryRateLimited, "Try again later."),
        RegistryError::Tls { .. } => (
            Kind::RegistryTls,
            "The operator must trust the registry's certificate, or allow plain HTTP for it (registry.insecure, or NOMAD_BUILD_REGISTRY_INSECURE, of the machine that builds).",
        ),
        RegistryError::Unauthorized { .. } => (
            Kind::PushUnauthorized,
            "The operator must give this server credentials that may push there (buildah login, or registry.auth_file).",
        ),
        RegistryError::Denied { .. } => (
            Kind::PushDenied,
            "Push to a repository that the operator's credentials may write to.",
        ),
        RegistryError::Server {
            status, message, ..
        } if *status == 507 || message.to_ascii_lowercase().contains("no space left") => {
            (Kind::DiskFull, "The registry's operator must free space.")
        }
        RegistryError::Server { .. } => (Kind::RegistryError, "Try again later."),
        RegistryError::Rejected {
            status,
            code,
            message,
            ..
        } => return refused(*status, code, message, error.to_string()),
        RegistryError::NotFound { .. }
        | RegistryError::DigestMismatch { .. }
        | RegistryError::Protocol { .. } => (Kind::PushRejected, ""),
        RegistryError::Auth(_) | RegistryError::Setup(_) => (
            Kind::PushUnauthorized,
            "The operator must mend this server's registry configuration.",
        ),
        _ => (Kind::Internal, ""),
    };
    let failure = Failure::new(Phase::Publish, kind, error.to_string());
    if hint.is_empty() {
        failure
    } else {
        failure.with_hint(hint)
    }
}

/// A registry refuses the image or its name: who can mend it is in its answer.
fn refused(status: u16, code: &str, why: &str, message: String) -> Failure {
    let failure = Failure::new(Phase::Publish, Kind::PushRejected, message);
    let says = |word: &str| code.contains(word) || why.to_ascii_uppercase().contains(word);
    if status == 413 || says("SIZE_INVALID") || says("TOO LARGE") {
        return failure.with_fault(Fault::Code).with_hint(
            "Make the image smaller, or ask the registry's operator for a higher limit.",
        );
    }
    if says("IMMUTABLE") || status == 409 {
        return failure
            .with_fault(Fault::Request)
            .with_hint("Choose a tag that is not there yet.");
    }
    if says("NAME_INVALID") || says("TAG_INVALID") {
        return failure
            .with_fault(Fault::Request)
            .with_hint("Choose a name and tag that this registry allows.");
    }
    if says("QUOTA") {
        return failure
            .with_fault(Fault::Operator)
            .with_hint("The registry's operator must free space or raise the quota.");
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_mend_a_refused_push() {
        let told = |status, code: &str, why: &str| {
            let error = RegistryError::Rejected {
                host: "h".into(),
                status,
                code: code.into(),
                message: why.into(),
            };
            let failure = push_failure(&error);
            (failure.kind, failure.fault)
        };
        for (got, fault) in [
            (told(413, "no code", "no message"), Fault::Code),
            (
                told(400, "TAG_INVALID", "tag does not match"),
                Fault::Request,
            ),
            (told(400, "NAME_INVALID", "x"), Fault::Request),
            (
                told(
                    412,
                    "PRECONDITION",
                    "Failed to process request due to 'x' configured as immutable",
                ),
                Fault::Request,
            ),
            (
                told(
                    412,
                    "DENIED",
                    "adding 1 MiB will exceed the configured quota",
                ),
                Fault::Operator,
            ),
            (
                told(400, "MANIFEST_INVALID", "manifest invalid"),
                Fault::Unknown,
            ),
        ] {
            assert_eq!(got, (Kind::PushRejected, fault));
        }
        let busy = RegistryError::TooManyRequests {
            host: "h".into(),
            retry_after: None,
        };
        let failure = push_failure(&busy);
        assert_eq!(
            (failure.kind, failure.retryable),
            (Kind::RegistryRateLimited, true)
        );
    }
}

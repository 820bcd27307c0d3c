//! How a build is accepted: claims, inputs, record, dispatch; in this order, so that a server that
//! dies in between leaves nothing that anybody was told of.

use std::sync::Arc;

use crate::backend::{BackendError, Submission, Submitted};
use crate::build::record::CancelMark;
use crate::build::{BuildId, Plan};
use crate::nomad::{Dispatch, NomadError};
use crate::runner::reporter::now_ms;

use super::claims::{self, Attempt, Taken};
use super::cluster::{ChildJob, build_of};
use super::core::Core;
use super::payload::{MAX_INSIDE, Payload};
use super::store::{self, StoreError, Versioned};
use super::stored::{Stored, path};

/// Accepts a build.
///
/// # Errors
/// When the cluster or the registry does not take it; then nothing of it is left.
pub async fn accept(core: &Arc<Core>, submission: Submission) -> Result<Submitted, BackendError> {
    let id = submission.record.id.clone();
    let taken = match claims::take(&core.client, &submission.claims, &id).await? {
        Attempt::Taken(taken) => taken,
        Attempt::Held(record) => {
            // A retry token that came with a repetition is remembered, too.
            if record.request_digest == submission.record.request_digest {
                claims::add(&core.client, &submission.claims, &record.id).await?;
            }
            return Ok(Submitted::Held(record.id));
        }
    };
    match dispatch(core, submission, &taken).await {
        Ok(()) => Ok(Submitted::Accepted),
        Err(Refused::Nothing(error)) => {
            taken.give_back(&core.client).await;
            Err(error)
        }
        // Whoever repeats the call finds the same build, if it is one.
        Err(Refused::Unknown(error)) => Err(error),
    }
}

/// Why a build was not accepted.
enum Refused {
    /// Nothing of it is left.
    Nothing(BackendError),
    /// Nobody knows whether it runs.
    Unknown(BackendError),
}

impl<E: Into<BackendError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Nothing(error.into())
    }
}

async fn dispatch(core: &Arc<Core>, submission: Submission, taken: &Taken) -> Result<(), Refused> {
    let Submission {
        record,
        plan,
        request,
        snapshot,
        ..
    } = submission;
    let id = record.id.clone();
    let (payload, input) = pack(core, &plan, snapshot.as_ref().map(|one| one.path())).await?;
    drop(snapshot);
    let mut stored = Stored::new(record, request);
    stored.input = input;
    let written = match store::create(&core.client, &stored).await {
        Ok(written) => written,
        Err(error) => {
            remove_input(core, &stored).await;
            return Err(error.into());
        }
    };
    let priority = priority(core, &written.stored).await;
    // A server that took long may have lost them to another.
    match taken.are_held(&core.client).await {
        Ok(true) => {}
        Ok(false) => {
            take_back(core, &written).await;
            let text = "it took too long to accept the build; try again";
            return Err(BackendError::Unavailable(text.into()).into());
        }
        Err(error) => {
            take_back(core, &written).await;
            return Err(error.into());
        }
    }
    let parent = core.config.now().nomad.job_of(&plan.profile);
    let dispatch = Dispatch {
        parent: &parent,
        payload: &payload,
        meta: &[],
        token: id.as_str(),
        prefix: id.as_str(),
        priority,
    };
    let job = match core.client.dispatch(&dispatch).await {
        Ok(dispatched) => dispatched.job_id,
        // Nobody knows whether it was dispatched: the list of jobs does.
        Err(error) => match find(core, &parent, &id).await {
            Ok(Some(job)) => job,
            Ok(None) => {
                take_back(core, &written).await;
                return Err(refused(&error, &parent).into());
            }
            // It may run: its record stays, and whoever looks after it finds out.
            Err(_) if error.is_transient() => return Err(Refused::Unknown(error.into())),
            Err(_) => {
                take_back(core, &written).await;
                return Err(refused(&error, &parent).into());
            }
        },
    };
    if build_of(&job).as_ref() != Some(&id) {
        let text = "Nomad gave the job of the build another name than it was asked for";
        return Err(Refused::Unknown(BackendError::Unavailable(text.into())));
    }
    let child = ChildJob {
        id: job,
        status: "pending".into(),
        stop: false,
        index: 0,
    };
    core.books.take(&id, |known| known.take_job(child));
    core.learn(written);
    Ok(())
}

/// Principals take turns where capacity is short: the more unfinished builds one has, the later the next.
/// Little lower is enough for that, and keeps far from what Nomad preempts for another job (10 below it,
/// `preemption.go`).
async fn priority(core: &Core, stored: &Stored) -> Option<u16> {
    const STEPS: usize = 4;
    let record = &stored.record;
    let own = core.books.unfinished(&record.principal, &record.id);
    let parent = core.priority(&record.profile).await?;
    let lower = u16::try_from(own.min(STEPS)).ok()?;
    (lower > 0).then(|| parent.saturating_sub(lower).max(1))
}

fn refused(error: &NomadError, parent: &str) -> BackendError {
    let hint = match error {
        _ if error.is_not_found() => format!(
            "the operator has not registered the job {parent} (see nomad/README.md): {error}"
        ),
        NomadError::Server { text, .. } if text.contains("not found") => format!(
            "the operator has not registered the job {parent} (see nomad/README.md): {error}"
        ),
        _ => error.to_string(),
    };
    BackendError::Unavailable(hint)
}

/// The child job of a build, by its id alone.
async fn find(core: &Core, parent: &str, id: &BuildId) -> Result<Option<String>, NomadError> {
    let prefix = format!("{parent}/dispatch-{id}-");
    let mut jobs = core.client.jobs(&prefix).await?.value;
    jobs.sort_by_key(|job| job.create_index);
    Ok(jobs.into_iter().next().map(|job| job.id))
}

/// What a dispatch carries, and the artifact of what it cannot.
async fn pack(
    core: &Core,
    plan: &Plan,
    context: Option<&std::path::Path>,
) -> Result<(Vec<u8>, Option<String>), BackendError> {
    let mut payload = Payload {
        build_id: plan.build_id.clone(),
        plan: Some(plan.clone()),
        context: None,
        artifact: None,
    };
    let small = match context {
        None => true,
        Some(path) => tokio::fs::metadata(path).await?.len() <= MAX_INSIDE,
    };
    if small {
        if let Some(path) = context {
            payload.context = Some(tokio::fs::read(path).await?);
        }
        if let Some(bytes) = encode(payload.clone()).await? {
            return Ok((bytes, None));
        }
        payload.context = None;
    }
    let Some(shelf) = &core.shelf else {
        return Err(BackendError::Unavailable(
            "the sources are more than a dispatch of Nomad carries (16 KiB, compressed), and the operator has set no \
             nomad.repository for larger ones; build from git instead"
                .into(),
        ));
    };
    // First with the plan inside: most are small.
    let inside = encode(Payload {
        // As long as a reference may be, and as hard to compress.
        artifact: Some(
            std::iter::repeat_with(fastrand::alphanumeric)
                .take(400)
                .collect(),
        ),
        ..payload.clone()
    });
    let plan_outside = inside.await?.is_none().then_some(plan);
    let input = shelf.put_input(&plan.build_id, plan_outside, context, &core.staging);
    let input = input.await.map_err(|error| {
        BackendError::Unavailable(format!("the sources cannot be handed over: {error}"))
    })?;
    if plan_outside.is_some() {
        payload.plan = None;
    }
    payload.artifact = Some(input.clone());
    match encode(payload).await? {
        Some(bytes) => Ok((bytes, Some(input))),
        None => {
            let _ = shelf.remove(&input).await;
            let text = "the payload of the job is larger than Nomad takes";
            Err(BackendError::Unavailable(text.into()))
        }
    }
}

async fn encode(payload: Payload) -> Result<Option<Vec<u8>>, BackendError> {
    tokio::task::spawn_blocking(move || payload.encode())
        .await
        .map_err(|error| BackendError::Unavailable(error.to_string()))
}

/// A build that was not accepted leaves nothing.
async fn take_back(core: &Core, written: &Versioned) {
    remove_input(core, &written.stored).await;
    let id = &written.stored.record.id;
    let removed = core.client.delete_variable(&path(id), written.index).await;
    if let Err(error) = removed {
        tracing::warn!(%error, build = %id, "the record of a build that was not accepted remains");
    }
    core.books.forget(id);
}

async fn remove_input(core: &Core, stored: &Stored) {
    if let (Some(shelf), Some(input)) = (&core.shelf, &stored.input)
        && let Err(error) = shelf.remove(input).await
    {
        tracing::warn!(%error, "the inputs of a build that was not accepted remain");
    }
}

/// Sets the mark of a cancellation; the build's tender does the rest.
///
/// # Errors
/// When the record cannot be read or written.
pub async fn cancel(
    core: &Arc<Core>,
    id: &BuildId,
    mark: CancelMark,
) -> Result<crate::build::record::CancelOutcome, StoreError> {
    let known = core
        .books
        .page(id)
        .map(|page| Arc::unwrap_or_clone(page.record));
    let mark = CancelMark {
        at: now_ms(),
        ..mark
    };
    let change = |stored: &mut Stored| stored.record.request_cancel(mark.clone());
    let (mut outcome, mut written) = store::update(&core.client, id, known.clone(), change).await?;
    if known.is_some_and(|known| known == written) {
        // Nothing was written, so nobody has said whether what is known here is still so.
        (outcome, written) = store::update(&core.client, id, None, change).await?;
    }
    core.learn(written);
    Ok(outcome)
}

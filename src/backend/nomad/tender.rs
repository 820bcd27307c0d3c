//! Looks after one build until there is nothing to do for it any more: asks `decide` after each
//! change, and does what that says.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::ending::ending;
use crate::build::BuildId;
use crate::build::conclude::Gone;
use crate::build::output::OutputStatus;
use crate::build::record::CancelMark;
use crate::log::Progress;
use crate::nomad::NomadError;
use crate::runner::reporter::now_ms;

use super::books::Page;
use super::cluster::{self, ChildJob};
use super::core::Core;
use super::decide::{Action, Decision, Done, decide};
use super::follow;
use super::reason;
use super::store::{self, StoreError, Versioned};
use super::stored::{ArchivedLog, Stored};

/// First pause after something could not be done; it doubles up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Pause after something was done that is not seen to have changed anything yet.
const SETTLE: Duration = Duration::from_millis(50);
/// Longest sleep: clocks may jump.
const LOOK: Duration = Duration::from_secs(60);

/// See the module.
pub async fn tend(core: &Arc<Core>, id: &BuildId) {
    let mut ready = core.books.ready();
    let mut changed = core.books.subscribe(id);
    let mut done = Done::default();
    let mut pause = PAUSE;
    loop {
        // Nothing is decided on half of what there is to know.
        if ready.wait_for(|ready| ready.cluster).await.is_err() {
            return;
        }
        changed.borrow_and_update();
        let Some(page) = core.books.page(id) else {
            return;
        };
        let stored = &page.record.stored;
        let never = Box::pin(never(core, &page)).await;
        let now = now_ms();
        done.never_since = never.as_ref().and(done.never_since.or(Some(now)));
        let allocation = page.known.allocation(stored.allocation.as_deref());
        let over = allocation.is_some_and(cluster::is_archiving);
        done.over_since = if over {
            done.over_since.or(Some(now))
        } else {
            None
        };
        let live = core.config.now();
        let (known, config) = (&page.known, &live.nomad);
        let decision = decide(
            stored,
            known,
            page.seen,
            never.as_deref(),
            done,
            now,
            config,
        );
        let result = match decision {
            Decision::Wait(until) => {
                let sleep = u64::try_from(until - now_ms()).unwrap_or(0);
                let sleep = Duration::from_millis(sleep.max(1)).min(LOOK);
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(sleep) => {}
                }
                continue;
            }
            Decision::Act(Action::Forget) => {
                core.books.leave(id);
                return;
            }
            // Boxed: most of the time a tender waits, and there are as many as builds.
            Decision::Act(action) => Box::pin(act(core, page, action, &mut done)).await,
        };
        match result {
            // Nothing may be done over and over without anything having changed.
            Ok(()) if !changed.has_changed().unwrap_or(false) => {
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(SETTLE) => {}
                }
            }
            Ok(()) => pause = PAUSE,
            Err(StoreError::NotFound(_)) => {
                core.books.forget(id);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, build = %id, "a build cannot be looked after");
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST);
            }
        }
    }
}

/// Why no machine can ever take a build that waits, if that is so.
async fn never(core: &Core, page: &Page) -> Option<String> {
    let record = &page.record.stored.record;
    if record.cancel.is_some() || record.end.is_some() {
        return None;
    }
    let blocked = page.known.blocked.as_ref()?;
    let capacity = core.capacity(&page.record.stored.record.profile).await;
    reason::never(blocked, capacity.as_ref())
}

async fn act(
    core: &Arc<Core>,
    page: Page,
    action: Action,
    done: &mut Done,
) -> Result<(), StoreError> {
    let id = page.record.stored.record.id.clone();
    let id = &id;
    match action {
        Action::Begin {
            job,
            allocation,
            at,
        } => {
            let begin = |stored: &mut Stored| stored.begin(&job, &allocation, at);
            let (_, written) = store::update(
                &core.client,
                id,
                Some(Arc::unwrap_or_clone(page.record)),
                begin,
            )
            .await?;
            core.learn(written);
        }
        Action::Signal { allocation, task } => {
            done.signalled = Some(now_ms());
            match core.client.signal(&allocation, task, "SIGTERM").await {
                Ok(arrived) => tracing::debug!(build = %id, task, arrived, "told to stop"),
                // It is told again, and after its grace its job is stopped.
                Err(error) => tracing::warn!(%error, build = %id, "a build cannot be told to stop"),
            }
        }
        Action::Deregister { job } => match core.client.deregister(&job).await {
            Ok(()) => done.deregistered = true,
            Err(error) if error.is_denied() => {
                tracing::warn!(%error, build = %id, "its runner ends on its own");
                done.refused = Some(now_ms());
            }
            Err(error) => return Err(error.into()),
        },
        Action::Finish { gone, stopped } => finish(core, page, gone, stopped).await?,
        Action::FindLog => find_log(core, Arc::unwrap_or_clone(page.record)).await?,
        Action::RemoveInput => remove_input(core, Arc::unwrap_or_clone(page.record)).await?,
        Action::Forget => {}
    }
    Ok(())
}

/// Writes the end, if what it was decided on is still so; else it is decided again.
async fn finish(core: &Arc<Core>, page: Page, gone: Gone, stopped: bool) -> Result<(), StoreError> {
    let before = &page.record.stored;
    let id = &before.record.id;
    // The task `archive` was faster, as it mostly is; or something else has happened.
    let fresh = store::read(&core.client, id).await?;
    if fresh.stored != *before {
        core.learn(fresh);
        return Ok(());
    }
    let placed = page.known.allocation(before.allocation.as_deref());
    if placed.is_none() && ask(core, before).await? {
        return Ok(());
    }
    let (progress, missing) = read_log(core, id, &fresh.stored).await;
    let change = |stored: &mut Stored| {
        if *stored != fresh.stored {
            return;
        }
        let record = &mut stored.record;
        if stopped {
            record.request_cancel(CancelMark {
                by: "unknown".into(),
                reason: Some("somebody stopped its Nomad job".into()),
                at: now_ms(),
            });
        }
        record.finish(ending(record, &progress, gone.clone(), now_ms()));
        if let (None, Some(missing)) = (&stored.log, &missing) {
            stored.log = Some(ArchivedLog {
                artifact: None,
                lines: progress.lines,
                missing: Some((*missing).to_owned()),
            });
        }
    };
    let ((), written) = store::update(&core.client, id, Some(fresh.clone()), change).await?;
    core.learn(written);
    Ok(())
}

/// That nothing of a build was told is no proof that there is nothing: asks the cluster itself. `true`:
/// there was something.
async fn ask(core: &Core, stored: &Stored) -> Result<bool, StoreError> {
    let record = &stored.record;
    let parent = core.config.now().nomad.job_of(&record.profile);
    let prefix = format!("{parent}/dispatch-{}-", record.id);
    let mut news = false;
    for job in core.client.jobs(&prefix).await?.value {
        for allocation in core.client.job_allocations(&job.id).await? {
            core.books.take(&record.id, |known| {
                news |= known.take_allocation(allocation, now_ms());
                true
            });
        }
        core.books.take(&record.id, |known| {
            news |= known.job.is_none() && known.take_job(ChildJob::from(&job));
            true
        });
    }
    Ok(news)
}

/// What the log tells at the end, and what of it could not be read.
async fn read_log(
    core: &Arc<Core>,
    id: &BuildId,
    stored: &Stored,
) -> (Progress, Option<&'static str>) {
    let page = core.books.page(id);
    let known = page.map(|page| page.known).unwrap_or_default();
    let allocation = known.allocation(stored.allocation.as_deref());
    let Some(allocation) = allocation.filter(|one| cluster::began(one).is_some()) else {
        let lost = stored.record.began.is_some();
        let kept = core.spool.log(id).lock().await.progress.clone();
        return (kept, lost.then_some("its allocation is gone"));
    };
    let log = core.spool.log(id);
    let mut log = log.lock().await;
    let read = follow::advance_ended(core, allocation, &mut log).await;
    let missing = read.err().map(|error| {
        tracing::warn!(%error, build = %id, "the log of an ended build cannot be read to its end");
        match error {
            error if follow::is_collected(&error) => "its allocation was collected",
            NomadError::Denied { .. } => "Nomad does not let the server read it (read-logs)",
            _ => "its machine does not answer",
        }
    });
    (log.progress.clone(), missing)
}

async fn find_log(core: &Arc<Core>, record: Versioned) -> Result<(), StoreError> {
    let stored = &record.stored;
    let id = stored.record.id.clone();
    let allocation = stored.allocation.clone().unwrap_or_default();
    let mut log = ArchivedLog {
        artifact: None,
        lines: stored.record.end.as_ref().map_or(0, |end| end.log_lines),
        missing: None,
    };
    if let Some(shelf) = &core.shelf {
        match shelf.find_log(&id, &allocation).await {
            Ok(Some(artifact)) => log.artifact = Some(artifact),
            Ok(None) => log.missing = Some("it was not archived".into()),
            Err(error) => {
                tracing::warn!(%error, build = %id, "an archived log cannot be looked for");
                log.missing = Some("it could not be archived".into());
            }
        }
    }
    let lost = lost_outputs(core, stored, &id, &allocation).await;
    let found = |stored: &mut Stored| {
        stored.log.get_or_insert_with(|| log.clone());
        stored.lose_outputs(&lost);
    };
    let ((), written) = store::update(&core.client, &id, Some(record), found).await?;
    core.learn(written);
    Ok(())
}

/// What a build of which its last task could not write any more has not brought into the registry.
async fn lost_outputs(
    core: &Arc<Core>,
    stored: &Stored,
    id: &BuildId,
    allocation: &str,
) -> Vec<OutputStatus> {
    let told = stored.record.end.iter().flat_map(|end| &end.outputs);
    let told: Vec<OutputStatus> = told.filter(|one| one.is_there()).cloned().collect();
    let Some(shelf) = core.shelf.as_ref().filter(|_| !told.is_empty()) else {
        return told;
    };
    match shelf.has_outputs(id, allocation).await {
        Ok(true) => Vec::new(),
        Ok(false) => told,
        Err(error) => {
            tracing::warn!(%error, build = %id, "outputs cannot be looked for");
            Vec::new()
        }
    }
}

async fn remove_input(core: &Arc<Core>, record: Versioned) -> Result<(), StoreError> {
    let id = record.stored.record.id.clone();
    if let (Some(shelf), Some(input)) = (&core.shelf, &record.stored.input)
        && let Err(error) = shelf.remove(input).await
    {
        // Many registries remove nothing: then their own retention has to.
        tracing::warn!(%error, build = %id, "the inputs of an ended build cannot be removed");
    }
    let forget = |stored: &mut Stored| stored.input = None;
    let ((), written) = store::update(&core.client, &id, Some(record), forget).await?;
    core.learn(written);
    Ok(())
}

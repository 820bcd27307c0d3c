//! Reads the logs of running builds, for as long as somebody is interested.
//!
//! Some builds are followed, each over a connection of its own; where there are more than Nomad
//! would take connections for, the others are read every few seconds. Either way what a build costs
//! does not depend on how many ask for it, or how often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::build::BuildId;
use crate::nomad::{Allocation, Follower, NomadError, Position, Stream};

use super::cluster::{BUILD, PUBLISH, is_over, task};
use super::core::Core;
use super::spool::Spooled;

/// For how long a build is followed after somebody asked for it last.
const INTEREST: Duration = Duration::from_secs(60);
/// How often a build is read that cannot be followed.
const READ_EVERY: Duration = Duration::from_secs(3);
/// How often the interest is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Somebody who follows a build.
#[derive(Debug)]
pub struct Handle {
    /// When somebody asked for the build last.
    asked: Instant,
    /// What was there when it began has been read.
    live: watch::Receiver<bool>,
}

/// Somebody is interested in a build that runs. Returns when what it had said before has been read,
/// or after `patience`.
pub async fn want(core: &Arc<Core>, id: &BuildId, patience: Duration) {
    let mut live = core.with_followers(|followers| {
        if let Some(handle) = followers.get_mut(id) {
            handle.asked = Instant::now();
            return handle.live.clone();
        }
        let (tell, live) = watch::channel(false);
        let handle = Handle {
            asked: Instant::now(),
            live: live.clone(),
        };
        followers.insert(id.clone(), handle);
        let (core_of, id) = (Arc::clone(core), id.clone());
        core.spawn(async move {
            follow(&core_of, &id, &tell).await;
            core_of.with_followers(|followers| followers.remove(&id));
            tell.send_replace(true);
        });
        live
    });
    let _ = tokio::time::timeout(patience, live.wait_for(|live| *live)).await;
}

fn is_wanted(core: &Core, id: &BuildId) -> bool {
    core.with_followers(|followers| {
        let handle = followers.get(id);
        handle.is_some_and(|handle| handle.asked.elapsed() < INTEREST)
    })
}

async fn follow(core: &Arc<Core>, id: &BuildId, live: &watch::Sender<bool>) {
    let mut is_told = false;
    let mut changed = core.books.subscribe(id);
    while is_wanted(core, id) {
        changed.borrow_and_update();
        let Some(allocation) = core.allocation(id) else {
            // It has said nothing yet.
            live.send_replace(true);
            if !wait(&mut changed).await {
                return;
            }
            continue;
        };
        let log = core.spool.log(id);
        // Boxed, like what follows: most of those that are interested wait.
        let read = Box::pin(advance(core, &allocation, &mut *log.lock().await)).await;
        if let Err(error) = read {
            tell(&error, id, &mut is_told);
        }
        publish(core, id).await;
        live.send_replace(true);
        if is_over(&allocation, BUILD) && is_over(&allocation, PUBLISH) {
            return;
        }
        let current = [BUILD, PUBLISH]
            .into_iter()
            .find(|task| !is_over(&allocation, task));
        let Some(current) = current else { return };
        let begun = task(&allocation, current).is_some_and(|task| task.has_started());
        if !begun || !log.lock().await.is_next(current) {
            if !wait(&mut changed).await {
                return;
            }
            continue;
        }
        match core.followed.try_acquire() {
            Ok(_permit) => {
                let followed = Box::pin(follow_task(core, id, &allocation, current)).await;
                if let Err(error) = followed {
                    tracing::debug!(%error, build = %id, "a log cannot be followed");
                    tokio::time::sleep(READ_EVERY).await;
                }
            }
            Err(_) => tokio::time::sleep(READ_EVERY).await,
        }
    }
}

/// Most of what keeps a log from being read passes; a right that is missing does not, and is told once.
fn tell(error: &NomadError, id: &BuildId, is_told: &mut bool) {
    if error.is_denied() && !std::mem::replace(is_told, true) {
        tracing::warn!(%error, build = %id, "a log cannot be read");
    } else {
        tracing::debug!(%error, build = %id, "a log cannot be read");
    }
}

/// Waits for a change; `false`: the build is not known any more.
async fn wait(changed: &mut watch::Receiver<u64>) -> bool {
    !matches!(
        tokio::time::timeout(LOOK, changed.changed()).await,
        Ok(Err(_))
    )
}

/// Follows one task to its end, or as long as somebody is interested.
async fn follow_task(
    core: &Arc<Core>,
    id: &BuildId,
    allocation: &Allocation,
    task: &'static str,
) -> Result<(), NomadError> {
    let log = core.spool.log(id);
    let offset = log.lock().await.offset(task);
    let (tell, dead) = watch::channel(false);
    let mut follower = Follower::new(
        core.client.clone(),
        &allocation.id,
        task,
        Stream::Stdout,
        offset,
        dead,
    );
    let mut changed = core.books.subscribe(id);
    let mut look = tokio::time::interval(LOOK);
    loop {
        let chunk = {
            // Never given up in the middle: what it has read would be lost.
            let next = follower.next_chunk();
            tokio::pin!(next);
            loop {
                let over = core
                    .allocation(id)
                    .is_none_or(|allocation| is_over(&allocation, task));
                tell.send_if_modified(|dead| !std::mem::replace(dead, over || *dead) && over);
                tokio::select! {
                    chunk = &mut next => break chunk?,
                    changed = changed.changed() => if changed.is_err() {
                        return Ok(());
                    },
                    _ = look.tick() => if !is_wanted(core, id) {
                        return Ok(());
                    },
                }
            }
        };
        let Some(bytes) = chunk else {
            return Ok(());
        };
        let mut log = log.lock().await;
        if log.offset(task) + bytes.len() as u64 == follower.offset() {
            append(&mut log, task, &bytes)?;
        } else {
            // Somebody else has read on meanwhile; the next round begins where that ended.
            return Ok(());
        }
        drop(log);
        publish(core, id).await;
    }
}

/// What the log tells is for everybody.
async fn publish(core: &Core, id: &BuildId) {
    let log = core.spool.log(id);
    let progress = log.lock().await.progress.clone();
    core.books.set_progress(id, progress);
}

fn append(log: &mut Spooled, task: &'static str, bytes: &[u8]) -> Result<(), NomadError> {
    log.append(task, bytes)
        .map_err(|error| NomadError::Setup(format!("the spool of logs: {error}")))
}

/// Reads on to what there is now, of each task that has begun.
///
/// # Errors
/// When the client does not answer, or keeps nothing of it any more.
pub async fn advance(
    core: &Core,
    allocation: &Allocation,
    log: &mut Spooled,
) -> Result<(), NomadError> {
    let begun = |name: &&str| task(allocation, name).is_some_and(|task| task.has_started());
    read(
        core,
        allocation,
        log,
        [BUILD, PUBLISH].into_iter().filter(begun),
    )
    .await
}

/// The same for a build that has ended: a client tells what its tasks do a little later than they do it.
///
/// # Errors
/// As of [`advance`].
pub async fn advance_ended(
    core: &Core,
    allocation: &Allocation,
    log: &mut Spooled,
) -> Result<(), NomadError> {
    read(core, allocation, log, [BUILD]).await?;
    match read(core, allocation, log, [PUBLISH]).await {
        Err(NomadError::NotFound { text, .. }) if text.contains("not started yet") => Ok(()),
        other => other,
    }
}

/// Whether a log cannot be read because its allocation, or its directory on the node, was collected.
pub fn is_collected(error: &NomadError) -> bool {
    matches!(error, NomadError::NotFound { text, .. } if text.contains("llocation"))
}

async fn read(
    core: &Core,
    allocation: &Allocation,
    log: &mut Spooled,
    tasks: impl IntoIterator<Item = &'static str>,
) -> Result<(), NomadError> {
    let _permit = core.read.acquire().await;
    for name in tasks {
        if !log.is_next(name) {
            continue;
        }
        let position = Position {
            offset: log.offset(name),
            follow: false,
        };
        let client = &core.client;
        let opened = client.logs(&allocation.id, name, Stream::Stdout, position);
        let mut stream = opened.await?;
        let mut first = position.offset == 0;
        while let Some(chunk) = stream.next_chunk().await? {
            if std::mem::take(&mut first) && chunk.file.is_some_and(|file| file > 0) {
                log.headless = true;
            }
            append(log, name, &chunk.data)?;
        }
    }
    Ok(())
}

//! How this server learns what happens: two connections for all builds, whoever asks how often.
//!
//! ```text
//! records   a list of the variables that waits for a change ─▶ those that changed are read
//! cluster   the event stream; after each connection also lists, so that nothing is missed
//! ```
//! What comes twice, or out of order, is sorted out by its index (`cluster`, `books`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use crate::build::BuildId;
use crate::nomad::{Event, Frame, NomadError, Topic};
use crate::runner::reporter::now_ms;

use super::cluster::{ChildJob, Known, build_of};
use super::core::Core;
use super::store::{self, StoreError};
use super::stored::{self, BUILDS};

/// How long a list of records waits for a change.
const WAIT: Duration = Duration::from_secs(60);
/// Changes closer together than this are read together.
const COALESCE: Duration = Duration::from_millis(50);
/// A record that no build has.
const NOBODYS: &str = "nomad-build/b/nobody";
/// Records that are read at the same time.
const AT_ONCE: usize = 16;
const TOPICS: &[Topic] = &[Topic::Job, Topic::Allocation, Topic::Evaluation];

/// Pauses after failures: longer each time, up to a bound, with jitter.
#[derive(Debug, Default)]
struct Pause(u32);

impl Pause {
    async fn after(&mut self, what: &str, error: &NomadError) {
        // Once is enough to say; the rest is for who looks closely.
        if self.0 == 0 {
            tracing::warn!(%error, "{what} cannot be read");
        } else {
            tracing::debug!(%error, "{what} cannot be read");
        }
        let pause = Duration::from_millis(100 << self.0.min(6));
        self.0 += 1;
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }

    fn over(&mut self, what: &str) {
        if std::mem::take(&mut self.0) > 0 {
            tracing::info!("{what} can be read again");
        }
    }
}

/// Keeps the records up to date.
pub async fn records(core: &Arc<Core>) {
    let mut index = 0;
    let mut pause = Pause::default();
    loop {
        let listed = match core.client.variables(BUILDS, index, WAIT).await {
            // Where the right is missing Nomad lists nothing, and says so only to whoever reads.
            Ok(list) if list.value.is_empty() => core.client.variable(NOBODYS).await.map(|_| list),
            listed => listed,
        };
        match listed {
            Ok(list) => {
                pause.over("the list of records");
                let mut there = HashSet::new();
                let mut changed = Vec::new();
                for stub in &list.value {
                    let Some(id) = stored::build_of(&stub.path) else {
                        continue;
                    };
                    if core.books.index(&id) < stub.modify_index {
                        changed.push(id.clone());
                    }
                    there.insert(id);
                }
                core.books.retain(&there, list.index);
                read_all(core, changed).await;
                core.books.set_ready(|ready| ready.records = true);
                // A restored cluster begins with lower indexes again.
                if list.index < index {
                    core.books.restart();
                    index = 0;
                } else {
                    index = list.index.max(1);
                }
                tokio::time::sleep(COALESCE).await;
            }
            Err(error) => {
                core.books.set_ready(|ready| ready.records = false);
                pause.after("the list of records", &error).await;
            }
        }
    }
}

async fn read_all(core: &Arc<Core>, ids: Vec<BuildId>) {
    let reads = futures_util::stream::iter(ids).map(|id| async move {
        let read = store::read(&core.client, &id).await;
        (id, read)
    });
    let mut reads = reads.buffer_unordered(AT_ONCE);
    while let Some((id, read)) = reads.next().await {
        match read {
            Ok(record) => core.learn(record),
            Err(StoreError::NotFound(_)) => core.books.forget(&id),
            Err(error) => tracing::error!(%error, build = %id, "a record cannot be read"),
        }
    }
}

/// Keeps what the cluster tells up to date.
pub async fn cluster(core: &Arc<Core>) {
    let mut last = 0;
    let mut pause = Pause::default();
    loop {
        let error = match follow(core, &mut last, &mut pause).await {
            Ok(()) => NomadError::Unreachable {
                address: core.client.address().to_owned(),
                why: "the event stream has ended".into(),
                unsent: false,
            },
            Err(error) => error,
        };
        core.books.set_ready(|ready| ready.cluster = false);
        pause.after("the event stream", &error).await;
    }
}

async fn follow(core: &Arc<Core>, last: &mut u64, pause: &mut Pause) -> Result<(), NomadError> {
    // Of a stream that may not be read Nomad says so only after half a minute; of a list at once.
    let (mut stream, _) = tokio::try_join!(
        core.client.events(TOPICS, *last),
        core.client.blocked_evaluations()
    )?;
    // Only now: what happens meanwhile waits in the stream.
    catch_up(core).await?;
    core.books.set_ready(|ready| {
        ready.cluster = true;
        ready.cluster_once = true;
    });
    pause.over("the event stream");
    while let Some(frame) = stream.next_frame().await? {
        *last = (*last).max(frame.index);
        take(core, frame);
    }
    Ok(())
}

fn take(core: &Core, frame: Frame) {
    let now = now_ms();
    for event in frame.events {
        take_event(core, event, now);
    }
}

fn take_event(core: &Core, event: Event, now: i64) {
    if let Some(job) = &event.payload.job
        && let Some(id) = build_of(&job.id)
    {
        let mut child = ChildJob::from(job);
        // A purged job is told as it was before.
        let purged = event.kind == "JobDeregistered" && !job.stop;
        child.index = child.index.max(event.index);
        core.books.take(&id, |known| {
            let own = known.job.as_ref().is_none_or(|known| known.id == child.id);
            let news = known.take_job(child);
            (purged && own && known.lose_job(now)) || news
        });
    }
    if let Some(allocation) = event.payload.allocation
        && let Some(id) = build_of(&allocation.job_id)
    {
        core.books
            .take(&id, |known| known.take_allocation(allocation, now));
    }
    if let Some(evaluation) = event.payload.evaluation
        && let Some(id) = build_of(&evaluation.job_id)
    {
        core.books
            .take(&id, |known| known.take_evaluation(evaluation));
    }
}

/// Reads everything as it is now.
async fn catch_up(core: &Core) -> Result<(), NomadError> {
    let now = now_ms();
    let prefix = format!("{}-", core.config.now().nomad.job);
    let jobs = core.client.jobs(&prefix).await?;
    let mut there = HashSet::new();
    for job in &jobs.value {
        if let Some(id) = build_of(&job.id) {
            there.insert(job.id.clone());
            core.books
                .take(&id, |known| known.take_job(ChildJob::from(job)));
        }
    }
    for allocation in core.client.allocations().await?.value {
        if let Some(id) = build_of(&allocation.job_id) {
            core.books
                .take(&id, |known| known.take_allocation(allocation, now));
        }
    }
    for evaluation in core.client.blocked_evaluations().await?.value {
        if let Some(id) = build_of(&evaluation.job_id) {
            core.books
                .take(&id, |known| known.take_evaluation(evaluation));
        }
    }
    core.books.take_all(|_, known: &mut Known| {
        let gone = known
            .job
            .as_ref()
            // One of index 0 was just dispatched by this server.
            .is_some_and(|job| (1..=jobs.index).contains(&job.index) && !there.contains(&job.id));
        gone && known.lose_job(now)
    });
    Ok(())
}

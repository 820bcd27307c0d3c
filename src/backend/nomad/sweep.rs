//! How long ended builds are kept: their records, their logs, and what claims them.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::runner::lock::try_lock;
use crate::runner::reporter::now_ms;

use super::books::Page;
use super::claims;
use super::core::Core;
use super::stored::path;
use super::task::archive::outputs_tag;

const DAY: i64 = 24 * 60 * 60 * 1000;
/// No claim lasts longer, in milliseconds.
const CLAIMS_LAST: i64 = DAY + 60 * 60 * 1000;
/// Builds accepted within this time are swept after together.
const TOGETHER: Duration = Duration::from_secs(2);
/// How often it is swept where nobody builds.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Sweeps for as long as the server lives: after each build that was accepted, and once in a while.
pub async fn run(core: &Arc<Core>, mut wanted: tokio::sync::mpsc::Receiver<()>) {
    let mut ready = core.books.ready();
    let mut swept = None;
    loop {
        if ready.wait_for(|ready| ready.records).await.is_err() {
            return;
        }
        builds(core).await;
        core.books.tidy();
        if swept.is_none_or(|at: Instant| at.elapsed() >= EVERY) {
            swept = Some(Instant::now());
            if let Err(error) = claims::sweep(&core.client, CLAIMS_LAST).await {
                tracing::warn!(%error, "old claims cannot be removed");
            }
        }
        let _ = tokio::time::timeout(EVERY, wanted.recv()).await;
        // Many builds may be accepted at once.
        tokio::time::sleep(TOGETHER).await;
    }
}

/// Removes what servers that were killed were about to hand over.
///
/// # Errors
/// When it cannot be read or removed.
pub fn staging(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        if metadata.is_dir() {
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            // No push of inputs takes so long; a server that pushes does not hold the directory.
            if age > EVERY {
                fs::remove_dir_all(path)?;
            }
        } else if try_lock(&path)?.is_some() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

async fn builds(core: &Core) {
    let mut ended: Vec<(i64, Page)> = Vec::new();
    for page in core.books.pages() {
        if let Some(end) = &page.record.stored.record.end {
            ended.push((end.at, page));
        }
    }
    ended.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let config = core.config.now();
    let config = &config.nomad;
    let oldest = now_ms() - i64::from(config.keep_days) * DAY;
    for (position, (at, page)) in ended.into_iter().enumerate() {
        if position >= config.keep_builds as usize || at < oldest {
            remove(core, page).await;
        }
    }
}

async fn remove(core: &Core, page: Page) {
    let stored = &page.record.stored;
    let id = &stored.record.id;
    if let Some(shelf) = &core.shelf {
        for artifact in stored
            .input
            .as_deref()
            .into_iter()
            .chain(stored.log_artifact())
        {
            if let Err(error) = shelf.remove(artifact).await {
                tracing::warn!(%error, build = %id, "an artifact of an old build cannot be removed");
            }
        }
    }
    let end = stored.record.end.as_ref();
    if end.is_some_and(|end| end.outputs.iter().any(|output| output.is_there()))
        && let (Some(shelf), Some(allocation)) = (&core.shelf, &stored.allocation)
        && let Err(error) = shelf.remove_tagged(&outputs_tag(id, allocation)).await
    {
        tracing::warn!(%error, build = %id, "the outputs of an old build cannot be removed");
    }
    match core
        .client
        .delete_variable(&path(id), page.record.index)
        .await
    {
        Ok(crate::nomad::Written::Done(_)) => {
            core.books.forget(id);
            core.spool.forget(id);
        }
        // Somebody has changed it: the next sweep looks again.
        Ok(crate::nomad::Written::Conflict(_)) => {}
        Err(error) => tracing::warn!(%error, build = %id, "an old build cannot be removed"),
    }
}

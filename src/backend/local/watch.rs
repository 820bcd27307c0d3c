//! Waiting for files to change (inotify), with coalesced events.

use std::path::Path;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Tells when something in one of a few directories changes.
///
/// A user has few inotify instances (`fs.inotify.max_user_instances`): without one it tells nothing,
/// and whoever waits relies on the tick beside it.
pub struct DirWatch {
    watching: Option<(RecommendedWatcher, mpsc::Receiver<()>)>,
}

impl DirWatch {
    /// Watches these directories, not what is below them.
    pub fn new(dirs: &[&Path]) -> Self {
        let watching = watch(dirs)
            .inspect_err(|error| tracing::warn!(%error, "files cannot be watched"))
            .ok();
        Self { watching }
    }

    /// Whether changes are told.
    pub fn is_watching(&self) -> bool {
        self.watching.is_some()
    }

    /// Returns when something changed since the last call.
    pub async fn changed(&mut self) {
        let told = match &mut self.watching {
            Some((_, events)) => events.recv().await,
            None => None,
        };
        if told.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn watch(dirs: &[&Path]) -> notify::Result<(RecommendedWatcher, mpsc::Receiver<()>)> {
    let (tell, events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is no change; one pending event stands for all.
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = tell.try_send(());
        }
    })?;
    for dir in dirs {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
    }
    Ok((watcher, events))
}

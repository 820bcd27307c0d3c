//! Waiting for files to change (inotify), with coalesced events.

use std::io;
use std::path::Path;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Tells when something in one of a few directories changes.
pub struct DirWatch {
    _watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
}

impl DirWatch {
    /// Watches these directories, not what is below them.
    ///
    /// # Errors
    /// When one cannot be watched.
    pub fn new(dirs: &[&Path]) -> io::Result<Self> {
        let (tell, events) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading a file is no change; one pending event stands for all.
                if event.map_or(true, |event| !event.kind.is_access()) {
                    let _ = tell.try_send(());
                }
            })
            .map_err(io::Error::other)?;
        for dir in dirs {
            watcher
                .watch(dir, RecursiveMode::NonRecursive)
                .map_err(io::Error::other)?;
        }
        Ok(Self {
            _watcher: watcher,
            events,
        })
    }

    /// Returns when something changed since the last call.
    pub async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            // The watcher is gone; whoever waits has a tick beside it.
            std::future::pending::<()>().await;
        }
    }
}

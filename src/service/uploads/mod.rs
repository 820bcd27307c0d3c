//! What callers elsewhere upload for their builds, and the tickets that let them.

mod disk;
mod intake;
mod tickets;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backend::Depot;
use crate::backend::uploads::{Uploads, key};
use crate::runner::reporter::now_ms;
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;

use super::{Principal, Service, ToolError};
use disk::Scratch;
use tickets::Doorkeeper;
use turns::{Queues, UnderWay};

/// How often a note is written against others who write it.
const ATTEMPTS: u32 = 50;
/// How often it is looked for what is over.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Uploads that are packed or unpacked at the same time.
const PACKING: usize = 4;

/// An upload that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uploaded {
    /// What `source.context` takes: `sha256:…`.
    pub context: String,
    /// Length of the tar that is kept.
    pub bytes: u64,
    /// Files and links in it.
    pub files: u64,
    /// Until it is removed.
    pub expires_in_seconds: u32,
}

/// What uploads share.
#[derive(Debug)]
pub(super) struct Uploading {
    under_way: UnderWay,
    unpacking: Queues,
    door: Doorkeeper,
    /// Held by whoever packs or unpacks: many at once are not faster.
    disk: Arc<Semaphore>,
}

impl Default for Uploading {
    fn default() -> Self {
        Self {
            under_way: UnderWay::default(),
            unpacking: Queues::default(),
            door: Doorkeeper::default(),
            disk: Arc::new(Semaphore::new(PACKING)),
        }
    }
}

impl Service {
    /// Whether callers may upload.
    pub fn takes_uploads(&self) -> bool {
        !self.paths && self.backend.depot().is_some()
    }

    fn depot(&self) -> Result<&dyn Depot, ToolError> {
        let depot = self.backend.depot().filter(|_| !self.paths);
        depot.ok_or_else(|| {
            ToolError::one(ArgFault::new(
                ErrorCode::NotAllowed,
                "archive",
                "this server takes no uploads",
            ))
        })
    }

    /// Changes a note. What is over is forgotten on the way, and the places that this gives up are cleared.
    async fn change<T>(
        &self,
        key: &str,
        mut change: impl FnMut(&mut Uploads) -> T,
    ) -> Result<T, ToolError> {
        let changed = self.write(key, |uploads| {
            let before = uploads.over.clone();
            uploads.sweep(now_ms());
            let answer = change(uploads);
            let fresh = uploads.over.iter().filter(|one| !before.contains(one));
            (answer, fresh.cloned().collect())
        });
        let (answer, fresh): (T, Vec<String>) = changed.await?;
        self.clear(key, fresh).await;
        Ok(answer)
    }

    /// Writes a note: nobody else writes between reading and writing.
    async fn write<T>(
        &self,
        key: &str,
        mut change: impl FnMut(&mut Uploads) -> T,
    ) -> Result<T, ToolError> {
        let depot = self.depot()?;
        for _ in 0..ATTEMPTS {
            let (before, version) = depot.note(key).await?;
            let mut after = before.clone();
            let answer = change(&mut after);
            if after == before || depot.write(key, &after, version).await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..40))).await;
        }
        Err(ToolError::internal(
            "the uploads of this principal are changed by too many at the same time",
        ))
    }

    /// Clears places that a note has given up. It forgets those alone that are clear: for the others it is
    /// tried again.
    async fn clear(&self, key: &str, places: Vec<String>) {
        let Ok(depot) = self.depot() else { return };
        let mut clear = Vec::new();
        for place in places {
            match depot.clear(&place).await {
                Ok(()) => clear.push(place),
                Err(error) => tracing::warn!(%error, place, "an upload cannot be removed"),
            }
        }
        if clear.is_empty() {
            return;
        }
        let noted = self.write(key, |uploads| uploads.cleared(&clear)).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "it cannot be noted that uploads are removed");
        }
    }

    /// Does something that blocks for long. Its turn lasts for as long as it does it, whoever waits.
    pub(super) async fn at_the_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ToolError> {
        let turn = Arc::clone(&self.uploading.disk).acquire_owned().await;
        let turn = turn.map_err(ToolError::internal)?;
        let work = move || {
            let _turn = turn;
            work()
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(ToolError::internal)
    }

    /// Unpacks the upload that a digest or a ticket names, when it is this principal's turn.
    ///
    /// # Errors
    /// When this principal has none of that name.
    pub(super) async fn unpacked(
        &self,
        principal: &Principal,
        name: &str,
    ) -> Result<Unpacked, ToolError> {
        let depot = self.depot()?;
        let turn = self.uploading.unpacking.turn(principal).await?;
        let (uploads, _) = depot.note(&key(&principal.0)).await?;
        let context = uploads.find(name, now_ms());
        let context = context.ok_or_else(|| missing(&uploads, name))?;
        let scratch = Scratch::new(depot).map_err(ToolError::internal)?;
        depot.fetch(&context.place, &scratch.tar()).await?;
        let unpacked = Unpacked {
            digest: context.digest.clone(),
            scratch,
            _turn: turn,
        };
        let unpack = move || {
            let done = disk::unpack(&unpacked.scratch, &unpacked.digest);
            done.map(|()| unpacked)
        };
        self.at_the_disk(unpack).await?.map_err(ToolError::internal)
    }

    /// Removes uploads whose time is over, for as long as the server lives.
    pub async fn look_after_uploads(&self) {
        loop {
            if let Err(error) = self.sweep_uploads().await {
                tracing::warn!(%error, "old uploads cannot be removed");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn sweep_uploads(&self) -> Result<(), ToolError> {
        let depot = self.depot()?;
        let dir = depot.scratch().to_owned();
        let swept = self.at_the_disk(move || disk::sweep(&dir, SystemTime::now()));
        swept.await?;
        for key in depot.keys().await? {
            let over = |uploads: &mut Uploads| {
                uploads.sweep(now_ms());
                uploads.over.clone()
            };
            match self.write(&key, over).await {
                Ok(over) => self.clear(&key, over).await,
                Err(error) => tracing::warn!(%error, key, "a note of uploads cannot be swept"),
            }
        }
        Ok(())
    }
}

fn missing(uploads: &Uploads, name: &str) -> ToolError {
    if uploads.awaits(name, now_ms()) {
        let problem = "nothing has come by this ticket yet";
        return ToolError::not_found("source.context", problem, name)
            .expecting("to run the line first that the ticket was given in");
    }
    let problem = "you have no such upload, or its time is over, or later ones needed its room";
    ToolError::not_found("source.context", problem, name)
        .expecting("the digest or the ticket of an upload: PUT /v1/contexts")
}

/// An upload as a directory, and the turn that its principal has with it.
pub(super) struct Unpacked {
    /// Of the upload.
    pub digest: String,
    scratch: Scratch,
    _turn: OwnedSemaphorePermit,
}

impl Unpacked {
    /// Its root.
    pub fn root(&self) -> PathBuf {
        self.scratch.tree()
    }

    /// Removes it. Blocks.
    pub fn remove(self) {
        self.scratch.remove();
    }
}

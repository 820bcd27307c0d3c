//! An upload comes in: written down, looked through, brought to its place.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;

use crate::backend::Depot;
use crate::backend::uploads::{Context, Full, Uploads, key};
use crate::context::{Limits, Snapshot};
use crate::runner::reporter::now_ms;
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;
use crate::service::{Principal, Service, ToolError, random};

use super::Uploaded;
use super::disk::{self, Scratch, bad, most_bytes};
use super::turns::later;

impl Service {
    /// Takes an upload: a tar, plain or packed, of so many bytes if that is known, which came by `ticket` if
    /// by one. One that came to nothing leaves its ticket good.
    ///
    /// # Errors
    /// What is wrong with it, or that there is no room for it.
    pub async fn upload(
        &self,
        principal: &Principal,
        ticket: Option<&str>,
        length: Option<u64>,
        archive: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> Result<Uploaded, ToolError> {
        let uploaded = self
            .receive_and_keep(principal, ticket, length, archive)
            .await;
        if let (Err(_), Some(ticket)) = (&uploaded, ticket) {
            self.give_back(ticket).await;
        }
        uploaded
    }

    async fn receive_and_keep(
        &self,
        principal: &Principal,
        ticket: Option<&str>,
        length: Option<u64>,
        archive: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> Result<Uploaded, ToolError> {
        let depot = self.depot()?;
        let limits = self.upload_limits(principal);
        let most = most_bytes(limits).min(self.upload_bytes(principal));
        if length.is_some_and(|length| length > most) {
            return Err(too_long(most));
        }
        let _turn = self.uploading.under_way.begin(principal)?;
        let scratch = Scratch::new(depot).map_err(ToolError::internal)?;
        write_down(archive, &scratch.archive(), most).await?;
        let receive = move || match disk::receive(&scratch, limits) {
            Ok(snapshot) => Ok((scratch, snapshot)),
            Err(error) => {
                scratch.remove();
                Err(error)
            }
        };
        let (scratch, snapshot) = self.at_the_disk(receive).await??;
        let kept = self
            .keep(principal, ticket, depot, &scratch.tar(), snapshot)
            .await;
        let removed = tokio::task::spawn_blocking(move || scratch.remove());
        removed.await.map_err(ToolError::internal)?;
        kept
    }

    async fn keep(
        &self,
        principal: &Principal,
        ticket: Option<&str>,
        depot: &dyn Depot,
        tar: &Path,
        received: Snapshot,
    ) -> Result<Uploaded, ToolError> {
        let key = key(&principal.0);
        let (digest, bytes) = (&received.digest, received.bytes);
        let place = depot.place(random()?);
        let most = self.upload_bytes(principal);
        let reserve = |uploads: &mut Uploads| {
            uploads.principal.clone_from(&principal.0);
            uploads.reserve(Context::on_its_way(digest, bytes, &place, now_ms()), most)
        };
        let wanted = self.change(&key, reserve).await?;
        let wanted = wanted.map_err(|full| no_room(full, most))?;
        if wanted && let Err(error) = depot.bring(tar, &place).await {
            self.change(&key, |uploads| uploads.forget(&place)).await?;
            return Err(error.into());
        }
        let keep = self.config.http.uploads_keep;
        let settle = |uploads: &mut Uploads| {
            let expires = now_ms() + i64::from(keep) * 1000;
            uploads.settle(digest, &place, ticket, expires)
        };
        let settled = self.change(&key, settle).await?;
        settled
            .map_err(|given_up| later(given_up.to_string(), "the same upload once more".into()))?;
        Ok(Uploaded {
            context: digest.clone(),
            bytes,
            files: received.files,
            expires_in_seconds: keep,
        })
    }

    /// Bytes of the uploads of this principal that are kept.
    fn upload_bytes(&self, principal: &Principal) -> u64 {
        u64::from(self.rights(principal).upload_mb) << 20
    }

    /// How big an upload of this principal may be: as big as the sources of the largest of its profiles.
    fn upload_limits(&self, principal: &Principal) -> Limits {
        let profiles = self.rules(principal).profiles;
        let profiles = profiles.iter().filter_map(|name| self.config.profile(name));
        let most = profiles
            .map(|profile| profile.limits)
            .fold((0, 0), |most, limits| {
                (
                    most.0.max(limits.context_mb << 20),
                    most.1.max(limits.context_entries),
                )
            });
        Limits {
            bytes: most.0,
            entries: most.1,
        }
    }
}

fn too_long(most: u64) -> ToolError {
    bad(format_args!("it has more than {most} bytes"))
}

fn no_room(full: Full, most: u64) -> ToolError {
    let expected = format!("at most {most} bytes of all your uploads together");
    match full {
        Full::Alone(_) => ToolError::one(
            ArgFault::new(ErrorCode::InvalidArgument, "archive", full.to_string())
                .expecting(expected),
        ),
        Full::UnderWay(_) => later(full.to_string(), expected),
    }
}

/// Writes an archive to a file as it comes: whoever sends slowly must not keep a thread.
async fn write_down(
    mut archive: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    path: &Path,
    most: u64,
) -> Result<(), ToolError> {
    let file = tokio::fs::File::create(path).await;
    let mut file = file.map_err(ToolError::internal)?;
    let mut written = 0u64;
    while let Some(part) = archive.next().await {
        let part = part.map_err(|error| bad(format_args!("it did not come whole: {error}")))?;
        written = written.saturating_add(part.len() as u64);
        if written > most {
            return Err(too_long(most));
        }
        file.write_all(&part).await.map_err(ToolError::internal)?;
    }
    file.flush().await.map_err(ToolError::internal)
}

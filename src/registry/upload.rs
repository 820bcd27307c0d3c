//! Blobs on their way into a repository.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::time::timeout;

use super::auth::Auth;
use super::client::{Client, PUSH};
use super::error::{RegistryError, Unreachable};
use super::layout::{Blob, Layout};
use super::session::{Payload, Session};
use crate::build::reference::Repository;

/// How often a running upload is looked at.
const TICK: Duration = Duration::from_millis(250);
const UPLOADS: &str = "blobs/uploads/";

/// How far `upload_blobs` is. A blob that was there already counts as done; bytes go back when an
/// upload begins again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub blobs_done: usize,
    pub blobs: usize,
    pub bytes_done: u64,
    pub bytes: u64,
}

impl Client {
    /// Brings every blob of the image into the repository, one after the other, that isn't there.
    /// `progress` is called after each blob and a few times a second within one.
    pub async fn upload_blobs(
        &self,
        layout: &Layout,
        repo: &Repository,
        auth: &Auth,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), RegistryError> {
        let session = Session::new(self, repo, auth, PUSH)?;
        let mut at = Progress {
            blobs_done: 0,
            blobs: layout.blobs().len(),
            bytes_done: 0,
            bytes: layout.blobs().iter().map(|blob| blob.size).sum(),
        };
        for blob in layout.blobs() {
            let mut report = |sent| {
                progress(Progress {
                    bytes_done: at.bytes_done + sent,
                    ..at
                });
            };
            let mut retries = self.retries();
            while let Err(error) =
                upload(&session, layout, blob, self.read_timeout, &mut report).await
            {
                retries.after(error).await?;
            }
            at.blobs_done += 1;
            at.bytes_done += blob.size;
            progress(at);
        }
        Ok(())
    }

    /// Whether blobs may be uploaded: begins an upload and takes it back.
    pub async fn check_push_access(
        &self,
        repo: &Repository,
        auth: &Auth,
    ) -> Result<(), RegistryError> {
        let session = Session::new(self, repo, auth, PUSH)?;
        let url = session.url(UPLOADS)?;
        let answer = session
            .send_again(Method::POST, &url, &Payload::Empty)
            .await?;
        let upload = session.location(&url, answer.headers())?;
        // Not all registries can cancel; an upload left over expires there by itself.
        let _ = session.send(Method::DELETE, &upload, &Payload::Empty).await;
        Ok(())
    }
}

async fn upload(
    session: &Session<'_>,
    layout: &Layout,
    blob: &Blob,
    patience: Duration,
    report: &mut (dyn FnMut(u64) + Send),
) -> Result<(), RegistryError> {
    let there = session.url(&format!("blobs/{}", blob.digest))?;
    match session.send(Method::HEAD, &there, &Payload::Empty).await {
        Ok(_) => return Ok(()),
        Err(RegistryError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let uploads = session.url(UPLOADS)?;
    let begun = session
        .send(Method::POST, &uploads, &Payload::Empty)
        .await?;
    let mut target = session.location(&uploads, begun.headers())?;
    target
        .query_pairs_mut()
        .append_pair("digest", &blob.digest.to_string());

    let sent = Arc::new(AtomicU64::new(0));
    let payload = Payload::Blob {
        layout,
        blob,
        sent: &sent,
    };
    let mut request = std::pin::pin!(session.send(Method::PUT, &target, &payload));
    let mut seen = 0;
    let mut moved = Instant::now();
    loop {
        match timeout(TICK.min(patience), &mut request).await {
            Ok(answer) => return answer.map(drop),
            Err(_) if moved.elapsed() >= patience => {
                return Err(RegistryError::Unreachable {
                    host: session.host().to_owned(),
                    why: Unreachable::Timeout,
                });
            }
            Err(_) => {}
        }
        let now = sent.load(Ordering::Relaxed);
        if now != seen {
            (seen, moved) = (now, Instant::now());
            report(now);
        }
    }
}

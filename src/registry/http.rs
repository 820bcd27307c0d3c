//! Small things between a session and reqwest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::HeaderValue;
use reqwest::{Body, RequestBuilder, Response, Url};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::error::{LocalRead, RegistryError};
use super::layout::{Blob, Layout, LayoutError};

/// Bytes read from a blob's file at a time.
const CHUNK: usize = 128 << 10;

/// Sends a request to `url` and waits for the head of the answer.
pub(super) async fn transmit(
    request: RequestBuilder,
    url: &Url,
) -> Result<Response, RegistryError> {
    request
        .send()
        .await
        .map_err(|e| RegistryError::from_transport(&authority(url), e))
}

/// `host[:port]`, the port only if it isn't the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A `Retry-After` given in seconds; a date counts as not given.
pub(super) fn seconds(header: Option<&HeaderValue>) -> Option<Duration> {
    let seconds = header?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A blob's bytes from its file. Not one byte more than declared is sent, whatever the file became.
pub(super) fn blob_body(
    layout: &Layout,
    blob: &Blob,
    sent: &Arc<AtomicU64>,
) -> Result<Body, LayoutError> {
    let file = tokio::fs::File::from_std(layout.open_blob(blob)?);
    let sent = Arc::clone(sent);
    sent.store(0, Ordering::Relaxed);
    let chunks = ReaderStream::with_capacity(file.take(blob.size), CHUNK).map(move |chunk| {
        let chunk = chunk.map_err(|e| LocalRead(e.kind()))?;
        sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Ok::<_, LocalRead>(chunk)
    });
    Ok(Body::wrap_stream(chunks))
}

//! `PUT /v1/contexts`: a directory of a caller elsewhere, as a tar, plain or packed with gzip or zstd.
//!
//! Who has a token sends that; who has none, the ticket that somebody with one was given for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::Instrument as _;

use crate::backend::uploads::{ARRIVING, is_ticket};
use crate::mcp::Meter;
use crate::service::{Principal, Service, ToolError};

use super::access::{Gate, Shown, bearer};
use super::plain;

/// How long nothing may come of an upload.
const STALLED: Duration = Duration::from_secs(30);
/// How many bytes must have come of an upload for each second, once it is older than [`STALLED`].
const RATE: u64 = 8 * 1024;
/// What is read of a refused upload, and for how long: who is still sending does not hear the answer.
const LINGER: (u64, Duration) = (512 << 20, Duration::from_secs(60));

#[derive(Clone)]
struct Uploads {
    service: Service,
    meter: Arc<dyn Meter>,
}

/// The route. It asks for itself who sends.
pub fn router(service: Arc<Service>, meter: Arc<dyn Meter>) -> Router {
    Router::new()
        .route("/v1/contexts", put(take))
        .with_state(Uploads {
            service: service.as_ref().clone(),
            meter,
        })
}

async fn take(
    State(mut uploads): State<Uploads>,
    Extension(gate): Extension<Gate>,
    request: Request,
) -> Response {
    uploads.service = uploads.service.now();
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, Body::empty());
    let mut archive = Arriving::new(body, request.headers().contains_key(EXPECT));
    let ticket = bearer(request.headers()).filter(|token| is_ticket(token));
    let ticket = ticket.map(str::to_owned);
    let principal = match &ticket {
        Some(ticket) => {
            (uploads.service.take_ticket(ticket).await).map_err(|error| plain::refused(&error))
        }
        None => (gate.sender(Shown::by(&request)).await)
            .map_err(|refused| gate.challenge(&request, refused)),
    };
    let principal = match principal {
        Ok(principal) => principal,
        Err(response) => {
            archive.linger();
            return response;
        }
    };
    let sender = principal.clone();
    // On its own, so that a ticket whose bearer goes away is given back.
    let taken = async move {
        let taken = uploads.keep(&sender, ticket.as_deref(), &mut archive);
        let taken = taken.await;
        if taken.is_err() {
            archive.linger();
        }
        taken
    };
    let mut response = match tokio::spawn(taken.in_current_span()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => plain::refused(&error),
        Err(error) => plain::refused(&ToolError::internal(error)),
    };
    response.extensions_mut().insert(principal);
    response
}

impl Uploads {
    async fn keep(
        &self,
        principal: &Principal,
        ticket: Option<&str>,
        archive: &mut Arriving,
    ) -> Result<Response, ToolError> {
        // A ticket was paid for by the call that gave it.
        if ticket.is_none() {
            self.service.count_call(principal)?;
        }
        let length = archive.length;
        let uploaded = (self.service)
            .upload(principal, ticket, length, archive)
            .await?;
        self.meter.took_upload(uploaded.bytes);
        let next = json!({"source": {"context": uploaded.context}});
        let answer = json!({
            "context": uploaded.context,
            "bytes": uploaded.bytes,
            "files": uploaded.files,
            "expires_in_seconds": uploaded.expires_in_seconds,
            "next": format!("build {next}"),
        });
        Ok((StatusCode::CREATED, Json(answer)).into_response())
    }
}

/// A body that comes in time.
struct Arriving {
    body: BodyDataStream,
    /// In bytes, where the sender says it.
    length: Option<u64>,
    /// The sender waits until it is asked for (RFC 9110, section 10.1.1).
    waits: bool,
    begun: Instant,
    came: u64,
    late: Pin<Box<Sleep>>,
}

impl Arriving {
    fn new(body: Body, waits: bool) -> Self {
        let begun = Instant::now();
        Self {
            length: body.size_hint().exact(),
            body: body.into_data_stream(),
            waits,
            begun,
            came: 0,
            late: Box::pin(sleep_until(begun + STALLED)),
        }
    }

    /// Until when the next part must be there.
    fn due(&self) -> Instant {
        let owed = Duration::from_secs(self.came / RATE);
        (Instant::now() + STALLED).min(self.begun + ARRIVING.min(STALLED + owed))
    }

    /// Goes on reading for a while what nobody wants any more. The answer is under way meanwhile.
    fn linger(mut self) {
        if self.waits {
            return;
        }
        tokio::spawn(async move {
            let read = async {
                let mut left = LINGER.0;
                while let Some(Ok(part)) = self.body.next().await {
                    let Some(less) = left.checked_sub(part.len() as u64) else {
                        break;
                    };
                    left = less;
                }
            };
            let _ = timeout(LINGER.1, read).await;
        });
    }
}

impl Stream for Arriving {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waits = false;
        let Poll::Ready(part) = self.body.poll_next_unpin(context) else {
            ready!(self.late.as_mut().poll(context));
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        let part = part.map(|part| part.map_err(io::Error::other));
        if let Some(Ok(part)) = &part {
            self.came = self.came.saturating_add(part.len() as u64);
            let due = self.due();
            self.late.as_mut().reset(due);
        }
        Poll::Ready(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use tokio::time::sleep;

    /// How much comes of a body of parts of so many bytes, one a second, and how long that takes.
    async fn arrive(bytes: usize, parts: usize) -> (u64, Duration, bool) {
        let parts = stream::iter(0..parts).then(move |_| async move {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, io::Error>(Bytes::from(vec![0; bytes]))
        });
        let mut archive = Arriving::new(Body::from_stream(parts), false);
        let mut whole = true;
        while let Some(part) = archive.next().await {
            if part.is_err() {
                whole = false;
                break;
            }
        }
        (archive.came, archive.begun.elapsed(), whole)
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_next_to_nothing_is_given_up() {
        let (came, took, whole) = arrive(1, 1000).await;
        assert!(
            !whole && came <= 31 && took <= Duration::from_secs(31),
            "{came} {took:?}"
        );
        let (_, took, whole) = arrive(RATE as usize, 1000).await;
        assert!(whole && took >= Duration::from_secs(1000), "{took:?}");
        let (_, took, whole) = arrive(RATE as usize, 5000).await;
        assert!(!whole && took <= ARRIVING, "{took:?}");
    }
}

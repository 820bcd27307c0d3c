//! `PUT /v1/contexts`: a directory of a caller elsewhere, as a tar, plain or packed with gzip or zstd.
//!
//! Who has a token sends that; who has none, the ticket that somebody with one was given for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::backend::uploads::is_ticket;
use crate::mcp::Meter;
use crate::service::{Principal, Service, ToolError};

use super::access::{Gate, Shown, bearer};
use super::plain;

/// How long nothing may come of an upload.
const STALLED: Duration = Duration::from_secs(30);
/// How long an upload may take.
const IN_TIME: Duration = Duration::from_secs(60 * 60);

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
    let ticket = bearer(request.headers()).filter(|token| is_ticket(token));
    let ticket = ticket.map(str::to_owned);
    let principal = match &ticket {
        Some(ticket) => match uploads.service.take_ticket(ticket).await {
            Ok(principal) => principal,
            Err(error) => return plain::refused(&error),
        },
        None => match gate.sender(Shown::by(&request)).await {
            Ok(principal) => principal,
            Err(refused) => return gate.challenge(&request, refused),
        },
    };
    let (sender, body) = (principal.clone(), request.into_body());
    // On its own, so that a ticket whose bearer goes away is given back.
    let taken = async move { uploads.keep(&sender, ticket.as_deref(), body).await };
    let mut response = match tokio::spawn(taken).await {
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
        body: Body,
    ) -> Result<Response, ToolError> {
        // A ticket was paid for by the call that gave it.
        if ticket.is_none() {
            self.service.count_call(principal)?;
        }
        let archive = Box::pin(in_time(body.into_data_stream()));
        let uploaded = self.service.upload(principal, ticket, archive).await?;
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
fn in_time(body: BodyDataStream) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let end = Instant::now() + IN_TIME;
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        let until = end.min(Instant::now() + STALLED);
        match timeout_at(until, body.next()).await {
            Ok(Some(Ok(part))) => Some((Ok(part), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

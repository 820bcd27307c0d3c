//! The older transport HTTP+SSE (MCP 2024-11-05), for clients that know no other: `GET /sse` is a stream
//! whose first event names where messages go, and the answers come over the stream.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rmcp::ServiceExt as _;
use rmcp::model::{ClientJsonRpcMessage, GetExtensions as _, ServerJsonRpcMessage};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, PollSender};

use crate::mcp::Server;
use crate::service::Principal;

/// Messages on their way, in either direction.
const BUFFER: usize = 16;
/// How often a silent stream says that it is still there: proxies end those that are not.
const PING: Duration = Duration::from_secs(15);
/// Streams of one principal at the same time.
const MOST: usize = 256;

/// The open streams.
#[derive(Clone)]
pub struct Streams {
    server: Server,
    open: Arc<Mutex<HashMap<String, Open>>>,
    /// Fires when the server ends and nobody waits for an answer any more.
    closing: CancellationToken,
}

struct Open {
    principal: Principal,
    messages: mpsc::Sender<ClientJsonRpcMessage>,
    answers: mpsc::WeakSender<ServerJsonRpcMessage>,
}

/// Closes a stream's session when the stream is gone.
struct Closes(Streams, String);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

#[derive(Deserialize)]
struct Names {
    #[serde(rename = "sessionId")]
    session: String,
}

impl Streams {
    /// None yet. Each gets a copy of `server`; they end when `closing` fires.
    pub fn new(server: Server, closing: CancellationToken) -> Self {
        Self {
            server,
            open: Arc::default(),
            closing,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// `/sse` and `/messages`; whoever asks is known by then.
    pub fn router(self) -> Router {
        Router::new()
            .route("/sse", get(begin))
            .route("/messages", post(take))
            .with_state(self)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(
        &self,
        principal: Principal,
        messages: mpsc::Sender<ClientJsonRpcMessage>,
        answers: mpsc::WeakSender<ServerJsonRpcMessage>,
    ) -> Option<Closes> {
        let mut random = [0u8; 24];
        getrandom::fill(&mut random).ok()?;
        let id = URL_SAFE_NO_PAD.encode(random);
        let mut open = self.lock();
        if open
            .values()
            .filter(|one| one.principal == principal)
            .count()
            >= MOST
        {
            return None;
        }
        let one = Open {
            principal,
            messages,
            answers,
        };
        open.insert(id.clone(), one);
        Some(Closes(self.clone(), id))
    }
}

async fn begin(
    State(streams): State<Streams>,
    Extension(principal): Extension<Principal>,
) -> Response {
    let (messages, received) = mpsc::channel(BUFFER);
    let (answers, sent) = mpsc::channel::<ServerJsonRpcMessage>(BUFFER);
    let Some(closes) = streams.open(principal, messages, answers.downgrade()) else {
        let text = format!("there are {MOST} streams with this token; end some\n");
        return (StatusCode::TOO_MANY_REQUESTS, text).into_response();
    };
    let endpoint = Event::default()
        .event("endpoint")
        .data(format!("/messages?sessionId={}", closes.1));
    let server = streams.server.for_another();
    let transport = (PollSender::new(answers), ReceiverStream::new(received));
    // One of its own: the end of a session fires it.
    let closing = streams.closing.child_token();
    tokio::spawn(async move {
        match server.serve_with_ct(transport, closing).await {
            Ok(running) => {
                let _ = running.waiting().await;
            }
            Err(error) => {
                tracing::debug!(%error, "a stream ended before its client had said hello")
            }
        }
    });
    let answers = ReceiverStream::new(sent).filter_map(move |message| {
        // Lives as long as the stream.
        let _ = &closes;
        let event = serde_json::to_string(&message)
            .map(|text| Event::default().event("message").data(text))
            .inspect_err(|error| tracing::error!(%error, "an answer cannot be written"));
        std::future::ready(event.ok())
    });
    let events = stream::iter([endpoint])
        .chain(answers)
        .map(Ok::<_, Infallible>);
    let closed = streams.closing.clone();
    let events = events.take_until(async move { closed.cancelled().await });
    // Buffering proxies are told not to.
    let headers = [
        ("x-accel-buffering", "no"),
        ("cache-control", "no-cache, no-transform"),
    ];
    let keep_alive = KeepAlive::new().interval(PING);
    (headers, Sse::new(events).keep_alive(keep_alive)).into_response()
}

async fn take(
    State(streams): State<Streams>,
    Extension(principal): Extension<Principal>,
    Query(names): Query<Names>,
    request: Request<axum::body::Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let messages = (streams.lock().get(&names.session))
        .filter(|one| one.principal == principal)
        .map(|one| (one.messages.clone(), one.answers.upgrade()));
    let Some((messages, answers)) = messages else {
        return (StatusCode::NOT_FOUND, "there is no such stream\n").into_response();
    };
    // Who asks and asks and reads no answer would fill the memory.
    if answers.is_some_and(|answers| answers.capacity() == 0) {
        let text = "the stream is not read; read it first\n";
        return (StatusCode::TOO_MANY_REQUESTS, text).into_response();
    }
    let body = axum::body::to_bytes(body, super::body::MOST).await;
    let Some(message) = body.ok().and_then(|body| parse(&body, parts)) else {
        return (StatusCode::BAD_REQUEST, "this is no message of JSON-RPC\n").into_response();
    };
    match messages.send(message).await {
        Ok(()) => (StatusCode::ACCEPTED, "Accepted").into_response(),
        Err(_) => (StatusCode::GONE, "the stream has ended\n").into_response(),
    }
}

/// A message that knows who sent it.
fn parse(body: &Bytes, parts: Parts) -> Option<ClientJsonRpcMessage> {
    let mut message = serde_json::from_slice(body).ok()?;
    match &mut message {
        ClientJsonRpcMessage::Request(request) => {
            request.request.extensions_mut().insert(parts);
        }
        ClientJsonRpcMessage::Notification(notification) => {
            notification.notification.extensions_mut().insert(parts);
        }
        _ => {}
    }
    Some(message)
}

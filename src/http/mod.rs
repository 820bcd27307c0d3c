//! MCP over HTTP: one server for many agents.
//!
//! ```text
//! /                 the page for people
//! /mcp              Streamable HTTP, both protocol eras
//! /sse, /messages   the older HTTP+SSE, for clients that know no other
//! /v1/builds/ID/log   a log as plain text
//! /v1/contexts      uploads
//! /.well-known/oauth-protected-resource   where tokens come from
//! /healthz          this server runs
//! /readyz           builds can be accepted, or what is missing
//! /metrics          for Prometheus
//! ```
//! Builds are behind tokens; nothing else tells anything of a build.

pub mod access;
mod body;
mod connections;
mod contexts;
pub mod issuers;
pub mod listen;
mod logs;
pub mod metrics;
mod outputs;
mod page;
mod plain;
mod resource;
mod sessions;
mod sse;
pub mod stack;
pub mod tls;
pub mod tokens;
mod trace;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Health;
use crate::build::request::MAX_WAIT;
use crate::config;
use crate::mcp::{Asker, Meter, Server};
use crate::service::Service;

use access::Authentication;
use connections::Connections;
use listen::Listener;
use metrics::Metrics;
use sessions::Sessions;
use sse::Streams;
use stack::{Routes, Stack};

#[derive(Clone)]
struct Operations {
    service: Arc<Service>,
    metrics: Arc<Metrics>,
    sessions: Sessions,
    streams: Streams,
    connections: Connections,
    /// What both `/readyz` and `/metrics` tell.
    health: Kept<Arc<Health>>,
    /// What `/metrics` said last.
    told: Kept<Option<String>>,
}

/// Serves until `ending` fires, and then what has been asked before, for a while.
///
/// # Errors
/// When two metrics have the same name.
pub async fn serve(
    listener: Listener,
    service: Arc<Service>,
    config: &config::Http,
    authentication: Authentication,
    ending: CancellationToken,
) -> io::Result<()> {
    let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
    let meter: Arc<dyn Meter> = metrics.clone();
    let server = Server::new(
        Arc::clone(&service),
        Asker::OfTheRequest,
        ending.clone(),
        Some(meter),
    );
    let stack = Stack::new(config, ending.clone());
    let streams = Streams::new(server.for_another(), stack.closing.clone());
    // A call that may take longer than proxies wait needs a stream, for its signs of life.
    let plain = service.max_wait() <= MAX_WAIT;
    let agents = (stack.streamable(move || server.for_another(), plain))
        .merge(streams.clone().router())
        .merge(logs::router(Arc::clone(&service), metrics.clone(), ending))
        .merge(outputs::router(Arc::clone(&service)));
    let uploads = contexts::router(Arc::clone(&service), metrics.clone());
    let operations = Operations {
        service,
        metrics,
        sessions: stack.sessions.clone(),
        streams,
        connections: stack.connections.clone(),
        health: Kept::default(),
        told: Kept::default(),
    };
    let routes = Routes {
        agents,
        people: page::router().merge(uploads),
        operations: operations.router(),
    };
    stack.serve(listener, authentication, routes).await;
    Ok(())
}

impl Operations {
    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(tell))
            .with_state(self)
    }
}

/// An answer that is given to everybody who asks within a while: who has no token must not keep a backend
/// busy by asking.
type Kept<T> = Arc<Mutex<Option<(Instant, T)>>>;

const TEXT: &str = "text/plain; charset=utf-8";
/// How long it is given.
const KEPT: Duration = Duration::from_secs(1);

async fn kept<T: Clone>(kept: &Kept<T>, ask: impl Future<Output = T>) -> T {
    let mut kept = kept.lock().await;
    if let Some((at, answer)) = &*kept
        && at.elapsed() < KEPT
    {
        return answer.clone();
    }
    let answer = ask.await;
    *kept = Some((Instant::now(), answer.clone()));
    answer
}

async fn health(operations: &Operations) -> Arc<Health> {
    let look = async {
        let health = operations.service.health().await;
        for (dependency, why) in health.faults() {
            // Why, is for the operator's eyes.
            tracing::warn!(dependency = dependency.as_str(), why, "missing");
        }
        Arc::new(health)
    };
    kept(&operations.health, look).await
}

async fn ready(State(operations): State<Operations>) -> Response {
    let health = health(&operations).await;
    let status = match health.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(CONTENT_TYPE, TEXT)], health.to_string()).into_response()
}

async fn tell(State(operations): State<Operations>) -> Response {
    let told = async {
        let health = health(&operations).await;
        let held = metrics::Held {
            sessions: operations.sessions.count().await,
            streams: operations.streams.count(),
            connections: operations.connections.count(),
        };
        let text = operations.metrics.text(&operations.service, &health, held);
        text.await
            .inspect_err(|error| tracing::error!(%error, "the metrics cannot be told"))
            .ok()
    };
    match kept(&operations.told, told).await {
        Some(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

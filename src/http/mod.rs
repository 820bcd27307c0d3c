//! MCP over HTTP: one server for many agents.
//!
//! ```text
//! /                 the page for people
//! /mcp              Streamable HTTP, both protocol eras
//! /sse, /messages   the older HTTP+SSE, for clients that know no other
//! /v1/builds/ID/log   a log as plain text
//! /.well-known/oauth-protected-resource   where tokens come from
//! /healthz          this server runs
//! /readyz           its backend answers
//! /metrics          for Prometheus
//! ```
//! Builds are behind tokens; nothing else tells anything of a build.

pub mod access;
mod body;
mod connections;
pub mod issuers;
pub mod listen;
mod logs;
pub mod metrics;
mod page;
mod resource;
mod sessions;
mod sse;
pub mod tls;
pub mod tokens;
mod trace;
mod watched;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;
use url::Url;

use crate::build::request::MAX_WAIT;
use crate::config;
use crate::mcp::{Asker, Meter, Server};
use crate::service::Service;

use access::{Authentication, Gate, Names};
use connections::Connections;
use listen::Listener;
use metrics::Metrics;
use resource::Resource;
use sessions::Sessions;
use sse::Streams;

/// How long requests may still take when the server ends; by then those that wait have been answered.
const DRAIN: Duration = Duration::from_secs(10);
/// How long after the beginning of the end streams are closed, on which answers may be under way.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// What pages elsewhere may send and see, if they may call at all.
const SENT: [&str; 6] = [
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
    "last-event-id",
    "traceparent",
];
const SEEN: [&str; 2] = ["mcp-session-id", "x-request-id"];

#[derive(Clone)]
struct Operations {
    service: Arc<Service>,
    metrics: Arc<Metrics>,
    sessions: Sessions,
    streams: Streams,
    connections: Connections,
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
    let most = usize::try_from(config.connections).unwrap_or(usize::MAX);
    let connections = Connections::new(most.min(allow_descriptors(most)));
    let closing = CancellationToken::new();
    let app = router(
        service,
        config,
        (authentication, listener.certificates.is_some()),
        (metrics, connections.clone()),
        (&ending, &closing),
    );
    let told = ending.clone();
    tokio::spawn(async move {
        told.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
        closing.cancel();
    });
    if !connections.serve(listener, app, &ending, DRAIN).await {
        tracing::warn!("some requests were not answered in time");
    }
    Ok(())
}

/// Lets this process have as many descriptors as so many connections need; returns for how many they do.
fn allow_descriptors(connections: usize) -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// For everything that is no connection from outside.
    const OTHERS: u64 = 256;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return connections;
    };
    // One that is answered may need some on its own: a log, a connection to Nomad.
    let wanted = (connections as u64).saturating_mul(2) + OTHERS;
    let limit = soft.max(wanted.min(hard));
    if limit > soft && setrlimit(Resource::RLIMIT_NOFILE, limit, hard).is_err() {
        return usize::try_from(soft.saturating_sub(OTHERS) / 2).unwrap_or(connections);
    }
    usize::try_from(limit.saturating_sub(OTHERS) / 2).unwrap_or(connections)
}

fn router(
    service: Arc<Service>,
    config: &config::Http,
    (authentication, secure): (Authentication, bool),
    (metrics, connections): (Arc<Metrics>, Connections),
    (ending, closing): (&CancellationToken, &CancellationToken),
) -> Router {
    let meter: Arc<dyn Meter> = metrics.clone();
    let server = Server::new(
        Arc::clone(&service),
        Asker::OfTheRequest,
        ending.clone(),
        Some(meter),
    );
    let issuers = match &authentication {
        Authentication::Tokens(_, issuers) => issuers
            .iter()
            .filter_map(|one| one.url())
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let resource = Arc::new(Resource {
        url: config.url.clone(),
        secure,
        issuers,
    });
    let gate = Gate {
        authentication: Arc::new(authentication),
        resource: Arc::clone(&resource),
    };
    let sessions = Sessions::new();
    let streams = Streams::new(server.for_another(), closing.clone());
    let agents = Router::new()
        .merge(streamable(server, &service, config, &sessions, closing))
        .merge(streams.clone().router())
        .merge(logs::router(
            Arc::clone(&service),
            metrics.clone(),
            ending.clone(),
        ))
        .layer(middleware::from_fn(body::whole))
        .layer(middleware::from_fn_with_state(gate, access::authenticate))
        .merge(page::router())
        .merge(resource::router(resource))
        .layer(middleware::from_fn_with_state(
            Arc::new(names(config)),
            access::check_names,
        ))
        .layer(tower::util::option_layer(cors(&config.origins)));
    let operations = Operations {
        service,
        metrics,
        sessions,
        streams,
        connections,
    };
    // These are called by whatever name somebody's checks have for a server.
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(tell))
        .with_state(operations)
        .merge(agents)
        .layer(middleware::from_fn(trace::trace))
}

/// `/mcp`.
fn streamable(
    server: Server,
    service: &Service,
    config: &config::Http,
    sessions: &Sessions,
    closing: &CancellationToken,
) -> Router {
    let settings = StreamableHttpServerConfig::default()
        .with_cancellation_token(closing.clone())
        .with_max_request_body_bytes(body::MOST)
        // `check_names` looks at them.
        .disable_allowed_hosts()
        .disable_allowed_origins();
    if config.sessions {
        let mcp = StreamableHttpService::new(
            move || Ok(server.for_another()),
            sessions.manager(),
            settings,
        );
        let owner = middleware::from_fn_with_state(sessions.clone(), sessions::check_owner);
        return Router::new().nest_service("/mcp", mcp).layer(owner);
    }
    let settings = settings
        .with_legacy_session_mode(false)
        // A call that may take longer than proxies wait needs a stream, for its signs of life.
        .with_json_response(service.max_wait() <= MAX_WAIT);
    let mcp = StreamableHttpService::new(
        move || Ok(server.for_another()),
        Arc::new(NeverSessionManager::default()),
        settings,
    );
    Router::new().nest_service("/mcp", mcp)
}

fn names(config: &config::Http) -> Names {
    let url = config.url.as_deref().and_then(|url| Url::parse(url).ok());
    let own = url.and_then(|url| url.host_str().map(str::to_owned));
    Names {
        hosts: config.hosts.iter().cloned().chain(own).collect(),
        origins: origins(&config.origins),
    }
}

fn origins(configured: &[String]) -> Vec<Url> {
    (configured.iter())
        .filter_map(|origin| Url::parse(origin).ok())
        .collect()
}

/// Only where pages elsewhere may call, and for them alone.
fn cors(configured: &[String]) -> Option<CorsLayer> {
    if configured.is_empty() {
        return None;
    }
    let origins = origins(configured).into_iter();
    let origins = origins
        .filter_map(|origin| HeaderValue::from_str(&origin.origin().ascii_serialization()).ok());
    let sent = SENT.map(HeaderName::from_static).into_iter();
    let seen = SEEN.map(HeaderName::from_static).into_iter();
    let cors = CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(
            sent.chain([AUTHORIZATION, CONTENT_TYPE])
                .collect::<Vec<_>>(),
        )
        .expose_headers(
            seen.chain([WWW_AUTHENTICATE, RETRY_AFTER])
                .collect::<Vec<_>>(),
        );
    Some(cors)
}

async fn ready(State(operations): State<Operations>) -> Response {
    match operations.service.health().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn tell(State(operations): State<Operations>) -> Response {
    let held = metrics::Held {
        sessions: operations.sessions.count().await,
        streams: operations.streams.count(),
        connections: operations.connections.count(),
    };
    match operations.metrics.text(&operations.service, held).await {
        Ok(text) => text.into_response(),
        Err(error) => unavailable(&error),
    }
}

/// Why, is for the operator's eyes.
fn unavailable(error: &dyn std::fmt::Display) -> Response {
    tracing::warn!(%error, "the backend does not answer");
    let text = "the backend does not answer; the server's log says why\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

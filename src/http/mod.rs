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
//! /readyz           its backend answers
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
mod page;
mod plain;
mod resource;
mod sessions;
mod sse;
pub mod tls;
pub mod tokens;
mod trace;
mod watched;

use std::io;
use std::path::PathBuf;
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
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;
use url::Url;

use crate::build::request::MAX_WAIT;
use crate::config;
use crate::mcp::{Asker, Meter, Server};
use crate::service::{Service, ToolError};

use access::{Authentication, Gate, Names};
use connections::Connections;
use listen::{Listener, Place};
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
    /// What `/readyz` and `/metrics` said last.
    ready: Kept,
    told: Kept,
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
    let wanted = usize::try_from(config.connections).unwrap_or(usize::MAX);
    let most = allow_descriptors(wanted);
    if most < wanted {
        tracing::warn!(
            most,
            "http.connections is cut: this process may not have more descriptors"
        );
    }
    let connections = Connections::new(most, Duration::from_secs(config.idle.into()));
    let closing = CancellationToken::new();
    let socket = match listener.place()? {
        Place::Unix(path) => Some(path),
        Place::Tcp(_) => None,
    };
    let app = router(
        service,
        config,
        (authentication, listener.certificates.is_some(), socket),
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
    /// One that is answered may need another: a log, a connection to Nomad.
    const EACH: u64 = 2;
    const LEAST: usize = 16;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return connections;
    };
    let wanted = (connections as u64).saturating_mul(EACH) + OTHERS;
    let raised = soft.max(wanted.min(hard));
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    };
    let enough = usize::try_from(limit.saturating_sub(OTHERS) / EACH).unwrap_or(usize::MAX);
    connections.min(enough.max(LEAST))
}

fn router(
    service: Arc<Service>,
    config: &config::Http,
    (authentication, secure, socket): (Authentication, bool, Option<PathBuf>),
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
        socket,
    });
    let gate = Gate {
        authentication: Arc::new(authentication),
        resource: Arc::clone(&resource),
    };
    let sessions = Sessions::default();
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
        .layer(middleware::from_fn_with_state(
            gate.clone(),
            access::authenticate,
        ))
        .merge(contexts::router(
            Arc::clone(&service),
            gate,
            metrics.clone(),
        ))
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
        ready: Kept::default(),
        told: Kept::default(),
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

/// An answer that is given to everybody who asks within a while: who has no token must not keep a backend
/// busy by asking.
type Kept = Arc<Mutex<Option<(Instant, Result<String, String>)>>>;

const TEXT: &str = "text/plain; charset=utf-8";
/// How long it is given.
const KEPT: Duration = Duration::from_secs(1);

async fn kept<E: std::fmt::Display>(
    kept: &Kept,
    kind: &'static str,
    ask: impl Future<Output = Result<String, E>>,
) -> Response {
    let mut kept = kept.lock().await;
    let answer = match kept.take() {
        Some((at, answer)) if at.elapsed() < KEPT => (at, answer),
        _ => {
            let answer = ask.await.map_err(|error| error.to_string());
            if let Err(error) = &answer {
                // Why, is for the operator's eyes.
                tracing::warn!(%error, "the backend does not answer");
            }
            (Instant::now(), answer)
        }
    };
    let response = match &answer.1 {
        Ok(text) => ([(CONTENT_TYPE, kind)], text.clone()).into_response(),
        Err(_) => {
            let text = "the backend does not answer; the server's log says why\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    };
    *kept = Some(answer);
    response
}

async fn ready(State(operations): State<Operations>) -> Response {
    let health = async {
        operations.service.health().await?;
        Ok::<_, ToolError>("ready\n".to_owned())
    };
    kept(&operations.ready, TEXT, health).await
}

async fn tell(State(operations): State<Operations>) -> Response {
    let told = async {
        let held = metrics::Held {
            sessions: operations.sessions.count().await,
            streams: operations.streams.count(),
            connections: operations.connections.count(),
        };
        operations.metrics.text(&operations.service, held).await
    };
    kept(&operations.told, prometheus::TEXT_FORMAT, told).await
}

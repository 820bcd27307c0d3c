//! MCP over HTTP: one server for many agents.
//!
//! ```text
//! /mcp       Streamable HTTP, both protocol eras, without sessions: any server may answer any request
//! /healthz   this server runs
//! /readyz    its backend answers
//! /metrics   for Prometheus
//! ```
//! `/mcp` wants a token; nothing else tells anything of a build.

pub mod access;
pub mod metrics;
pub mod tokens;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Router, middleware};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::mcp::{Asker, Meter, Server};
use crate::service::Service;

use access::Authentication;
use metrics::Metrics;

/// How long requests may still take when the server ends; by then those that wait have been answered.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Operations {
    service: Arc<Service>,
    metrics: Arc<Metrics>,
}

/// Serves until `ending` fires, and then what has been asked before, for a while.
///
/// # Errors
/// When nothing can be accepted.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    config: &config::Http,
    authentication: Authentication,
    ending: CancellationToken,
) -> io::Result<()> {
    let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
    let app = router(service, config, authentication, metrics, &ending);
    // Without this an answer waits for the acknowledgement of what came before it.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays slow");
        }
    });
    let ended = ending.clone();
    let serving = axum::serve(listener, app)
        .with_graceful_shutdown(async move { ended.cancelled().await })
        .into_future();
    tokio::select! {
        served = serving => served,
        () = async { ending.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("some requests were not answered in time");
            Ok(())
        }
    }
}

fn router(
    service: Arc<Service>,
    config: &config::Http,
    authentication: Authentication,
    metrics: Arc<Metrics>,
    ending: &CancellationToken,
) -> Router {
    let meter: Arc<dyn Meter> = metrics.clone();
    let server = Server::new(
        Arc::clone(&service),
        Asker::OfTheRequest,
        ending.clone(),
        Some(meter),
    );
    let mcp = StreamableHttpService::new(
        move || Ok(server.for_another()),
        Arc::new(NeverSessionManager::default()),
        StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            // `check_host` looks at them.
            .disable_allowed_hosts()
            .with_allowed_origins(&config.origins)
            .enforce_origin_validation(),
    );
    let known = middleware::from_fn_with_state(Arc::new(authentication), access::authenticate);
    let hosts = Arc::new(config.hosts.clone());
    let agents = Router::new()
        .nest_service("/mcp", mcp)
        .layer(known)
        .layer(middleware::from_fn_with_state(hosts, access::check_host));
    // These are called by whatever name somebody's checks have for a server.
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(tell))
        .with_state(Operations { service, metrics })
        .merge(agents)
}

async fn ready(State(operations): State<Operations>) -> Response {
    match operations.service.health().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn tell(State(operations): State<Operations>) -> Response {
    match operations.metrics.text(&operations.service).await {
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

//! What stands between a connection and a handler of MCP, whichever handler it is.
//!
//! ```text
//! connection ─ trace ┬─ operations: by whatever name
//!                    └─ names of the server ┬─ people: anybody
//!                                           └─ who asks ─ whole message ─ agents: /mcp, …
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::{Extension, Router, middleware};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;
use url::Url;

use crate::config;

use super::access::{self, Authentication, Gate, Names};
use super::connections::Connections;
use super::listen::Listener;
use super::resource::{self, Resource};
use super::sessions::{self, Sessions};
use super::{body, trace};

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

/// A server over HTTP, but for what it serves.
#[derive(Debug)]
pub struct Stack<'a> {
    config: &'a config::Http,
    pub(super) sessions: Sessions,
    pub(super) connections: Connections,
    /// Fires when the server is told to end.
    ending: CancellationToken,
    /// Fires when it ends and nobody waits for an answer any more.
    pub(super) closing: CancellationToken,
}

/// What is served, by who may ask.
#[derive(Debug, Default)]
pub struct Routes {
    /// For those who are known.
    pub agents: Router,
    /// For everybody who calls the server by a name of it; they can ask the [`Gate`] who that is.
    pub people: Router,
    /// For everybody, by whatever name their checks have for the server.
    pub operations: Router,
}

impl<'a> Stack<'a> {
    /// One that serves until `ending` fires.
    pub fn new(config: &'a config::Http, ending: CancellationToken) -> Self {
        let wanted = usize::try_from(config.connections).unwrap_or(usize::MAX);
        let most = allow_descriptors(wanted);
        if most < wanted {
            tracing::warn!(
                most,
                "http.connections is cut: this process may not have more descriptors"
            );
        }
        Self {
            config,
            sessions: Sessions::default(),
            connections: Connections::new(most, Duration::from_secs(config.idle.into())),
            ending,
            closing: CancellationToken::new(),
        }
    }

    /// `/mcp`, where `handler` makes who answers. `plain`: without sessions, an answer that nothing comes
    /// before is no stream.
    pub fn streamable<H: ServerHandler>(
        &self,
        handler: impl Fn() -> H + Send + Sync + 'static,
        plain: bool,
    ) -> Router {
        let handler = move || Ok(handler());
        let settings = StreamableHttpServerConfig::default()
            .with_cancellation_token(self.closing.clone())
            .with_max_request_body_bytes(body::MOST)
            // `check_names` looks at them.
            .disable_allowed_hosts()
            .disable_allowed_origins();
        if self.config.sessions {
            let mcp = StreamableHttpService::new(handler, self.sessions.manager(), settings);
            let sessions = self.sessions.clone();
            let owner = middleware::from_fn_with_state(sessions, sessions::check_owner);
            return Router::new().nest_service("/mcp", mcp).layer(owner);
        }
        let settings = settings
            .with_legacy_session_mode(false)
            .with_json_response(plain);
        let none = Arc::new(NeverSessionManager::default());
        let mcp = StreamableHttpService::new(handler, none, settings);
        Router::new().nest_service("/mcp", mcp)
    }

    /// Serves until it is told to end, and then what has been asked before, for a while.
    pub async fn serve(self, listener: Listener, authentication: Authentication, routes: Routes) {
        let app = self.around(routes, authentication, &listener);
        let (told, closing) = (self.ending.clone(), self.closing);
        tokio::spawn(async move {
            told.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
            closing.cancel();
        });
        if !(self.connections)
            .serve(listener, app, &self.ending, DRAIN)
            .await
        {
            tracing::warn!("some requests were not answered in time");
        }
    }

    /// The routes with all that is before them.
    fn around(&self, routes: Routes, authentication: Authentication, at: &Listener) -> Router {
        let issuers = match &authentication {
            Authentication::Tokens(_, issuers) => issuers
                .iter()
                .filter_map(|one| one.url())
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        let resource = Arc::new(Resource {
            url: self.config.url.clone(),
            secure: at.certificates.is_some(),
            issuers,
            socket: at.socket(),
        });
        let gate = Gate {
            authentication: Arc::new(authentication),
            resource: Arc::clone(&resource),
        };
        let named = (routes.agents)
            .layer(middleware::from_fn(body::whole))
            .layer(middleware::from_fn_with_state(
                gate.clone(),
                access::authenticate,
            ))
            .merge(routes.people.layer(Extension(gate)))
            .merge(resource::router(resource))
            .layer(middleware::from_fn_with_state(
                Arc::new(names(self.config)),
                access::check_names,
            ))
            .layer(tower::util::option_layer(cors(&self.config.origins)));
        (routes.operations)
            .merge(named)
            .layer(middleware::from_fn(trace::trace))
    }
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
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
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

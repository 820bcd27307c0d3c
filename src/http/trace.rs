//! The log of accesses: each request with an id that its answer and every line of the log about it carry.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use crate::service::Principal;
use crate::telemetry::{self, Parent};

use super::listen::Peer;

/// Of what an answer carries.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// What checks and scrapers ask, all the time.
const CHECKS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Answers a request and notes who asked for what, how it went and how long it took.
pub async fn trace(mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // Without what follows the question mark: it may hold a stream's name.
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<Peer>().copied();
    let parent = (request.headers().get("traceparent"))
        .and_then(|value| value.to_str().ok())
        .and_then(Parent::parse);
    let (span, id) = telemetry::request(parent.as_ref(), CHECKS.contains(&path.as_str()));
    telemetry::name(&span, method.to_string());
    telemetry::note(&span, "http.request.method", method.to_string());
    telemetry::note(&span, "url.path", path.clone());
    // A session answers in a task of its own.
    request.extensions_mut().insert(span.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    span.in_scope(|| {
        let principal = response.extensions().get::<Principal>();
        let principal = principal.map_or("-", |principal| principal.0.as_str());
        let status = response.status().as_u16();
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        let milliseconds = begun.elapsed().as_millis();
        // What checks and scrapers ask is of no interest, as long as it goes well.
        if principal == "-" && response.status().is_success() {
            tracing::debug!(%method, path, status, milliseconds, peer, "access");
        } else {
            tracing::info!(%method, path, status, milliseconds, peer, principal, "access");
        }
    });
    let status = response.status();
    telemetry::note(
        &span,
        "http.response.status_code",
        i64::from(status.as_u16()),
    );
    if status.is_server_error() {
        telemetry::fail(&span);
    }
    telemetry::end(&span);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

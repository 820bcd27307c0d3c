//! The log of accesses: each request with an id that its answer and every line of the log about it carry.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use crate::service::Principal;

use super::listen::Peer;

/// Of what an answer carries.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request and notes who asked for what, how it went and how long it took.
pub async fn trace(request: Request, next: Next) -> Response {
    let id = trace_id(request.headers());
    let begun = Instant::now();
    let method = request.method().clone();
    // Without what follows the question mark: it may hold a stream's name.
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<Peer>().copied();
    let span = tracing::info_span!("request", trace_id = %id);
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
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// The id of the caller's trace (W3C Trace Context, section 3.2), or one of this request.
fn trace_id(headers: &HeaderMap) -> String {
    let given = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .and_then(parse);
    given.unwrap_or_else(|| {
        // Ids need not be secret, only different.
        format!("{:032x}", fastrand::u128(1..))
    })
}

fn parse(parent: &str) -> Option<String> {
    let mut parts = parent.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (version.len() == 2
        && hex(version)
        && id.len() == 32
        && hex(id)
        && id.bytes().any(|b| b != b'0'))
    .then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_under_its_id() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let given = format!("00-{id}-00f067aa0ba902b7-01");
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("traceparent"),
            given.parse().unwrap(),
        )]);
        assert_eq!(trace_id(&headers), id);
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-x\"y-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let made = trace_id(&HeaderMap::new());
        assert_eq!(
            (made.len(), made.parse::<u128>().is_ok()),
            (32, made.parse::<u128>().is_ok())
        );
    }
}

//! Who a request is from, and to whom it was sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::service::Principal;

use super::tokens::Tokens;

/// How callers are known.
#[derive(Debug)]
pub enum Authentication {
    /// By their tokens.
    Tokens(Tokens),
    /// Not at all: everybody who reaches this server is the same.
    None(Principal),
}

impl Authentication {
    /// Whether callers may go unknown at this address.
    pub fn may_be_off(address: &SocketAddr) -> bool {
        address.ip().is_loopback()
    }
}

/// Lets a request pass whose sender is known; puts its [`Principal`] into the extensions.
pub async fn authenticate(
    State(authentication): State<Arc<Authentication>>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = match authentication.as_ref() {
        Authentication::None(principal) => Some(principal.clone()),
        Authentication::Tokens(tokens) => {
            bearer(request.headers()).and_then(|token| tokens.owner(token))
        }
    };
    let Some(principal) = principal else {
        // RFC 6750, section 3: without an error code where there was no token.
        let challenge = match bearer(request.headers()) {
            None => "Bearer realm=\"nomad-build\"",
            Some(_) => "Bearer realm=\"nomad-build\", error=\"invalid_token\"",
        };
        let text = "a token is needed: Authorization: Bearer TOKEN. The operator of this server makes one with nomad-build token NAME.\n";
        return (
            StatusCode::UNAUTHORIZED,
            [(WWW_AUTHENTICATE, challenge)],
            text,
        )
            .into_response();
    };
    request.extensions_mut().insert(principal);
    // Whoever logs what it has got must not log this.
    request.headers_mut().remove(AUTHORIZATION);
    next.run(request).await
}

/// RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// Lets a request pass that was sent to a name of this server: a page that has its own name lead here
/// (DNS rebinding) does not get in. Addresses cannot be led anywhere.
pub async fn check_host(
    State(hosts): State<Arc<Vec<String>>>,
    request: Request,
    next: Next,
) -> Response {
    // HTTP/2 has it in the URI (RFC 9113, section 8.3.1).
    let host = (request.headers().get(HOST))
        .and_then(|value| value.to_str().ok())
        .or_else(|| request.uri().authority().map(Authority::as_str));
    if host.is_some_and(|host| is_own(host, &hosts)) {
        return next.run(request).await;
    }
    let text = "this server is not known by that name; its operator can add it to http.hosts\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

fn is_own(host: &str, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_are_taken() {
        let names = ["build.example.com".to_owned()];
        for host in [
            "127.0.0.1:8080",
            "10.1.2.3",
            "[::1]:80",
            "localhost:1",
            "LOCALHOST",
            "build.example.com:443",
        ] {
            assert!(is_own(host, &names), "{host}");
        }
        for host in [
            "evil.example.com",
            "127.0.0.1.evil.com:8080",
            "build.example.com.evil.com",
            "",
            "a b",
        ] {
            assert!(!is_own(host, &names), "{host}");
        }
    }

    #[test]
    fn only_a_bearer_is_one() {
        let headers = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(bearer(&headers("bearer  x")), Some("x"));
        assert_eq!(bearer(&headers("Basic eDp5")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}

//! Who a request is from, and to whom it was sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use url::Url;

use crate::service::Principal;

use super::issuers::{Issuer, Refused};
use super::listen::Peer;
use super::resource::Resource;
use super::tokens::Tokens;

/// Code of the error of a request without a token that lets it in: one of JSON-RPC's that are free.
const UNAUTHORIZED: i32 = -32_001;

/// How callers are known.
#[derive(Debug)]
pub enum Authentication {
    /// By their tokens: this server's own, or an issuer's.
    Tokens(Tokens, Vec<Issuer>),
    /// As users of this machine, by the socket they came through.
    Users,
    /// Not at all: everybody who reaches this server is the same.
    None(Principal),
}

impl Authentication {
    /// Whether callers may go unknown at this address.
    pub fn may_be_off(address: &SocketAddr) -> bool {
        address.ip().is_loopback()
    }

    async fn principal(
        &self,
        peer: Option<Peer>,
        token: Option<&str>,
    ) -> Result<Principal, Option<Refused>> {
        match self {
            Self::None(principal) => Ok(principal.clone()),
            Self::Users => match peer {
                Some(Peer::User(uid)) => Principal::of_user(uid).map_err(|error| {
                    tracing::error!(%error, uid, "the name of a user cannot be found out");
                    None
                }),
                _ => Err(None),
            },
            Self::Tokens(tokens, issuers) => {
                let token = token.ok_or(None)?;
                if let Some(owner) = tokens.owner(token) {
                    return Ok(owner);
                }
                let mut why = Refused::Unknown;
                for issuer in issuers {
                    match issuer.owner(token).await {
                        Ok(owner) => return Ok(owner),
                        // Of several issuers, the one that knows the token says the most.
                        Err(refused) if why == Refused::Unknown => why = refused,
                        Err(_) => {}
                    }
                }
                Err(Some(why))
            }
        }
    }
}

/// What the check of a caller needs.
#[derive(Debug, Clone)]
pub struct Gate {
    pub(super) authentication: Arc<Authentication>,
    pub(super) resource: Arc<Resource>,
}

/// What the sender of a request shows of itself.
pub(super) struct Shown {
    peer: Option<Peer>,
    token: Option<String>,
}

impl Shown {
    pub(super) fn by(request: &Request) -> Self {
        Self {
            peer: request.extensions().get().copied(),
            token: bearer(request.headers()).map(str::to_owned),
        }
    }
}

impl Gate {
    /// Who sends a request; otherwise what is wrong with the token, if there is one.
    pub(super) async fn sender(&self, shown: Shown) -> Result<Principal, Option<Refused>> {
        let token = shown.token.as_deref();
        self.authentication.principal(shown.peer, token).await
    }

    /// What a sender is answered whom nobody knows.
    pub(super) fn challenge(&self, request: &Request, refused: Option<Refused>) -> Response {
        challenge(&self.resource, request, refused)
    }
}

/// Lets a request pass whose sender is known; puts its [`Principal`] into the extensions, also into the
/// answer's.
pub async fn authenticate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let principal = match gate.sender(Shown::by(&request)).await {
        Ok(principal) => principal,
        Err(refused) => return gate.challenge(&request, refused),
    };
    let entrance = gate.resource.entrance(host(&request).as_ref());
    request.extensions_mut().insert(principal.clone());
    if let Some(entrance) = entrance {
        request.extensions_mut().insert(entrance);
    }
    // Whoever logs what it has got must not log this.
    request.headers_mut().remove(AUTHORIZATION);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(principal);
    response
}

/// RFC 6750, section 3: without an error code where there was no token. RFC 9728, section 5.1.
fn challenge(resource: &Resource, request: &Request, refused: Option<Refused>) -> Response {
    let mut challenge = "Bearer realm=\"nomad-build\"".to_owned();
    if let Some(refused) = refused {
        challenge += &format!(", error=\"invalid_token\", error_description=\"{refused}\"");
    }
    if let Some(url) = resource.metadata_url(host(request).as_ref()) {
        challenge += &format!(", resource_metadata=\"{url}\"");
    }
    let why = refused.map_or_else(|| "a token is needed".to_owned(), |why| why.to_string());
    let text = format!(
        "{why}: Authorization: Bearer TOKEN. The operator of this server makes one with nomad-build token NAME."
    );
    let authenticate = [(WWW_AUTHENTICATE, challenge)];
    // Some clients show what is wrong only where it comes as an error of theirs.
    let body = if accepts_json(request.headers()) {
        let error = json!({"code": UNAUTHORIZED, "message": text});
        Json(json!({"jsonrpc": "2.0", "id": null, "error": error})).into_response()
    } else {
        format!("{text}\n").into_response()
    };
    (StatusCode::UNAUTHORIZED, authenticate, body).into_response()
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/json"))
}

/// RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// The names of a server, and the pages elsewhere that may call it.
#[derive(Debug, Clone)]
pub struct Names {
    pub(super) hosts: Vec<String>,
    pub(super) origins: Vec<Url>,
}

/// The host that a request was sent to.
pub(super) fn host(request: &Request) -> Option<Authority> {
    // HTTP/2 has it in the URI (RFC 9113, section 8.3.1).
    match request.headers().get(HOST) {
        Some(value) => value.to_str().ok()?.parse().ok(),
        None => request.uri().authority().cloned(),
    }
}

/// Lets a request pass that was sent to a name of this server, and by no page elsewhere: a page that has
/// its own name lead here (DNS rebinding) does not get in. Addresses cannot be led anywhere.
pub async fn check_names(
    State(names): State<Arc<Names>>,
    request: Request,
    next: Next,
) -> Response {
    // Whoever opens a socket in the file system has no name for it.
    let by_socket = matches!(request.extensions().get(), Some(Peer::User(_)));
    let host = host(&request);
    if !by_socket && !host.as_ref().is_some_and(|host| names.has(host)) {
        let text = "this server is not known by that name; its operator can add it to http.hosts\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let mut origins = request.headers().get_all(ORIGIN).iter();
    if !origins.all(|origin| {
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| Url::parse(origin).ok());
        origin.is_some_and(|origin| names.lets(&origin, host.as_ref()))
    }) {
        let text = "pages from there may not call this server; its operator can add them to http.origins\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
}

impl Names {
    fn has(&self, host: &Authority) -> bool {
        let name = host.host();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// A page of this server itself, or one of those elsewhere that may.
    fn lets(&self, origin: &Url, host: Option<&Authority>) -> bool {
        let own = host.is_some_and(|host| {
            let port = host.port_u16().or(match origin.scheme() {
                "https" => Some(443),
                _ => Some(80),
            });
            (origin.host_str()).is_some_and(|name| name.eq_ignore_ascii_case(host.host()))
                && origin.port_or_known_default() == port
        });
        own || self
            .origins
            .iter()
            .any(|one| one.origin() == origin.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            hosts: vec!["build.example.com".to_owned()],
            origins: vec![Url::parse("https://app.example.com").unwrap()],
        }
    }

    #[test]
    fn addresses_and_own_names_are_taken() {
        for host in [
            "127.0.0.1:8080",
            "10.1.2.3",
            "[::1]:80",
            "localhost:1",
            "LOCALHOST",
            "build.example.com:443",
        ] {
            assert!(names().has(&host.parse().unwrap()), "{host}");
        }
        for host in [
            "evil.example.com",
            "127.0.0.1.evil.com:8080",
            "build.example.com.evil.com",
        ] {
            assert!(!names().has(&host.parse().unwrap()), "{host}");
        }
    }

    #[test]
    fn own_pages_and_allowed_ones_may_call() {
        let lets = |origin: &str, host: &str| {
            names().lets(&Url::parse(origin).unwrap(), Some(&host.parse().unwrap()))
        };
        for (origin, host) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:80", "[::1]"),
            ("https://build.example.com", "build.example.com"),
            ("https://build.example.com", "build.example.com:443"),
            ("https://app.example.com", "127.0.0.1:1"),
            ("https://app.example.com:443", "127.0.0.1:1"),
        ] {
            assert!(lets(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8080"),
            ("http://app.example.com", "127.0.0.1:1"),
            ("https://app.example.com:8443", "127.0.0.1:1"),
            ("https://evil.example.com", "build.example.com"),
            ("https://build.example.com.evil.com", "build.example.com"),
            ("file:///etc/passwd", "build.example.com"),
        ] {
            assert!(!lets(origin, host), "{origin} {host}");
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

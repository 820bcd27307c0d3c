//! What a client may know before it has a token: metadata of a protected resource (RFC 9728), which leads
//! it to who issues tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::uri::Authority;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::mcp::Entrance;

use super::access::host;

/// RFC 9728, section 3.1: the path of the resource comes behind it.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// What is protected.
const PATHS: [&str; 3] = ["/mcp", "/sse", "/v1"];

/// This server as a protected resource.
#[derive(Debug)]
pub struct Resource {
    /// How clients call it; otherwise as each of them does.
    pub(super) url: Option<String>,
    /// Over TLS.
    pub(super) secure: bool,
    /// Who issues tokens (RFC 8414).
    pub(super) issuers: Vec<String>,
    /// The socket in the file system that it is reached by.
    pub(super) socket: Option<PathBuf>,
}

impl Resource {
    fn base(&self, host: Option<&Authority>) -> Option<String> {
        if let Some(url) = &self.url {
            return Some(url.trim_end_matches('/').to_owned());
        }
        let host = host?.as_str();
        // It stands in a quoted string of a header, and in an answer.
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        let scheme = if self.secure { "https" } else { "http" };
        host.chars()
            .all(plain)
            .then(|| format!("{scheme}://{host}"))
    }

    /// Where the metadata of `/mcp` is, for a request to this host.
    pub(super) fn metadata_url(&self, host: Option<&Authority>) -> Option<String> {
        Some(format!("{}{WELL_KNOWN}/mcp", self.base(host)?))
    }

    /// How the sender of a request to this host reaches this server again.
    pub(super) fn entrance(&self, host: Option<&Authority>) -> Option<Entrance> {
        let socket = self.socket.as_deref().map(Path::to_str);
        Some(Entrance {
            // Behind a socket no name has a meaning.
            url: match &socket {
                Some(_) => "http://localhost".to_owned(),
                None => self.base(host)?,
            },
            socket: match socket {
                Some(path) => Some(path?.to_owned()),
                None => None,
            },
        })
    }

    fn metadata(&self, host: Option<&Authority>, path: &str) -> Option<Value> {
        let base = self.base(host)?;
        let mut metadata = Map::new();
        metadata.insert("resource".into(), format!("{base}{path}").into());
        if !self.issuers.is_empty() {
            metadata.insert("authorization_servers".into(), json!(self.issuers));
        }
        metadata.insert("bearer_methods_supported".into(), json!(["header"]));
        metadata.insert("resource_name".into(), "nomad-build".into());
        Some(metadata.into())
    }
}

/// The routes of the metadata.
pub fn router(resource: Arc<Resource>) -> Router {
    Router::new()
        .route(WELL_KNOWN, get(tell))
        .route(&format!("{WELL_KNOWN}/{{*path}}"), get(tell))
        .with_state(resource)
}

async fn tell(State(resource): State<Arc<Resource>>, request: Request) -> Response {
    let path = request.uri().path();
    let path = path.strip_prefix(WELL_KNOWN).unwrap_or_default();
    let known = path.is_empty() || PATHS.contains(&path);
    let metadata = resource.metadata(host(&request).as_ref(), path);
    match metadata.filter(|_| known) {
        Some(metadata) => Json(metadata).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_as_it_is_configured_or_as_the_client_does() {
        let at = |host: &str| Some(host.parse::<Authority>().unwrap());
        let mut resource = Resource {
            url: None,
            secure: false,
            issuers: vec!["https://id.example.com".into()],
            socket: None,
        };
        let url = resource.metadata_url(at("127.0.0.1:8080").as_ref());
        assert_eq!(
            url.as_deref(),
            Some("http://127.0.0.1:8080/.well-known/oauth-protected-resource/mcp")
        );
        assert_eq!(resource.metadata_url(at("user@host").as_ref()), None);
        resource.url = Some("https://build.example.com/".into());
        let metadata = resource.metadata(None, "/mcp").unwrap();
        assert_eq!(metadata["resource"], "https://build.example.com/mcp");
        assert_eq!(
            metadata["authorization_servers"],
            json!(["https://id.example.com"])
        );
    }
}

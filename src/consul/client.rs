//! Requests and answers: where they go, what they carry, how long and how large they may be.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url, redirect};

use crate::config::Consul;
use crate::wire::{self, Token};

use super::ConsulError;

/// Longest for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest for an answer, on top of the time for which a query may block.
const ANSWER: Duration = Duration::from_secs(15);
/// Most bytes of an answer: values come in Base64, the largest of which Consul takes has 512 KiB.
pub(super) const MAX_ANSWER: usize = 8 << 20;
/// Most bytes of an error's text that are read.
const MAX_ERROR: usize = 16 << 10;

/// A client of one Consul. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    address: String,
    token: Token,
    datacenter: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .field("datacenter", &self.datacenter)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// What came back.
pub(super) struct Answer {
    /// Nothing is there (404).
    pub is_nothing: bool,
    /// Its index, if it has one.
    pub index: Option<u64>,
    /// Something was left out of it that the token may not read.
    pub is_filtered: bool,
    /// It was asked without a token where nothing is allowed by default: Consul does not tell then what it left out.
    pub is_of_nobody: bool,
    pub body: Vec<u8>,
}

impl Client {
    /// Reads certificates, once.
    ///
    /// # Errors
    /// [`ConsulError::Setup`] names what cannot be used.
    pub fn new(consul: &Consul, token: Token) -> Result<Self, ConsulError> {
        let setup = |error: &dyn fmt::Display| ConsulError::Setup(error.to_string());
        consul
            .check_address()
            .map_err(|fault| setup(&format!("the address of Consul: {fault}")))?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            ))
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A proxy of the environment is for registries and git, not for the cluster's own API.
            .no_proxy()
            .referer(false);
        if let Some(file) = &consul.ca_file {
            http = http.tls_certs_merge(wire::certificates(file).map_err(ConsulError::Setup)?);
        }
        let base = match consul.address.strip_prefix("unix://") {
            Some(path) => {
                http = http.unix_socket(Path::new(path));
                Url::parse("http://localhost")
            }
            None => Url::parse(&consul.address),
        };
        Ok(Self {
            http: http.build().map_err(|error| setup(&error))?,
            base: base.map_err(|error| setup(&error))?,
            address: consul.address.clone(),
            token,
            datacenter: consul.datacenter.clone(),
        })
    }

    /// Where Consul is, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Reads what is below `/v1/` at a path, encoded here; `block` is how long the query may block.
    pub(super) async fn get(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, &str)],
        block: Duration,
    ) -> Result<Answer, ConsulError> {
        let request = self.http.get(self.url(path, query)?);
        // Consul adds up to a sixteenth to the time, so that not all come back at once.
        let request = request.timeout(ANSWER + block + block / 16);
        let token = self.token.header()?;
        let is_anonymous = token.is_none();
        let request = match token {
            Some(token) => request.header("X-Consul-Token", token),
            None => request,
        };
        let response = request
            .send()
            .await
            .map_err(|error| self.transport(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let is_nothing = status == StatusCode::NOT_FOUND;
        if !status.is_success() && !is_nothing {
            let body = wire::read_body(response, MAX_ERROR)
                .await
                .unwrap_or_default();
            return Err(ConsulError::from_answer(what, status, &body));
        }
        let body = wire::read_body(response, MAX_ANSWER + 1).await;
        let body = body.map_err(|error| self.transport(&error))?;
        if body.len() > MAX_ANSWER {
            return Err(ConsulError::TooLarge {
                what: what.to_owned(),
                most: MAX_ANSWER,
            });
        }
        Ok(Answer {
            is_nothing,
            index: header(&headers, "x-consul-index").and_then(|index| index.parse().ok()),
            is_filtered: header(&headers, "x-consul-results-filtered-by-acls") == Some("true"),
            is_of_nobody: is_anonymous
                && header(&headers, "x-consul-default-acl-policy") == Some("deny"),
            body,
        })
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, ConsulError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ConsulError::Setup("the address of Consul takes no path".into()))?
            .pop_if_empty()
            .push("v1")
            .extend(path);
        let datacenter = self.datacenter.iter().map(|name| ("dc", name.as_str()));
        (url.query_pairs_mut()).extend_pairs(datacenter.chain(query.iter().copied()));
        Ok(url)
    }

    fn transport(&self, error: &reqwest::Error) -> ConsulError {
        ConsulError::from_transport(&self.address, error)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

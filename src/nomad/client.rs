//! Requests and answers: where they go, what they carry, how long and how large they may be.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Identity, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::wire;

use super::options::{Address, Options, Tls};
use super::retry::{Attempts, Repeat};
use super::traffic::Traffic;
use super::{NomadError, Token};

/// Most bytes of an answer.
const MAX_ANSWER: usize = 128 << 20;
/// Most bytes of an error's text that are read.
const MAX_ERROR: usize = 16 << 10;
/// Requests at the same time, besides streams and queries that wait.
const AT_ONCE: usize = 32;
/// Longest that Nomad lets a query block (`api.MaxBlockingRPCQueryTime` is 300 s).
pub(super) const MAX_BLOCK: Duration = Duration::from_secs(300);

/// An answer with the Raft index it is of (`X-Nomad-Index`).
#[derive(Debug, Clone, PartialEq)]
pub struct Indexed<T> {
    /// The index; what comes later has a higher one.
    pub index: u64,
    /// The answer.
    pub value: T,
}

/// A client of one Nomad, in one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    address: String,
    token: Token,
    http_auth: Option<super::options::HttpAuth>,
    namespace: String,
    region: Option<String>,
    timeout: Duration,
    backoff: Duration,
    /// Nomad takes but so many connections of an address (`limits.http_max_conns_per_client`).
    at_once: Arc<Semaphore>,
    pub(super) traffic: Arc<Traffic>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .field("namespace", &self.namespace)
            .field("region", &self.region)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// A request to be made, as often as it takes.
pub(super) struct Call<'a> {
    /// In words, for errors: "read the job x".
    pub what: &'a str,
    pub method: Method,
    /// Segments below `/v1/`; encoded here, so that a job's id may hold a slash.
    pub path: Vec<&'a str>,
    pub query: &'a [(&'a str, &'a str)],
    pub body: Option<Vec<u8>>,
    pub repeat: Repeat,
    /// How long a blocking query may block.
    pub block: Duration,
}

/// What came back.
pub(super) struct Answer {
    pub status: StatusCode,
    /// See [`Indexed::index`].
    pub index: u64,
    pub body: Vec<u8>,
}

impl<'a> Call<'a> {
    /// A read.
    pub(super) fn get(what: &'a str, path: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            what,
            method: Method::GET,
            path: path.into_iter().collect(),
            query: &[],
            body: None,
            repeat: Repeat::Always,
            block: Duration::ZERO,
        }
    }
}

impl Client {
    /// Reads certificates and keys, once.
    ///
    /// # Errors
    /// [`NomadError::Setup`] names the file that cannot be used.
    pub fn new(options: Options) -> Result<Self, NomadError> {
        let setup = |error: &dyn fmt::Display| NomadError::Setup(error.to_string());
        let mut http = reqwest::Client::builder()
            .user_agent(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            ))
            .connect_timeout(options.connect_timeout)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            // A proxy of the environment is for registries and git, not for the cluster's own API.
            .no_proxy()
            .referer(false);
        let address = options.address.to_string();
        let base = match options.address {
            Address::Http(url) => {
                let (builder, url) = with_tls(http, &options.tls, url)?;
                http = builder;
                url
            }
            Address::Unix(path) => {
                http = http.unix_socket(path);
                Url::parse("http://localhost").map_err(|error| setup(&error))?
            }
        };
        Ok(Self {
            http: http.build().map_err(|error| setup(&error))?,
            base,
            address,
            token: options.token,
            http_auth: options.http_auth,
            namespace: options.namespace,
            region: options.region,
            timeout: options.timeout,
            backoff: options.backoff,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            traffic: Arc::default(),
        })
    }

    /// What it has asked so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Where Nomad is, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The namespace of every request.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The same client in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..self.clone()
        }
    }

    /// One attempt of a call; without a bound on its time.
    fn request(&self, call: &Call<'_>) -> Result<RequestBuilder, NomadError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| NomadError::Setup("the address of Nomad cannot have a path".into()))?
            .pop_if_empty()
            .push("v1")
            .extend(&call.path);
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("namespace", &self.namespace);
            if let Some(region) = &self.region {
                pairs.append_pair("region", region);
            }
            for (name, value) in call.query {
                pairs.append_pair(name, value);
            }
        }
        let mut request = self.http.request(call.method.clone(), url);
        if let Some(token) = self.token.header()? {
            request = request.header("X-Nomad-Token", token);
        }
        if let Some(auth) = &self.http_auth {
            request = request.basic_auth(&auth.user, auth.password.as_ref());
        }
        if let Some(body) = &call.body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        Ok(request)
    }

    pub(super) fn transport(&self, error: &reqwest::Error) -> NomadError {
        NomadError::from_transport(&self.address, error)
    }

    pub(super) fn too_late(&self) -> NomadError {
        NomadError::Timeout {
            address: self.address.clone(),
        }
    }

    async fn once(&self, call: &Call<'_>) -> Result<Answer, NomadError> {
        // What waits for a change does not stand in the way of the others.
        let _permit = match call.block.is_zero() {
            true => self.at_once.acquire().await.ok(),
            false => None,
        };
        let bound = self.timeout + call.block;
        let response = self
            .request(call)?
            .timeout(bound)
            .send()
            .await
            .map_err(|error| self.transport(&error))?;
        let response = if response.status() == StatusCode::CONFLICT {
            response
        } else {
            self.accept(call.what, response).await?
        };
        let (status, index) = (response.status(), index(response.headers()));
        let body = self.read(call.what, response, MAX_ANSWER).await?;
        Ok(Answer {
            status,
            index,
            body,
        })
    }

    /// Makes a call, again where that is right. A conflict (409) is an answer like any other.
    pub(super) async fn send_or_conflict(&self, call: &Call<'_>) -> Result<Answer, NomadError> {
        let mut attempts = Attempts::new(call.repeat, self.backoff);
        loop {
            match self.traffic.count(self.once(call).await) {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// Makes a call, again where that is right; its answer is a success.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Answer, NomadError> {
        let answer = self.send_or_conflict(call).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(NomadError::from_answer(
            call.what,
            answer.status,
            None,
            &answer.body,
        ))
    }

    /// Makes a call and reads its answer as JSON, with its index.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
    ) -> Result<Indexed<T>, NomadError> {
        let answer = self.send(call).await?;
        let value = serde_json::from_slice(&answer.body)
            .map_err(|error| NomadError::protocol(call.what, error))?;
        Ok(Indexed {
            index: answer.index,
            value,
        })
    }

    /// Opens a stream; the head of its answer must come in time, its body may take any.
    pub(super) async fn open(&self, call: &Call<'_>) -> Result<Response, NomadError> {
        let mut attempts = Attempts::new(call.repeat, self.backoff);
        loop {
            match self.traffic.count(self.open_once(call).await) {
                Ok(response) => return Ok(response),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn open_once(&self, call: &Call<'_>) -> Result<Response, NomadError> {
        let request = self.request(call)?;
        let response = tokio::time::timeout(self.timeout, request.send())
            .await
            .map_err(|_| self.too_late())?
            .map_err(|error| self.transport(&error))?;
        self.accept(call.what, response).await
    }

    /// The next bytes of a stream, which is dead when it is silent for so long.
    pub(super) async fn next_bytes(
        &self,
        response: &mut Response,
        silence: Duration,
    ) -> Result<Option<bytes::Bytes>, NomadError> {
        tokio::time::timeout(silence, response.chunk())
            .await
            .map_err(|_| self.too_late())?
            .map_err(|error| self.transport(&error))
    }

    async fn accept(&self, what: &str, response: Response) -> Result<Response, NomadError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        // A body that breaks or never ends says less, but the status counts.
        let read = wire::read_body(response, MAX_ERROR);
        let body = match tokio::time::timeout(self.timeout, read).await {
            Ok(Ok(body)) => body,
            _ => Vec::new(),
        };
        Err(NomadError::from_answer(what, status, retry_after, &body))
    }

    async fn read(
        &self,
        what: &str,
        response: Response,
        limit: usize,
    ) -> Result<Vec<u8>, NomadError> {
        let body = wire::read_body(response, limit + 1).await;
        let body = body.map_err(|error| self.transport(&error))?;
        if body.len() > limit {
            return Err(NomadError::protocol(what, "it is longer than 128 MiB"));
        }
        Ok(body)
    }
}

/// The Raft index of an answer; 0 where it has none.
fn index(headers: &HeaderMap) -> u64 {
    let value = headers.get("x-nomad-index");
    value
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    Some(Duration::from_secs(seconds.ok()?))
}

fn with_tls(
    mut http: reqwest::ClientBuilder,
    tls: &Tls,
    mut url: Url,
) -> Result<(reqwest::ClientBuilder, Url), NomadError> {
    let named = |path: &Path, error: &dyn fmt::Display| {
        NomadError::Setup(format!("{}: {error}", path.display()))
    };
    let read = |path: &Path| std::fs::read(path).map_err(|error| named(path, &error));
    let mut files: Vec<_> = tls.ca_file.iter().cloned().collect();
    if let Some(dir) = &tls.ca_dir {
        let entries = std::fs::read_dir(dir).map_err(|error| named(dir, &error))?;
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    for file in files {
        let certificates = wire::certificates(&file).map_err(NomadError::Setup)?;
        http = http.tls_certs_merge(certificates);
    }
    if let (Some(cert), Some(key)) = (&tls.client_cert, &tls.client_key) {
        let mut pem = read(cert)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        http = http.identity(Identity::from_pem(&pem).map_err(|error| named(cert, &error))?);
    }
    if tls.skip_verify {
        http = http.tls_danger_accept_invalid_certs(true);
    }
    if let (Some(name), "https", Some(host)) = (&tls.server_name, url.scheme(), url.host_str()) {
        // TLS checks the name in the URL; this name leads to the host that was meant.
        let host = host.trim_matches(['[', ']']).to_owned();
        http = http.dns_resolver(Arc::new(OneHost(host)));
        url.set_host(Some(name))
            .map_err(|error| NomadError::Setup(format!("NOMAD_TLS_SERVER_NAME: {error}")))?;
    }
    Ok((http, url))
}

/// Finds the same host behind every name.
struct OneHost(String);

impl Resolve for OneHost {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            let all: Vec<SocketAddr> = found.collect();
            Ok(Box::new(all.into_iter()) as Addrs)
        })
    }
}

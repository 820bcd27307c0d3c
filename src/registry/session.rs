//! One caller's requests to one repository: authorization, redirects, and answers made errors.
//!
//! Credentials and tokens go to the registry itself (scheme, host and port the same) and credentials
//! to the token server it names, nowhere else; and never over plain HTTP unless that host is listed
//! as insecure. Only GET and HEAD follow redirects.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::auth::{Auth, Credential};
use super::client::Client;
use super::error::RegistryError;
use super::http::{authority, blob_body, seconds, transmit};
use super::layout::{Blob, Layout};
use super::manifest::Manifest;
use super::token::{Challenge, Grant, GrantKey, TokenAnswer};
use crate::wire;

use crate::build::reference::Repository;

/// All manifest types, so that a registry converts none.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
const MAX_REDIRECTS: u32 = 5;
/// Most bytes read of an error's body.
const MAX_ERROR_BODY: usize = 16 << 10;
/// Most bytes of a token server's answer.
const MAX_TOKEN_BODY: usize = 1 << 20;
const NO_TOKEN: &str = "its token server gave no usable token";

pub(super) struct Session<'a> {
    client: &'a Client,
    credential: Option<&'a Credential>,
    /// `…/v2/NAME/`
    base: Url,
    key: GrantKey,
}

/// A request's body. It is made anew for every attempt.
pub(super) enum Payload<'a> {
    Empty,
    /// None either, and the answer may take any time.
    Unbounded,
    Manifest(&'a Manifest),
    /// A blob from its file; `sent` counts the bytes that were read for sending.
    Blob {
        layout: &'a Layout,
        blob: &'a Blob,
        sent: &'a Arc<AtomicU64>,
    },
}

impl<'a> Session<'a> {
    /// `actions` as in a token's scope, like `pull,push`.
    pub(super) fn new(
        client: &'a Client,
        repo: &Repository,
        auth: &'a Auth,
        actions: &str,
    ) -> Result<Self, RegistryError> {
        let credential = auth.credential(repo)?;
        let host = match repo.host() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if client.is_insecure(host) {
            "http"
        } else {
            "https"
        };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{}/", repo.name()))
            .map_err(|e| RegistryError::Setup(format!("no URL for {repo}: {e}")))?;
        let key = GrantKey {
            host: repo.host().to_owned(),
            scope: format!("repository:{}:{actions}", repo.name()),
            credential: credential.cloned(),
        };
        Ok(Self {
            client,
            credential,
            base,
            key,
        })
    }

    /// The registry's URL for something in the repository.
    pub(super) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base
            .join(path)
            .map_err(|_| self.protocol("no URL for this"))
    }

    /// Sends a request; answers other than 2xx are errors.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        payload: &Payload<'_>,
    ) -> Result<Response, RegistryError> {
        let mut url = url.clone();
        let mut grant = if self.is_home(&url) {
            self.grant().await?
        } else {
            None
        };
        let mut challenged = false;
        let mut redirects = 0;
        loop {
            let home = self.is_home(&url);
            let mut request = self.request(&method, &url, payload)?;
            if home && let Some(grant) = &grant {
                request = request.header(AUTHORIZATION, grant.header.clone());
            }
            let response = transmit(request, &url).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && home && !challenged {
                challenged = true;
                if let Some(challenge) = Challenge::read(response.headers()) {
                    grant = Some(self.authorize(challenge).await?);
                    continue;
                }
            }
            let follows = matches!(method, Method::GET | Method::HEAD) && redirects < MAX_REDIRECTS;
            if status.is_redirection() && follows {
                redirects += 1;
                url = self.location(&url, response.headers())?;
                continue;
            }
            return Err(self.fault(&url, response).await);
        }
    }

    /// `send`, again after a transient fault.
    pub(super) async fn send_again(
        &self,
        method: Method,
        url: &Url,
        payload: &Payload<'_>,
    ) -> Result<Response, RegistryError> {
        let mut retries = self.client.retries();
        loop {
            match self.send(method.clone(), url, payload).await {
                Ok(response) => return Ok(response),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// Where an answer from `url` points to.
    pub(super) fn location(&self, url: &Url, headers: &HeaderMap) -> Result<Url, RegistryError> {
        let target = headers
            .get(LOCATION)
            .and_then(|value| url.join(value.to_str().ok()?).ok())
            .ok_or_else(|| self.protocol("no usable Location header"))?;
        self.check_target(&target)?;
        Ok(target)
    }

    /// The registry as errors name it.
    pub(super) fn host(&self) -> &str {
        &self.key.host
    }

    pub(super) fn protocol(&self, what: &'static str) -> RegistryError {
        RegistryError::Protocol {
            host: self.host().to_owned(),
            what,
        }
    }

    /// Whether a URL is the registry itself, not a place it points to.
    fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    fn request(
        &self,
        method: &Method,
        url: &Url,
        payload: &Payload<'_>,
    ) -> Result<RequestBuilder, RegistryError> {
        let request = self.client.http.request(method.clone(), url.clone());
        Ok(match payload {
            Payload::Empty => request
                .timeout(self.client.read_timeout)
                .header(ACCEPT, ACCEPTED),
            Payload::Unbounded => request,
            Payload::Manifest(manifest) => request
                .timeout(self.client.read_timeout)
                .header(CONTENT_TYPE, manifest.media_type())
                .body(manifest.bytes().to_vec()),
            // No timeout: who sends a blob watches `sent`.
            Payload::Blob { layout, blob, sent } => request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, blob.size)
                .body(blob_body(layout, blob, sent)?),
        })
    }

    /// The authorization in hand, renewed if it ran out.
    async fn grant(&self) -> Result<Option<Grant>, RegistryError> {
        match self.client.grants.get(&self.key) {
            Some(grant) if grant.expired() => self.authorize(grant.challenge).await.map(Some),
            grant => Ok(grant),
        }
    }

    /// Answers a challenge and keeps the authorization for later requests.
    async fn authorize(&self, challenge: Challenge) -> Result<Grant, RegistryError> {
        let grant = match &challenge {
            Challenge::Basic => {
                let secret = self.credential.and_then(Credential::basic);
                let secret = secret.ok_or_else(|| self.unauthorized())?;
                Grant::new(challenge, "Basic", &secret)
            }
            Challenge::Bearer { realm, service } => {
                let answer = self.fetch_token(realm, service.as_deref()).await?;
                Grant::from_token(challenge, &answer)
            }
        };
        let grant = grant.ok_or_else(|| self.protocol(NO_TOKEN))?;
        self.client.grants.insert(self.key.clone(), grant.clone());
        Ok(grant)
    }

    async fn fetch_token(
        &self,
        realm: &Url,
        service: Option<&str>,
    ) -> Result<TokenAnswer, RegistryError> {
        self.check_target(realm)?;
        let response = transmit(self.token_request(realm, service), realm).await?;
        if !response.status().is_success() {
            return Err(match self.fault(realm, response).await {
                // Not what "not found" is about: that would read as "no such image".
                RegistryError::NotFound { .. } => self.protocol("its token server is gone"),
                error => error,
            });
        }
        let body = wire::read_body(response, MAX_TOKEN_BODY)
            .await
            .map_err(|e| RegistryError::from_transport(&authority(realm), e))?;
        serde_json::from_slice(&body).map_err(|_| self.protocol(NO_TOKEN))
    }

    fn token_request(&self, realm: &Url, service: Option<&str>) -> RequestBuilder {
        let mut query = vec![("scope", self.key.scope.as_str())];
        query.extend(service.map(|service| ("service", service)));
        let request = if let Some(Credential::IdentityToken(token)) = self.credential {
            query.extend([
                ("grant_type", "refresh_token"),
                ("client_id", self.client.user_agent.as_str()),
                ("refresh_token", token),
            ]);
            self.client.http.post(realm.clone()).form(&query)
        } else {
            let mut url = realm.clone();
            url.query_pairs_mut().extend_pairs(&query);
            let request = self.client.http.get(url);
            match self.credential.and_then(Credential::basic) {
                Some(basic) => request.header(AUTHORIZATION, format!("Basic {basic}")),
                None => request,
            }
        };
        request.timeout(self.client.read_timeout)
    }

    /// Neither data nor secrets go to plain HTTP that isn't listed.
    fn check_target(&self, url: &Url) -> Result<(), RegistryError> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.is_home(url) => Ok(()),
            "http" if self.client.is_insecure(&authority(url)) => Ok(()),
            _ => Err(self.protocol(
                "it points to plain HTTP at a host that isn't listed as `insecure` (is its \
                 external URL set?)",
            )),
        }
    }

    fn unauthorized(&self) -> RegistryError {
        RegistryError::Unauthorized {
            host: self.host().to_owned(),
            given: self.credential.is_some(),
        }
    }

    async fn fault(&self, url: &Url, response: Response) -> RegistryError {
        let host = authority(url);
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED if !Challenge::lacks_right(response.headers()) => {
                return self.unauthorized();
            }
            StatusCode::TOO_MANY_REQUESTS => {
                return RegistryError::TooManyRequests {
                    host,
                    retry_after: seconds(response.headers().get(RETRY_AFTER)),
                };
            }
            _ => {}
        }
        let status = match status {
            StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
            status => status,
        };
        let body = wire::read_body(response, MAX_ERROR_BODY)
            .await
            .unwrap_or_default();
        let mut secrets = self.credential.map(Credential::secrets).unwrap_or_default();
        let grant = self.client.grants.get(&self.key);
        secrets.extend(grant.map(|grant| grant.secret().to_owned()));
        RegistryError::from_answer(&host, status.as_u16(), &body, &secrets)
    }
}

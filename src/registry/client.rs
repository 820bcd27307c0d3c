//! The client: its options, and what it does with manifests and tags.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, redirect};

use super::auth::Auth;
use super::error::RegistryError;
use super::manifest::{MAX_MANIFEST, Manifest, OCI_MANIFEST};
use super::retry::Retries;
use super::session::{Payload, Session};
use super::token::Grants;
use crate::wire;

use crate::build::digest::Digest;
use crate::build::reference::{PushReference, Reference, Repository};

const PULL: &str = "pull";
pub(super) const PUSH: &str = "pull,push";
const DELETE: &str = "pull,delete";

/// How to talk to registries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// `host[:port]` of registries and token servers that are spoken to in plain HTTP.
    pub insecure: Vec<String>,
    /// PEM certificates to be trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    pub connect_timeout: Duration,
    /// Longest for an answer; for a blob, longest without any progress.
    pub read_timeout: Duration,
    /// Pause before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(120),
            backoff: Duration::from_millis(500),
            user_agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl From<&crate::config::Registry> for ClientOptions {
    fn from(config: &crate::config::Registry) -> Self {
        Self {
            insecure: config.insecure.clone(),
            ca_file: config.ca_file.clone(),
            ..Self::default()
        }
    }
}

/// A client for any number of registries and credentials. Transient faults are retried.
pub struct Client {
    pub(super) http: reqwest::Client,
    pub(super) read_timeout: Duration,
    pub(super) user_agent: String,
    pub(super) grants: Grants,
    insecure: BTreeSet<String>,
    backoff: Duration,
}

impl Client {
    /// Reads the CA file, once.
    pub fn new(options: ClientOptions) -> Result<Self, RegistryError> {
        let setup = |e: &dyn std::fmt::Display| RegistryError::Setup(e.to_string());
        let mut http = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if let Some(file) = &options.ca_file {
            let certificates = wire::certificates(file).map_err(|e| setup(&e))?;
            http = http.tls_certs_merge(certificates);
        }
        Ok(Self {
            http: http.build().map_err(|e| setup(&e))?,
            read_timeout: options.read_timeout,
            user_agent: options.user_agent,
            grants: Grants::default(),
            insecure: options.insecure.into_iter().collect(),
            backoff: options.backoff,
        })
    }

    /// Asks whether the registry is there, and takes the credential that there is for `repo`, if there is one
    /// (distribution-spec 1.1, end-1).
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn greet(&self, repo: &Repository, auth: &Auth) -> Result<(), RegistryError> {
        let session = Session::new(self, repo, auth, PULL)?;
        let url = session.url("/v2/")?;
        session.send(Method::GET, &url, &Payload::Empty).await?;
        Ok(())
    }

    /// Stores the image's manifest under its digest; its blobs must be there. No tag changes.
    pub async fn put_manifest_by_digest(
        &self,
        manifest: &Manifest,
        repo: &Repository,
        auth: &Auth,
    ) -> Result<(), RegistryError> {
        let session = Session::new(self, repo, auth, PUSH)?;
        let digest = manifest.digest().to_string();
        self.put_manifest(&session, manifest, &digest).await?;
        Ok(())
    }

    /// Sets a tag to the manifest and gives the digest the registry has for it, which is always the
    /// manifest's own. After an error other than a rejection the tag may be set or not.
    pub async fn put_tag(
        &self,
        manifest: &Manifest,
        target: &PushReference,
        auth: &Auth,
    ) -> Result<Digest, RegistryError> {
        let session = Session::new(self, target.repository(), auth, PUSH)?;
        if let Some(digest) = self.put_manifest(&session, manifest, target.tag()).await? {
            return Ok(digest);
        }
        // It didn't say what it stored, so it is asked.
        let found = self.resolve(&target.clone().into(), auth).await?;
        let found = found.ok_or_else(|| session.protocol("a tag just set isn't there"))?;
        expect_digest(&session, manifest.digest(), &found)?;
        Ok(found)
    }

    /// The digest a reference stands for, or `None` if it isn't there. Without tag and digest the
    /// tag is `latest`.
    pub async fn resolve(
        &self,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<Option<Digest>, RegistryError> {
        let session = Session::new(self, reference.repository(), auth, PULL)?;
        let head = self.look_up(&session, Method::HEAD, reference).await;
        let found = match head {
            Ok(response) => header_digest(response.headers()),
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(found) = found else {
            return match self.manifest(reference, auth).await {
                Ok(manifest) => Ok(Some(manifest.digest().clone())),
                Err(RegistryError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            };
        };
        if let Some(expected) = reference.digest() {
            expect_digest(&session, expected, &found)?;
        }
        Ok(Some(found))
    }

    /// Fetches a manifest; its bytes agree with the digest asked for and the one answered. Without
    /// tag and digest the tag is `latest`.
    pub async fn manifest(
        &self,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<Manifest, RegistryError> {
        let session = Session::new(self, reference.repository(), auth, PULL)?;
        let response = self.look_up(&session, Method::GET, reference).await?;
        let answered = header_digest(response.headers());
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok()?.split(';').next())
            .map_or(OCI_MANIFEST, str::trim)
            .to_owned();
        let limit = usize::try_from(MAX_MANIFEST).unwrap_or(usize::MAX);
        let body = wire::read_body(response, limit.saturating_add(1))
            .await
            .map_err(|e| RegistryError::from_transport(session.host(), e))?;
        if body.len() > limit {
            return Err(session.protocol("a manifest of more than 4 MiB"));
        }
        let manifest = Manifest::new(body, &media_type);
        for expected in reference.digest().into_iter().chain(&answered) {
            expect_digest(&session, expected, manifest.digest())?;
        }
        Ok(manifest)
    }

    /// Begins to fetch a blob. Its bytes are what the registry gives: who takes them compares the digest, and
    /// bounds the time.
    pub async fn blob(
        &self,
        repo: &Repository,
        digest: &Digest,
        auth: &Auth,
    ) -> Result<Response, RegistryError> {
        let session = Session::new(self, repo, auth, PULL)?;
        let url = session.url(&format!("blobs/{digest}"))?;
        session
            .send_again(Method::GET, &url, &Payload::Unbounded)
            .await
    }

    /// Deletes a manifest and with it all tags that stand for it.
    pub async fn delete_manifest(
        &self,
        repo: &Repository,
        digest: &Digest,
        auth: &Auth,
    ) -> Result<(), RegistryError> {
        let session = Session::new(self, repo, auth, DELETE)?;
        let url = session.url(&format!("manifests/{digest}"))?;
        session
            .send_again(Method::DELETE, &url, &Payload::Empty)
            .await?;
        Ok(())
    }

    /// Whether `host[:port]` is spoken to in plain HTTP.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        self.insecure.contains(host)
    }

    /// The attempts one operation has.
    pub(super) fn retries(&self) -> Retries {
        Retries::new(self.backoff)
    }

    async fn put_manifest(
        &self,
        session: &Session<'_>,
        manifest: &Manifest,
        name: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let url = session.url(&format!("manifests/{name}"))?;
        let payload = Payload::Manifest(manifest);
        let response = session.send_again(Method::PUT, &url, &payload).await?;
        let answered = header_digest(response.headers());
        if let Some(answered) = &answered {
            expect_digest(session, manifest.digest(), answered)?;
        }
        Ok(answered)
    }

    async fn look_up(
        &self,
        session: &Session<'_>,
        method: Method,
        reference: &Reference,
    ) -> Result<Response, RegistryError> {
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let url = session.url(&format!("manifests/{name}"))?;
        session.send_again(method, &url, &Payload::Empty).await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

/// A digest we can check, from the header `Docker-Content-Digest`.
fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    let value = headers.get("docker-content-digest")?;
    Digest::parse(value.to_str().ok()?).ok()
}

fn expect_digest(
    session: &Session<'_>,
    expected: &Digest,
    found: &Digest,
) -> Result<(), RegistryError> {
    if expected == found {
        return Ok(());
    }
    Err(RegistryError::DigestMismatch {
        host: session.host().to_owned(),
        expected: expected.clone(),
        found: found.clone(),
    })
}

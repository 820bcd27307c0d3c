//! A registry on loopback that hands out what it has fetched before: base images are fetched once for this
//! state directory, though each user that builds run as unpacks its own.
//!
//! ```text
//! Buildah ── GET /v2/TOKEN/HOST/NAME/… ──▶ Mirror ─┬─ manifests: asked of the registry each time
//!                                                  └─ blobs: from the disk, else from the registry to both
//! ```
//! Invariants
//! - Who does not know the token learns nothing. HOST is in hexadecimal: a port may not stand in a path.
//! - A blob is handed out only when a manifest of its repository has named it that the registry gave to this
//!   mirror's own credentials: what is there proves no access.
//! - Under the name of a digest lies only what has that digest; it is compared whenever it is read.

mod blobs;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as Rest, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::BytesMut;
use futures_util::stream;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::registry::{Auth, Client, ClientOptions, Digest, Reference, RegistryError, Repository};
pub use blobs::sweep;
use blobs::{Blobs, Found, Keeper, Stored};

/// Longest for the registry's answer, and then without any progress.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a blob that are sent at a time.
const CHUNK: usize = 128 << 10;
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A mirror. When this is dropped it takes no more requests.
pub struct Mirror {
    location: String,
    serving: JoinHandle<()>,
}

impl Mirror {
    /// Starts one with these credentials over the blobs in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made, or no port be had.
    pub async fn start(options: ClientOptions, auth: Auth, dir: &Path) -> io::Result<Self> {
        let blobs = Blobs::open(dir)?;
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| io::Error::other(error.to_string()))?;
        let token = hex::encode(token);
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let location = format!("{}/{token}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            options,
            client: OnceCell::new(),
            auth,
            token,
            blobs,
            named: Mutex::default(),
        });
        let router = Router::new()
            .route("/v2/", get(|| async {}))
            .route("/v2/{*rest}", get(answer))
            .with_state(shared);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "the mirror of registries has ended");
            }
        });
        Ok(Self { location, serving })
    }

    /// Where it is ([`crate::runner::mirrored::mirrored`]); who knows this may fetch what its credentials may.
    pub fn location(&self) -> &str {
        &self.location
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").finish_non_exhaustive()
    }
}

struct Shared {
    options: ClientOptions,
    /// Made when it is needed: it reads the certificates of the system.
    client: OnceCell<Client>,
    auth: Auth,
    token: String,
    blobs: Blobs,
    /// What manifests have named, in which repository.
    named: Mutex<HashSet<(Repository, Digest)>>,
}

/// What is asked for.
enum Wanted {
    Manifest(Repository, Digest),
    Blob(Repository, Digest),
}

async fn answer(State(shared): State<Arc<Shared>>, Rest(rest): Rest<String>) -> Response {
    let answer = match shared.wanted(&rest) {
        Some(Wanted::Manifest(repository, digest)) => shared.manifest(repository, digest).await,
        Some(Wanted::Blob(repository, digest)) => shared.blob(&repository, &digest).await,
        None => return StatusCode::NOT_FOUND.into_response(),
    };
    // Not one of those after which Buildah would try again (common, pkg/retry).
    answer.unwrap_or_else(|error| {
        tracing::debug!(%error, "the mirror has nothing to give");
        StatusCode::NOT_FOUND.into_response()
    })
}

/// Why a mirror gives nothing.
#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Shared {
    fn wanted(&self, rest: &str) -> Option<Wanted> {
        let (token, rest) = rest.split_once('/')?;
        if token != self.token {
            return None;
        }
        let (host, rest) = rest.split_once('/')?;
        let host = String::from_utf8(hex::decode(host).ok()?).ok()?;
        let (rest, digest) = rest.rsplit_once('/')?;
        let digest = Digest::parse(digest).ok()?;
        let (name, kind) = rest.rsplit_once('/')?;
        let repository = Repository::parse(&format!("{host}/{name}")).ok()?;
        match kind {
            "manifests" => Some(Wanted::Manifest(repository, digest)),
            "blobs" => {
                let key = (repository, digest);
                let known = self.named().contains(&key);
                known.then_some(Wanted::Blob(key.0, key.1))
            }
            _ => None,
        }
    }

    async fn client(&self) -> Result<&Client, MirrorError> {
        self.client
            .get_or_try_init(|| async {
                let options = self.options.clone();
                let made = tokio::task::spawn_blocking(|| Client::new(options));
                Ok(made.await.map_err(io::Error::other)??)
            })
            .await
    }

    fn named(&self) -> std::sync::MutexGuard<'_, HashSet<(Repository, Digest)>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn manifest(
        &self,
        repository: Repository,
        digest: Digest,
    ) -> Result<Response, MirrorError> {
        let reference = Reference::by_digest(repository.clone(), digest);
        let manifest = self
            .client()
            .await?
            .manifest(&reference, &self.auth)
            .await?;
        let value: Value = serde_json::from_slice(manifest.bytes()).unwrap_or_default();
        self.named()
            .extend(blobs_in(&value).map(|digest| (repository.clone(), digest)));
        let headers = [
            (CONTENT_TYPE, manifest.media_type().to_owned()),
            (DIGEST, manifest.digest().to_string()),
        ];
        Ok((headers, manifest.bytes().to_vec()).into_response())
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Response, MirrorError> {
        let keeper = match self.blobs.find(repository, digest).await? {
            Found::Stored(stored) => {
                let length = stored.length;
                return Ok(handing_out(Source::Stored(stored), digest, Some(length)));
            }
            Found::Missing(keeper) => keeper,
        };
        let client = self.client().await?;
        let answer = client.blob(repository, digest, &self.auth);
        let upstream = tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(io::Error::from)??;
        let length = upstream.content_length();
        let from = Source::Registry { upstream, keeper };
        Ok(handing_out(from, digest, length))
    }
}

/// Where a blob comes from.
enum Source {
    /// The disk.
    Stored(Stored),
    /// The registry.
    Registry {
        upstream: reqwest::Response,
        /// Who takes it to the disk at the same time.
        keeper: Option<Keeper>,
    },
}

/// A blob on its way to whoever asked for it.
struct HandingOut {
    /// `None` when all was read.
    from: Option<Source>,
    /// Read, and not yet handed out.
    held: Option<Bytes>,
    digest: Digest,
    sum: Sha256,
}

fn handing_out(from: Source, digest: &Digest, length: Option<u64>) -> Response {
    let state = HandingOut {
        from: Some(from),
        held: None,
        digest: digest.clone(),
        sum: Sha256::new(),
    };
    let chunks = stream::try_unfold(state, HandingOut::next);
    let mut response = Body::from_stream(chunks).into_response();
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

impl HandingOut {
    /// The next bytes, and what is still to come. The last of them are handed out only when the blob is what
    /// it is called, and kept: who has as many bytes as were announced asks for no more.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while let Some(from) = &mut self.from {
            let Some(bytes) = from.read().await? else {
                self.end().await?;
                break;
            };
            self.sum.update(&bytes);
            if let Some(before) = self.held.replace(bytes) {
                return Ok(Some((before, self)));
            }
        }
        Ok(self.held.take().map(|last| (last, self)))
    }

    async fn end(&mut self) -> io::Result<()> {
        let is_it = Digest::of_hash(std::mem::take(&mut self.sum)) == self.digest;
        let kept = match self.from.take() {
            Some(Source::Stored(stored)) if !is_it => stored.remove(),
            Some(Source::Registry {
                keeper: Some(keeper),
                ..
            }) if is_it => keeper.keep().await,
            _ => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "a blob of a base image cannot be kept, or removed");
        }
        if is_it {
            Ok(())
        } else {
            Err(io::Error::other("a blob is not what it is called"))
        }
    }
}

impl Source {
    /// The next bytes; `None` at the end.
    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Source::Stored(stored) => {
                let mut bytes = BytesMut::with_capacity(CHUNK);
                Ok((stored.file.read_buf(&mut bytes).await? > 0).then(|| bytes.freeze()))
            }
            Source::Registry { upstream, keeper } => {
                let chunk = tokio::time::timeout(PATIENCE, upstream.chunk()).await?;
                let bytes = chunk.map_err(io::Error::other)?;
                if let (Some(bytes), Some(to)) = (&bytes, &mut *keeper)
                    && let Err(error) = to.write(bytes).await
                {
                    tracing::warn!(%error, "a blob of a base image cannot be kept");
                    *keeper = None;
                }
                Ok(bytes)
            }
        }
    }
}

/// Digests that a manifest names: its configuration and layers. An index names manifests, which are asked
/// of the registry.
fn blobs_in(manifest: &Value) -> impl Iterator<Item = Digest> + '_ {
    let layers = manifest.get("layers").and_then(Value::as_array);
    let descriptors = manifest
        .get("config")
        .into_iter()
        .chain(layers.into_iter().flatten());
    descriptors.filter_map(|one| Digest::parse(one.get("digest")?.as_str()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::mirrored::mirrored;
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use std::fs;
    use std::path::PathBuf;

    const BLOB: &[u8] = b"a layer";

    /// A registry whose one image has one layer, and a mirror of it.
    struct Setting {
        registry: MockServer,
        dir: tempfile::TempDir,
        manifest: Vec<u8>,
    }

    impl Setting {
        async fn new() -> Self {
            let manifest =
                serde_json::json!({"layers": [{"digest": Digest::of(BLOB).to_string()}]});
            Self::with(manifest.to_string().into_bytes(), BLOB).await
        }

        async fn with(manifest: Vec<u8>, blob: &[u8]) -> Self {
            let setting = Self {
                registry: MockServer::start().await,
                dir: tempfile::tempdir().unwrap(),
                manifest,
            };
            let manifest = format!("/v2/team/app/manifests/{}", Digest::of(&setting.manifest));
            for (at, bytes) in [
                (manifest, setting.manifest.clone()),
                (blob_path(), blob.to_vec()),
            ] {
                let answer = ResponseTemplate::new(200).set_body_bytes(bytes);
                Mock::given(method("GET"))
                    .and(path(at))
                    .respond_with(answer)
                    .mount(&setting.registry)
                    .await;
            }
            setting
        }

        fn host(&self) -> String {
            self.registry.address().to_string()
        }

        async fn mirror(&self) -> Mirror {
            let options = ClientOptions {
                insecure: vec![self.host()],
                ..ClientOptions::default()
            };
            Mirror::start(options, Auth::anonymous(), self.dir.path())
                .await
                .unwrap()
        }

        /// What is handed out; the status of an answer that it is not, or nothing where there is no whole answer.
        async fn get(&self, mirror: &str, what: &str) -> Result<Vec<u8>, Option<StatusCode>> {
            let repository = Repository::parse(&format!("{}/team/app", self.host())).unwrap();
            let location = mirrored(mirror, &repository);
            let (address, rest) = location.split_once('/').unwrap();
            let url = format!("http://{address}/v2/{rest}/{what}");
            let answer = reqwest::get(url).await.map_err(|_| None)?;
            if !answer.status().is_success() {
                return Err(Some(answer.status()));
            }
            Ok(answer.bytes().await.map_err(|_| None)?.to_vec())
        }

        fn manifest(&self) -> String {
            format!("manifests/{}", Digest::of(&self.manifest))
        }

        async fn blobs_asked_for(&self) -> usize {
            let requests = self.registry.received_requests().await.unwrap();
            requests
                .iter()
                .filter(|one| one.url.path() == blob_path())
                .count()
        }

        fn stored(&self) -> PathBuf {
            let entries = fs::read_dir(self.dir.path()).unwrap();
            let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            assert_eq!(paths.len(), 1);
            paths[0].clone()
        }
    }

    fn blob_path() -> String {
        format!("/v2/team/app/{}", blob())
    }

    fn blob() -> String {
        format!("blobs/{}", Digest::of(BLOB))
    }

    #[tokio::test]
    async fn a_blob_is_fetched_once_and_only_for_who_is_given_its_manifest() {
        let setting = Setting::new().await;
        for times in 0..3 {
            let mirror = setting.mirror().await;
            let at = mirror.location();
            assert_eq!(
                setting.get(at, &blob()).await,
                Err(Some(StatusCode::NOT_FOUND))
            );
            assert_eq!(
                setting.get(at, &setting.manifest()).await.unwrap(),
                setting.manifest
            );
            assert_eq!(setting.get(at, &blob()).await.unwrap(), BLOB, "{times}");
            assert_eq!(setting.blobs_asked_for().await, 1);
        }
        assert_eq!(fs::read(setting.stored()).unwrap(), BLOB);
    }

    #[tokio::test]
    async fn without_the_token_nothing_is_there() {
        let setting = Setting::new().await;
        let mirror = setting.mirror().await;
        let (address, token) = mirror.location().split_once('/').unwrap();
        let wrong = format!("{address}/{}", token.replace(|_: char| true, "0"));
        assert_eq!(
            setting.get(&wrong, &setting.manifest()).await,
            Err(Some(StatusCode::NOT_FOUND))
        );
    }

    #[tokio::test]
    async fn what_is_not_the_blob_is_neither_kept_nor_handed_out_as_whole() {
        let setting = Setting::new().await;
        let mirror = setting.mirror().await;
        let at = mirror.location();
        setting.get(at, &setting.manifest()).await.unwrap();
        setting.get(at, &blob()).await.unwrap();
        fs::write(setting.stored(), b"damaged").unwrap();
        assert_eq!(setting.get(at, &blob()).await, Err(None));
        assert_eq!(setting.get(at, &blob()).await.unwrap(), BLOB);
        assert_eq!(fs::read(setting.stored()).unwrap(), BLOB);
    }

    #[tokio::test]
    async fn what_one_repository_has_is_not_handed_out_for_another() {
        let setting = Setting::new().await;
        let mirror = setting.mirror().await;
        setting
            .get(mirror.location(), &setting.manifest())
            .await
            .unwrap();
        setting.get(mirror.location(), &blob()).await.unwrap();
        // Another registry has the manifest, and not the blob.
        let manifest = setting.manifest.clone();
        let other = Setting::with(manifest, b"something else").await;
        let other = Setting {
            dir: setting.dir,
            ..other
        };
        let mirror = other.mirror().await;
        other
            .get(mirror.location(), &other.manifest())
            .await
            .unwrap();
        assert_eq!(other.get(mirror.location(), &blob()).await, Err(None));
        assert_eq!(other.blobs_asked_for().await, 1);
    }
}

//! A registry on loopback that hands out what it has fetched before: base images are fetched once for this
//! machine, though each user that builds run as unpacks its own.
//!
//! ```text
//! Buildah ── GET /v2/TOKEN/HOST/NAME/… ──▶ Mirror ─┬─ manifests: asked of the registry each time
//!                                                  └─ blobs: DIR/HEX, else of the registry into DIR/HEX
//! ```
//! Invariants
//! - Who does not know the token learns nothing. HOST is in hexadecimal: a port may not stand in a path.
//! - A blob is handed out only when a manifest has named it that the registry gave to this mirror's own
//!   credentials: what is there proves no access.
//! - Under the name of a digest lies only what has that digest.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

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
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::registry::{Auth, Client, ClientOptions, Digest, Reference, RegistryError, Repository};
use crate::runner::lock::{is_at, try_lock};

/// Between two looks whether somebody else has fetched a blob.
const AGAIN: Duration = Duration::from_millis(50);
/// Longest without any progress.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a blob that are sent at a time.
const CHUNK: usize = 128 << 10;
/// What is added to the name of a blob that is not whole.
const PART: &str = "part";
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A mirror; it ends when this is dropped.
#[derive(Debug)]
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
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
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
            dir: dir.to_owned(),
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

    /// Where it is ([`crate::runner::images::mirrored`]); who knows this may fetch what its credentials may.
    pub fn location(&self) -> &str {
        &self.location
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Removes the blobs that were used least recently until what is there has at most `limit` bytes, and what
/// nobody fetches any more. Whoever reads a blob reads it to its end. Blocks.
///
/// # Errors
/// When the directory cannot be read.
pub fn sweep(dir: &Path, limit: u64) -> io::Result<()> {
    let mut blobs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some() {
            if try_lock(&path)?.is_some() {
                fs::remove_file(&path)?;
            }
        } else if let Ok(metadata) = fs::metadata(&path) {
            blobs.push((metadata.modified()?, metadata.len(), path));
        }
    }
    blobs.sort_unstable();
    let mut total: u64 = blobs.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in blobs {
        if total <= limit {
            break;
        }
        fs::remove_file(path)?;
        total -= size;
    }
    Ok(())
}

struct Shared {
    options: ClientOptions,
    /// Made when it is needed: it reads the certificates of the system.
    client: OnceCell<Client>,
    auth: Auth,
    token: String,
    dir: PathBuf,
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
    // Buildah goes to the registry itself then, and tells what is wrong.
    answer.unwrap_or_else(|error| {
        tracing::debug!(%error, "the mirror has nothing to give");
        StatusCode::BAD_GATEWAY.into_response()
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
        let whole = self.dir.join(digest.hex());
        let part = whole.with_extension(PART);
        let lock = loop {
            if let Ok(file) = fs::File::open(&whole) {
                // Used now: that keeps it.
                file.set_modified(SystemTime::now())?;
                let length = file.metadata()?.len();
                let from = Source::Stored(File::from_std(file), whole);
                return Ok(handing_out(from, digest, Some(length)));
            }
            match try_lock(&part)? {
                Some(lock) if is_at(&lock, &part) => break lock,
                _ => tokio::time::sleep(AGAIN).await,
            }
        };
        let client = self.client().await?;
        let upstream = client.blob(repository, digest, &self.auth).await?;
        lock.set_len(0)?;
        let length = upstream.content_length();
        let from = Source::Registry {
            upstream,
            file: File::from_std(lock),
            part,
            whole,
        };
        Ok(handing_out(from, digest, length))
    }
}

/// Where a blob comes from.
enum Source {
    /// Its file, at this path.
    Stored(File, PathBuf),
    /// The registry; it goes to its file at the same time, which this mirror holds.
    Registry {
        upstream: reqwest::Response,
        file: File,
        part: PathBuf,
        whole: PathBuf,
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
        match self.from.take() {
            Some(Source::Stored(_, path)) if !is_it => fs::remove_file(path)?,
            Some(Source::Registry {
                mut file,
                part,
                whole,
                ..
            }) if is_it => {
                file.flush().await?;
                fs::rename(part, whole)?;
            }
            _ => {}
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
            Source::Stored(file, _) => {
                let mut bytes = BytesMut::with_capacity(CHUNK);
                Ok((file.read_buf(&mut bytes).await? > 0).then(|| bytes.freeze()))
            }
            Source::Registry { upstream, file, .. } => {
                let chunk = tokio::time::timeout(PATIENCE, upstream.chunk()).await?;
                let bytes = chunk.map_err(io::Error::other)?;
                if let Some(bytes) = &bytes {
                    file.write_all(bytes).await?;
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
    use crate::runner::images::mirrored;
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    const BLOB: &[u8] = b"a layer";

    /// A registry whose one image has one layer, and a mirror of it.
    struct Setting {
        registry: MockServer,
        dir: tempfile::TempDir,
        manifest: Vec<u8>,
    }

    impl Setting {
        async fn new() -> Self {
            let registry = MockServer::start().await;
            let manifest =
                serde_json::json!({"layers": [{"digest": Digest::of(BLOB).to_string()}]});
            let setting = Self {
                registry,
                dir: tempfile::tempdir().unwrap(),
                manifest: manifest.to_string().into_bytes(),
            };
            let manifest = format!("/v2/team/app/manifests/{}", Digest::of(&setting.manifest));
            for (at, bytes) in [
                (manifest, setting.manifest.clone()),
                (blob_path(), BLOB.to_vec()),
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
            self.dir.path().join(Digest::of(BLOB).hex())
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
        assert_eq!(fs::read_dir(setting.dir.path()).unwrap().count(), 1);
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
        fs::write(setting.stored(), b"damaged").unwrap();
        assert_eq!(setting.get(at, &blob()).await, Err(None));
        assert_eq!(setting.get(at, &blob()).await.unwrap(), BLOB);
        assert_eq!(fs::read(setting.stored()).unwrap(), BLOB);
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, age) in [("a", 3), ("b", 1), ("c", 2), ("d.part", 9), ("e.part", 9)] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        let _held = try_lock(&dir.path().join("e.part")).unwrap().unwrap();
        sweep(dir.path(), 200).unwrap();
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!(
            ["a", "b", "c", "d.part", "e.part"].map(left),
            [false, true, true, false, true]
        );
    }
}

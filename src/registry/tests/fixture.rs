use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::registry::manifest::OCI_MANIFEST;
use crate::registry::{Auth, Client, ClientOptions, Digest, Layout, Repository};

pub const USER: &str = "builder";
pub const PASSWORD: &str = "swordfish-7";
pub const NO_LIMIT: u64 = u64::MAX;

/// A layout on disk whose parts a test may spoil before it is opened.
pub struct Image {
    pub dir: TempDir,
    pub config: Digest,
    pub layer: Digest,
    pub manifest: Digest,
}

impl Image {
    /// A config and one gzip layer that holds `content`.
    pub fn new(content: &[u8]) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(content).unwrap();
        let layer_bytes = gzip.finish().unwrap();
        let config_bytes = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(content)]},
        })
        .to_string();

        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        let mut image = Self {
            config: put_blob(dir.path(), config_bytes.as_bytes()),
            layer: put_blob(dir.path(), &layer_bytes),
            manifest: Digest::of(b""),
            dir,
        };
        image.set_manifest(&json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": image.config, "size": config_bytes.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": image.layer, "size": layer_bytes.len(),
            }],
        }));
        image
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.hex())
    }

    pub fn manifest_json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.blob_path(&self.manifest)).unwrap()).unwrap()
    }

    /// Stores the manifest and makes it the only one of the index.
    pub fn set_manifest(&mut self, manifest: &Value) {
        let bytes = manifest.to_string();
        self.manifest = put_blob(self.path(), bytes.as_bytes());
        let entry =
            json!({"mediaType": OCI_MANIFEST, "digest": self.manifest, "size": bytes.len()});
        self.set_index(&json!({"schemaVersion": 2, "manifests": [entry]}));
    }

    pub fn set_index(&self, index: &Value) {
        let file = |name| self.path().join(name);
        std::fs::write(file("index.json"), index.to_string()).unwrap();
        std::fs::write(file("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    pub fn open(&self) -> Layout {
        Layout::open(self.path(), NO_LIMIT).unwrap()
    }
}

fn put_blob(dir: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    std::fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    digest
}

/// Bytes that don't compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

pub fn repository(host: impl std::fmt::Display, name: &str) -> Repository {
    Repository::parse(&format!("{host}/{name}")).unwrap()
}

pub fn auth_for(host: impl std::fmt::Display, username: &str, password: &str) -> Auth {
    let file = json!({"auths": {host.to_string(): {"username": username, "password": password}}});
    Auth::from_slice(file.to_string().as_bytes()).unwrap()
}

/// A client that speaks plain HTTP to `hosts` and doesn't dawdle.
pub fn client(hosts: &[&dyn std::fmt::Display]) -> Client {
    Client::new(ClientOptions {
        insecure: hosts.iter().map(ToString::to_string).collect(),
        backoff: Duration::from_millis(5),
        ..ClientOptions::default()
    })
    .unwrap()
}

/// Debian's `docker-registry` on a loopback port, with storage of its own.
pub struct LiveRegistry {
    child: Child,
    pub host: SocketAddr,
    dir: TempDir,
}

impl LiveRegistry {
    pub fn open() -> Self {
        Self::start(|_| json!({}), false)
    }

    /// Lets `USER` in with `PASSWORD`, nobody else.
    pub fn with_password() -> Self {
        let settings = |dir: &Path| {
            let path = dir.join("htpasswd");
            let hash = bcrypt::hash(PASSWORD, 4).unwrap();
            std::fs::write(&path, format!("{USER}:{hash}\n")).unwrap();
            json!({"auth": {"htpasswd": {"realm": "test", "path": path}}})
        };
        Self::start(settings, false)
    }

    /// Has a certificate that only `ca_file` vouches for.
    pub fn with_tls() -> Self {
        let settings = |dir: &Path| {
            let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
            std::fs::write(&certificate, pair.cert.pem()).unwrap();
            std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
            json!({"http": {"tls": {"certificate": certificate, "key": key}}})
        };
        Self::start(settings, true)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    fn start(settings: impl Fn(&Path) -> Value, tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = free.local_addr().unwrap();
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": dir.path().join("data")},
                "delete": {"enabled": true},
            },
            "http": {},
        });
        for (key, value) in settings(dir.path()).as_object().unwrap() {
            config[key] = value.clone();
        }
        config["http"]["addr"] = json!(host.to_string());
        let file = dir.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        drop(free);
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, host, dir };
        registry.wait_until_ready(tls);
        registry
    }

    fn wait_until_ready(&mut self, tls: bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.answers(tls) {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended");
            assert!(Instant::now() < deadline, "the registry isn't ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self, tls: bool) -> bool {
        use std::io::Read as _;
        let Ok(mut stream) = std::net::TcpStream::connect(self.host) else {
            return false;
        };
        let request = format!("GET /v2/ HTTP/1.0\r\nHost: {}\r\n\r\n", self.host);
        let mut answer = String::new();
        let sent = stream.write_all(request.as_bytes());
        let read = stream.read_to_string(&mut answer);
        // A TLS server answers this with 400, which also says that it's there.
        let expected: &[&str] = if tls { &[" 400 "] } else { &[" 200 ", " 401 "] };
        sent.is_ok() && read.is_ok() && expected.iter().any(|status| answer.contains(status))
    }
}

impl Drop for LiveRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a scripted server does with a connection once it read a request's head.
#[derive(Clone)]
pub enum Act {
    Answer(&'static str),
    /// Closes without a word.
    Hang,
    /// Leaves it open and never answers nor reads.
    Stall,
}

/// A server that does the acts one by one, a connection each, and counts them.
pub async fn scripted(acts: Vec<Act>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        let mut stalled = Vec::new();
        for act in acts {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            match act {
                Act::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Act::Hang => {}
                Act::Stall => stalled.push(stream),
            }
        }
        std::future::pending::<()>().await;
    });
    (host, count)
}

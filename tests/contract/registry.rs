//! A real registry (Debian's docker-registry), and what it holds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The registry, on a loopback port, with a directory of its own.
pub struct Registry {
    child: Child,
    pub host: SocketAddr,
    _dir: TempDir,
}

/// What a tag holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Tagged {
    /// `sha256:` digest of the manifest.
    pub digest: String,
    /// `sha256:` digest of the image's configuration.
    pub config: String,
}

impl Registry {
    pub fn open() -> Self {
        // Between the look for a free port and its use, somebody else may take it.
        (0..5)
            .find_map(|_| Self::start())
            .expect("docker-registry does not start")
    }

    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let host = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {"addr": host.to_string()},
        });
        let file = dir.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is not there: scripts/setup.sh installs it");
        let mut registry = Self {
            child,
            host,
            _dir: dir,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while registry
            .get("/v2/")
            .is_none_or(|(status, ..)| status != 200)
        {
            if registry.child.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// What a tag of the repository `app` holds; `None`: it is not there.
    pub fn tagged(&self, tag: &str) -> Option<Tagged> {
        let (status, body) = self
            .get(&format!("/v2/app/manifests/{tag}"))
            .expect("the registry does not answer");
        if status == 404 {
            return None;
        }
        assert_eq!(status, 200);
        let manifest: Value = serde_json::from_slice(&body).unwrap();
        let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
        // The configuration itself is there, too.
        let (status, blob) = self.get(&format!("/v2/app/blobs/{config}")).unwrap();
        assert_eq!((status, sha256(&blob)), (200, config.clone()));
        Some(Tagged {
            digest: sha256(&body),
            config,
        })
    }

    /// Whether the repository `app` has no tag at all.
    pub fn is_untagged(&self) -> bool {
        let (status, body) = self.get("/v2/app/tags/list").unwrap();
        status == 404
            || serde_json::from_slice::<Value>(&body).unwrap()["tags"]
                .as_array()
                .is_none_or(Vec::is_empty)
    }

    /// It goes away.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.host).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: {MANIFEST}\r\n\r\n",
            self.host
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer[end + 4..].to_vec()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A tag of the repository `app` at `host`.
pub fn app(host: SocketAddr, tag: &str) -> String {
    format!("{host}/app:{tag}")
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

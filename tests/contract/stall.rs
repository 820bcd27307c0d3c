//! Servers that do not do what they should: a proxy that holds or refuses requests, and one that
//! never answers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::lab::PATIENCE;

/// What the proxy does with a request that it is to disturb.
#[derive(Clone, Copy)]
pub enum Act {
    /// Keeps it until [`Proxy::release`]; then it goes on to the registry.
    Hold,
    /// Answers itself, with this.
    Answer(&'static str),
}

/// A registry's own word for "you may not".
pub const DENIED: &str = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\
     Content-Length: 72\r\nConnection: close\r\n\r\n\
     {\"errors\":[{\"code\":\"DENIED\",\"message\":\"requested access is denied...\"}]}\n";

/// An HTTP proxy before a registry. Each connection carries one request.
pub struct Proxy {
    pub host: SocketAddr,
    held: watch::Receiver<usize>,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Disturbs each request whose first line `concerns` says yes to.
    pub async fn before(upstream: SocketAddr, concerns: fn(&str) -> bool, act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        let (count, held) = watch::channel(0);
        let (open, gate) = watch::channel(false);
        let count = Arc::new(count);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (count, gate) = (Arc::clone(&count), gate.clone());
                tokio::spawn(async move {
                    // A side that hangs up ends the connection; that is all there is to it.
                    let _ = carry(client, upstream, concerns, act, &count, gate).await;
                });
            }
        });
        Self {
            host,
            held,
            open,
            task,
        }
    }

    /// Returns when a request is held.
    pub async fn holds(&self) {
        let mut held = self.held.clone();
        tokio::time::timeout(PATIENCE, held.wait_for(|count| *count > 0))
            .await
            .expect("no request came that is to be held")
            .unwrap();
    }

    /// Lets held requests go on, and all that follow.
    pub fn release(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    mut client: TcpStream,
    upstream: SocketAddr,
    concerns: fn(&str) -> bool,
    act: Act,
    count: &watch::Sender<usize>,
    mut gate: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (first, rest) = head.split_once("\r\n").unwrap_or_default();
    if concerns(first) {
        count.send_modify(|count| *count += 1);
        match act {
            Act::Hold => {
                let _ = gate.wait_for(|open| *open).await;
            }
            Act::Answer(text) => return client.write_all(text.as_bytes()).await,
        }
    }
    let mut server = TcpStream::connect(upstream).await?;
    let head = format!("{first}\r\nConnection: close\r\n{rest}");
    server.write_all(head.as_bytes()).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        // The registry closes after its answer.
        done = copy(&mut from_server, &mut to_client) => done.map(drop),
        _ = async {
            let _ = copy(&mut from_client, &mut to_server).await;
            std::future::pending::<()>().await;
        } => Ok(()),
    }
}

/// Accepts connections and says nothing. Returns its address and how many came.
pub async fn silent() -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let (count, came) = watch::channel(0);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
            count.send_replace(kept.len());
        }
    });
    (host, came)
}

/// An address at which nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// The upload of a blob.
pub fn is_blob_upload(first: &str) -> bool {
    first.starts_with("PUT ") && first.contains("/blobs/uploads/")
}

/// The first write of an upload.
pub fn is_upload_begun(first: &str) -> bool {
    first.starts_with("POST ") && first.contains("/blobs/uploads/")
}

/// The manifest under its digest, the last write before the commit point.
pub fn is_manifest(first: &str) -> bool {
    first.starts_with("PUT ") && first.contains("/manifests/sha256:")
}

/// The manifest under a tag, not under its digest.
pub fn is_tag(first: &str) -> bool {
    first.starts_with("PUT ")
        && first.contains("/manifests/")
        && !first.contains("/manifests/sha256:")
}

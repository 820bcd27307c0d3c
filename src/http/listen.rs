//! Where a server listens: an address, with or without TLS, or a socket in the file system.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::tls::Certificates;
use crate::config::Listen;
use crate::runner::fingerprint::Fingerprint;

/// How long a listener rests that cannot accept, because the process has no descriptors left.
const REST: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address.
    Address(SocketAddr),
    /// A user of this machine, by number (unix(7), SO_PEERCRED).
    User(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{}", address.ip()),
            Self::User(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// A connection as it was accepted.
#[derive(Debug)]
pub enum Stream {
    /// Over the network.
    Tcp(TcpStream),
    /// Over a socket in the file system.
    Unix(UnixStream),
}

/// Accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    pub(super) certificates: Option<Arc<Certificates>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// With its path, and what was made there.
    Unix(UnixListener, PathBuf, Fingerprint),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// When that place cannot be listened at.
    pub async fn bind(place: &Listen, certificates: Option<Certificates>) -> io::Result<Self> {
        let socket = match place {
            Listen::Tcp(address) => Socket::Tcp(TcpListener::bind(address).await?),
            Listen::Unix(path) => {
                let listener = bind_private(path)?;
                let made = Fingerprint::of(&std::fs::symlink_metadata(path)?);
                Socket::Unix(listener, path.clone(), made)
            }
        };
        Ok(Self {
            socket,
            certificates: certificates.map(Arc::new),
        })
    }

    /// Where it listens: the port is a number, also where any was asked for.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn place(&self) -> io::Result<Listen> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Listen::Tcp(listener.local_addr()?),
            Socket::Unix(_, path, _) => Listen::Unix(path.clone()),
        })
    }

    /// The socket in the file system, if it is one.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        match &self.socket {
            Socket::Tcp(_) => None,
            Socket::Unix(_, path, _) => Some(path.clone()),
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> (Stream, Peer) {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => (listener.accept().await)
                    .map(|(stream, address)| (Stream::Tcp(stream), Peer::Address(address))),
                Socket::Unix(listener, ..) => listener.accept().await.and_then(|(stream, _)| {
                    let user = stream.peer_cred()?.uid();
                    Ok((Stream::Unix(stream), Peer::User(user)))
                }),
            };
            match accepted {
                Ok(accepted) => return accepted,
                // The one who connected has gone again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another server may have taken the place.
        if let Socket::Unix(_, path, made) = &self.socket
            && std::fs::symlink_metadata(path).is_ok_and(|now| Fingerprint::of(&now) == *made)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A socket of mode 0600 from its first moment on: it is made in a directory that nobody else can enter.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::other("there is something else than a socket"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "a server answers there",
            ));
        }
        _ => {}
    }
    let hidden = tempfile::Builder::new()
        .prefix(".nomad-build-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    let made = hidden.path().join("s");
    let listener = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
    // Takes the place of one that a server left which was killed.
    std::fs::rename(&made, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mcp.sock");
        let place = Listen::Unix(path.clone());
        let listener = Listener::bind(&place, None).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Listener::bind(&place, None).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        client.unwrap();
        assert_eq!(accepted.1, Peer::User(rustix::process::geteuid().as_raw()));
        drop(listener);
        assert!(!path.exists());
        // What a server left that was killed, is no hindrance; another file is.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Listener::bind(&place, None).await.unwrap());
        std::fs::write(&path, "mine").unwrap();
        assert!(Listener::bind(&place, None).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

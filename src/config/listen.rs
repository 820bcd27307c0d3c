//! Where a server listens: an address, or a socket in the file system.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// At an address of the network.
    Tcp(SocketAddr),
    /// At a socket in the file system, which its owner alone can open.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("the path of a socket begins with /, such as unix:/run/nomad-build/mcp.sock".into()),
            None => (text.parse().map(Self::Tcp)).map_err(|_| {
                "it is neither an address with a port, such as 127.0.0.1:8080, nor a socket, such as unix:/run/nomad-build/mcp.sock".into()
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_or_a_socket() {
        let address = "127.0.0.1:8080".parse().unwrap();
        assert_eq!("127.0.0.1:8080".parse(), Ok(Listen::Tcp(address)));
        let path = PathBuf::from("/run/x.sock");
        assert_eq!("unix:/run/x.sock".parse(), Ok(Listen::Unix(path)));
        for wrong in ["unix:x", "localhost", "8080", "", "/run/x.sock"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}

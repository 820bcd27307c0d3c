//! The certificate of a server, read again when it is renewed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::runner::fingerprint::Fingerprint;

/// Protocols that are spoken over TLS, the best first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Accepts connections with TLS 1.2 and 1.3.
pub struct Certificates {
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads a chain of certificates and its key, both in PEM.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub fn open(chain: &Path, key: &Path) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let pair = Pair {
            chain: chain.to_owned(),
            key: key.to_owned(),
            provider: Arc::clone(&provider),
            current: Mutex::default(),
        };
        pair.refresh()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(pair));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

struct Pair {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

/// What was read last, and of which state of the files.
#[derive(Default)]
struct Current {
    state: Option<[Fingerprint; 2]>,
    certified: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl Pair {
    fn refresh(&self) -> io::Result<()> {
        let state = [
            Fingerprint::of(&fs::metadata(&self.chain)?),
            Fingerprint::of(&fs::metadata(&self.key)?),
        ];
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.state == Some(state) {
            return Ok(());
        }
        // What does not fit together is tried once: whoever renews writes the other file, too.
        let first = current.state.replace(state).is_none();
        current.certified = Some(Arc::new(self.read()?));
        if !first {
            tracing::info!(file = %self.chain.display(), "the certificate was renewed");
        }
        Ok(())
    }

    fn read(&self) -> io::Result<CertifiedKey> {
        let chain = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| broken(&self.chain, &error))?;
        if chain.is_empty() {
            return Err(broken(&self.chain, &"it has no certificate"));
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| broken(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, &self.provider)
            .map_err(|error| broken(&self.key, &error))
    }
}

fn broken(file: &Path, error: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Err(error) = self.refresh() {
            tracing::error!(%error, "the renewed certificate cannot be used; the one before it goes on");
        }
        (self.current.lock().unwrap_or_else(PoisonError::into_inner))
            .certified
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (chain, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&chain, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (chain, key)
    }

    fn pair(dir: &Path) -> Pair {
        let (chain, key) = write(dir, "a.example.com");
        Pair {
            chain,
            key,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            current: Mutex::default(),
        }
    }

    fn shown(pair: &Pair) -> Vec<u8> {
        let current = pair.current.lock().unwrap();
        current.certified.as_ref().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let pair = pair(dir.path());
        pair.refresh().unwrap();
        let first = shown(&pair);
        write(dir.path(), "b.example.com");
        pair.refresh().unwrap();
        let second = shown(&pair);
        assert_ne!(first, second);
        fs::write(&pair.chain, "none").unwrap();
        assert!(pair.refresh().is_err());
        assert_eq!(shown(&pair), second);
        // A key of another certificate, as it is for a moment when they are renewed.
        let chain = fs::read(&pair.chain).unwrap();
        write(dir.path(), "c.example.com");
        let renewed = fs::read(&pair.chain).unwrap();
        fs::write(&pair.chain, chain).unwrap();
        assert!(pair.refresh().is_err());
        fs::write(&pair.chain, renewed).unwrap();
        pair.refresh().unwrap();
        assert_ne!(shown(&pair), second);
    }

    #[test]
    fn what_is_no_certificate_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = write(dir.path(), "a.example.com");
        assert!(Certificates::open(&chain, &key).is_ok());
        let other = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        let error = Certificates::open(&chain, &key).unwrap_err().to_string();
        assert!(error.contains("key.pem"), "{error}");
        assert!(Certificates::open(&dir.path().join("none"), &key).is_err());
    }
}

//! What can go wrong between us and a registry, told apart by what one would do about it.
//!
//! No message contains a URL (upload locations carry tokens) or a credential. What the registry said
//! is foreign text: cut, and rid of control and invisible characters.

use std::error::Error as StdError;
use std::time::Duration;

use serde::Deserialize;

use super::auth::AuthError;
use super::layout::LayoutError;
use crate::build::digest::Digest;

/// Most characters of a registry's own message that are kept.
const MAX_MESSAGE: usize = 500;
/// A registry that asks for more patience than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why a registry couldn't be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    #[error("the connection was refused")]
    Refused,
    #[error("its name can't be resolved")]
    Dns,
    #[error("it didn't answer in time")]
    Timeout,
    #[error("the connection broke off")]
    Reset,
    #[error("there is no route to it")]
    NoRoute,
}

/// Why TLS with a registry failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    #[error("its certificate isn't trusted ({0}); is a CA file needed?")]
    NotTrusted(String),
    #[error("it doesn't speak TLS; if it is meant to be plain HTTP, list it as `insecure`")]
    PlainHttp,
    #[error("{0}")]
    Other(String),
}

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    #[error("registry {host} can't be reached: {why}")]
    Unreachable { host: String, why: Unreachable },
    #[error("no TLS with registry {host}: {why}")]
    Tls { host: String, why: TlsFault },
    /// 401. `given`: there were credentials for it.
    #[error("registry {host} {}", if *given { "didn't accept the credentials" } else { "wants credentials; none are configured for it" })]
    Unauthorized { host: String, given: bool },
    /// 403, or a token without the right.
    #[error("registry {host} denies this: {message}")]
    Denied { host: String, message: String },
    /// 404: no such repository, manifest or upload.
    #[error("registry {host} doesn't know this: {message}")]
    NotFound { host: String, message: String },
    #[error("registry {host} says: too many requests")]
    TooManyRequests {
        host: String,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// Any other answer that isn't a success; `code` is the registry's, as `MANIFEST_INVALID`.
    #[error("registry {host} rejected this ({status} {code}): {message}")]
    Rejected {
        host: String,
        status: u16,
        code: String,
        message: String,
    },
    #[error("registry {host} has a fault of its own ({status}): {message}")]
    Server {
        host: String,
        status: u16,
        message: String,
    },
    #[error("registry {host} has {found} where {expected} should be")]
    DigestMismatch {
        host: String,
        expected: Digest,
        found: Digest,
    },
    /// It answered something the distribution specification doesn't allow.
    #[error("registry {host} answered against the specification: {what}")]
    Protocol { host: String, what: &'static str },
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Reading a blob from disk failed while it was sent.
    #[error("can't read a blob to be sent: {0}")]
    Io(#[source] std::io::Error),
    /// The client can't be set up as configured.
    #[error("registry client: {0}")]
    Setup(String),
}

impl RegistryError {
    /// Whether the same request may well succeed if it's made again within half a minute.
    pub fn transient(&self) -> bool {
        match self {
            Self::Unreachable { why, .. } => {
                matches!(why, Unreachable::Reset | Unreachable::Refused)
            }
            Self::TooManyRequests { retry_after, .. } => {
                retry_after.is_none_or(|wait| wait <= LONGEST_WAIT)
            }
            // Not implemented, version not supported and no space left don't pass by themselves.
            Self::Server { status, .. } => !matches!(status, 501 | 505 | 507),
            _ => false,
        }
    }

    /// The error of a request that got no whole answer.
    pub(super) fn from_transport(host: &str, error: reqwest::Error) -> Self {
        let host = host.to_owned();
        let unreachable = |why| Self::Unreachable {
            host: host.clone(),
            why,
        };
        if error.is_timeout() {
            return unreachable(Unreachable::Timeout);
        }
        if error.is_builder() {
            return Self::Setup(error.without_url().to_string());
        }
        for cause in causes(&error) {
            if let Some(LocalRead(kind)) = cause.downcast_ref() {
                return Self::Io((*kind).into());
            }
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return Self::Tls {
                    host,
                    why: tls_fault(tls),
                };
            }
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                use std::io::ErrorKind as Kind;
                match io.kind() {
                    Kind::ConnectionRefused => return unreachable(Unreachable::Refused),
                    Kind::HostUnreachable | Kind::NetworkUnreachable => {
                        return unreachable(Unreachable::NoRoute);
                    }
                    Kind::TimedOut => return unreachable(Unreachable::Timeout),
                    _ => {}
                }
            }
            // The connector's error type is private; this text is all that tells.
            if cause.to_string() == "dns error" {
                return unreachable(Unreachable::Dns);
            }
        }
        unreachable(Unreachable::Reset)
    }

    /// The error that an answer without success stands for; `secrets` don't get into its text.
    pub(super) fn from_answer(host: &str, status: u16, body: &[u8], secrets: &[String]) -> Self {
        let host = host.to_owned();
        let Fault { code, message } = Fault::read(body, secrets);
        match status {
            403 => Self::Denied { host, message },
            404 => Self::NotFound { host, message },
            500..=599 => Self::Server {
                host,
                status,
                message,
            },
            _ => Self::Rejected {
                host,
                status,
                code,
                message,
            },
        }
    }
}

/// A file of ours couldn't be read while it was the body of a request.
#[derive(Debug, thiserror::Error)]
#[error("reading a blob from disk: {0}")]
pub(super) struct LocalRead(pub std::io::ErrorKind);

/// The error and all that caused it.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

/// `source`, but that of an `io::Error` leaves out the error within it.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let within = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    match within {
        Some(inner) => Some(inner as &(dyn StdError + 'static)),
        None => error.source(),
    }
}

fn tls_fault(error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(why) => {
            TlsFault::NotTrusted(clean(&why.to_string(), &[]))
        }
        rustls::Error::InvalidMessage(_) => TlsFault::PlainHttp,
        other => TlsFault::Other(clean(&other.to_string(), &[])),
    }
}

/// The first error of a registry's answer.
struct Fault {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<EnvelopeError>,
}

#[derive(Deserialize)]
struct EnvelopeError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Fault {
    fn read(body: &[u8], secrets: &[String]) -> Self {
        let first = serde_json::from_slice::<Envelope>(body)
            .ok()
            .and_then(|envelope| envelope.errors.into_iter().next());
        let (code, message) = match first {
            Some(error) => (error.code, error.message),
            None => (String::new(), String::from_utf8_lossy(body).into_owned()),
        };
        let or = |text: String, default: &str| {
            if text.is_empty() {
                default.to_owned()
            } else {
                text
            }
        };
        Self {
            code: or(clean(&code, secrets), "no code"),
            message: or(clean(&message, secrets), "no message"),
        }
    }
}

/// One line of at most `MAX_MESSAGE` characters, without secrets, control, format and
/// bidirectional characters.
fn clean(text: &str, secrets: &[String]) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .collect();
    for secret in secrets.iter().filter(|s| !s.is_empty()) {
        shown = shown.replace(secret.as_str(), "***");
    }
    shown.trim().chars().take(MAX_MESSAGE).collect()
}

/// Zero-width and bidirectional characters, which make a text look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

//! How the operator's credentials reach git: bound to a URL prefix, never in an argument.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::build::git_url::{GitUrl, Transport};

/// Credentials for the repositories at or below a prefix.
#[derive(Clone)]
pub struct Credentials {
    prefix: GitUrl,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Basic { user: String, token: String },
    Key { key: PathBuf, known_hosts: PathBuf },
}

/// Why credentials cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialFault {
    #[error("a user and token go with an https URL, a key with an ssh URL")]
    Transport,
    #[error("the user has a colon, or the user or token is empty or has a control character")]
    Characters,
    #[error(
        "{0:?} is not an absolute path of letters, digits and `/._+=@,-`, which is all that ssh reads literally"
    )]
    Path(PathBuf),
}

impl Credentials {
    /// A user and a token or password.
    pub fn basic(prefix: GitUrl, user: &str, token: &str) -> Result<Self, CredentialFault> {
        if prefix.transport() == Transport::Ssh {
            return Err(CredentialFault::Transport);
        }
        let bad = |text: &str| text.is_empty() || text.contains(char::is_control);
        if user.contains(':') || bad(user) || bad(token) {
            return Err(CredentialFault::Characters);
        }
        let secret = Secret::Basic {
            user: user.to_owned(),
            token: token.to_owned(),
        };
        Ok(Self { prefix, secret })
    }

    /// The files of a private key without passphrase and of the host keys that are trusted.
    pub fn key(prefix: GitUrl, key: &Path, known_hosts: &Path) -> Result<Self, CredentialFault> {
        if prefix.transport() != Transport::Ssh {
            return Err(CredentialFault::Transport);
        }
        for path in [key, known_hosts] {
            let literal = path.to_str().is_some_and(|text| {
                text.starts_with('/')
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"/._+=@,-".contains(&byte))
            });
            if !literal {
                return Err(CredentialFault::Path(path.to_owned()));
            }
        }
        let secret = Secret::Key {
            key: key.to_owned(),
            known_hosts: known_hosts.to_owned(),
        };
        Ok(Self { prefix, secret })
    }

    /// Whether they are meant for `url`.
    pub fn apply_to(&self, url: &GitUrl) -> bool {
        url.is_within(&self.prefix)
    }

    /// A setting for git's environment. It is sent with the first request, so that a server need
    /// not ask, and only to this prefix.
    pub(super) fn setting(&self) -> Option<(String, String)> {
        match &self.secret {
            Secret::Basic { user, token } => Some((
                format!("http.{}.extraHeader", self.prefix),
                format!("Authorization: Basic {}", encode(user, token)),
            )),
            Secret::Key { .. } => None,
        }
    }

    pub(super) fn key_files(&self) -> Option<(&Path, &Path)> {
        match &self.secret {
            Secret::Basic { .. } => None,
            Secret::Key { key, known_hosts } => Some((key, known_hosts)),
        }
    }

    /// Words to keep out of logs and messages.
    pub(super) fn secrets(&self) -> Vec<String> {
        match &self.secret {
            Secret::Basic { user, token } => vec![encode(user, token), token.clone()],
            Secret::Key { .. } => Vec::new(),
        }
    }
}

fn encode(user: &str, token: &str) -> String {
    STANDARD.encode(format!("{user}:{token}"))
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("prefix", &self.prefix.as_str())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> GitUrl {
        GitUrl::parse(text, false).unwrap()
    }

    #[test]
    fn only_what_can_be_passed_on() {
        let https = || url("https://example.com/org");
        let ssh = || url("git@example.com:org");
        assert!(Credentials::basic(https(), "u", "t").is_ok());
        for (user, token) in [("u:x", "t"), ("", "t"), ("u", ""), ("u", "t\r\nX: y")] {
            let fault = Credentials::basic(https(), user, token).unwrap_err();
            assert_eq!(fault, CredentialFault::Characters);
        }
        let transport = CredentialFault::Transport;
        assert_eq!(Credentials::basic(ssh(), "u", "t").unwrap_err(), transport);
        let key = |key: &str| Credentials::key(ssh(), Path::new(key), Path::new("/k/hosts"));
        assert!(key("/run/keys/id_ed25519").is_ok());
        for bad in ["relative", "/with space", "/q'uote", "/%h", "/$HOME"] {
            assert_eq!(key(bad).unwrap_err(), CredentialFault::Path(bad.into()));
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let credentials = Credentials::basic(url("https://h/o"), "u", "hunter2").unwrap();
        assert!(!format!("{credentials:?}").contains("hunter2"));
        assert!(credentials.apply_to(&url("https://h/o/a")));
        assert!(!credentials.apply_to(&url("https://h/other")));
    }
}

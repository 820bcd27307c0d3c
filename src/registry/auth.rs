//! Credentials in the format of `containers-auth.json` and docker's `config.json`.
//!
//! `Debug` never shows a secret, nor does an error. A credential is found for exactly the host and
//! port it was written for: an entry for `host` doesn't serve `host:5000`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::build::reference::Repository;

/// Standard base64; hand-written files often lack the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why credentials can't be used. Keys and helper names come from the operator's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Only the place: the parser's own message may quote a secret.
    #[error(
        "the credentials aren't JSON of the form {{\"auths\": {{…}}}} (line {line}, column {column})"
    )]
    Json { line: usize, column: usize },
    #[error("the credentials for {key} have an \"auth\" that isn't the base64 of user:password")]
    Encoding { key: String },
    #[error("the credentials for {key} have only one of user name and password")]
    Incomplete { key: String },
    #[error(
        "the credentials for {host} are kept by the credential helper {helper:?}, which isn't \
         supported; put them under \"auths\""
    )]
    Helper { host: String, helper: String },
}

/// One credential.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Credential {
    Basic {
        username: String,
        password: String,
    },
    /// An OAuth2 refresh token, `identitytoken` in the file.
    IdentityToken(String),
}

/// The credentials of a file, by host or `host/namespace`.
#[derive(Clone, Default)]
pub struct Auth {
    entries: BTreeMap<String, Credential>,
    helpers: BTreeMap<String, String>,
    /// The helper that is asked for all that isn't in the file.
    store: Option<String>,
    secrets: BTreeSet<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl Auth {
    /// No credentials at all.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Reads the text of a `containers-auth.json` or docker `config.json`.
    pub fn from_slice(json: &[u8]) -> Result<Self, AuthError> {
        let file: File = serde_json::from_slice(json).map_err(|e| AuthError::Json {
            line: e.line(),
            column: e.column(),
        })?;
        let mut auth = Self {
            store: Some(file.store).filter(|s| !s.is_empty()),
            ..Self::default()
        };
        for (key, helper) in file.helpers {
            auth.helpers.insert(plain_key(&key).0, helper);
        }
        for (key, entry) in file.auths {
            auth.secrets.extend(
                [&entry.auth, &entry.password, &entry.identitytoken]
                    .into_iter()
                    .filter(|s| !s.is_empty())
                    .cloned(),
            );
            let Some(credential) = entry.credential(&key)? else {
                continue;
            };
            auth.secrets.extend(credential.secrets());
            let (plain, exact) = plain_key(&key);
            if exact || !auth.entries.contains_key(&plain) {
                auth.entries.insert(plain, credential);
            }
        }
        Ok(auth)
    }

    /// All secret texts, raw and as encoded for HTTP, for a redactor.
    pub fn secrets(&self) -> Vec<String> {
        self.secrets.iter().cloned().collect()
    }

    /// What there are credentials for: hosts, or parts of them.
    pub fn places(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Whether there is a credential for a repository.
    pub fn knows(&self, repo: &Repository) -> bool {
        matches!(self.credential(repo), Ok(Some(_)))
    }

    /// The credential for a repository: that of the longest key that covers it.
    pub(super) fn credential(&self, repo: &Repository) -> Result<Option<&Credential>, AuthError> {
        let full = format!("{}/{}", canonical_host(repo.host()), repo.name());
        let keys = || {
            std::iter::successors(Some(full.as_str()), |key| {
                key.rsplit_once('/').map(|(parent, _)| parent)
            })
        };
        let unsupported = |helper: &String| AuthError::Helper {
            host: repo.host().to_owned(),
            helper: helper.clone(),
        };
        if let Some(helper) = keys().find_map(|key| self.helpers.get(key)) {
            return Err(unsupported(helper));
        }
        match (keys().find_map(|key| self.entries.get(key)), &self.store) {
            (None, Some(store)) => Err(unsupported(store)),
            (found, _) => Ok(found),
        }
    }
}

impl Entry {
    /// `None` for the empty entry that docker writes beside a helper.
    fn credential(self, key: &str) -> Result<Option<Credential>, AuthError> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(self.identitytoken)));
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username, self.password)
        } else {
            let bad = || AuthError::Encoding {
                key: key.to_owned(),
            };
            let bytes = BASE64.decode(self.auth.trim()).map_err(|_| bad())?;
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let (username, password) = text.split_once(':').ok_or_else(bad)?;
            // Some writers pad with NUL; docker takes it off too.
            (
                username.to_owned(),
                password.trim_end_matches('\0').to_owned(),
            )
        };
        match (username.is_empty(), password.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(Credential::Basic { username, password })),
            _ => Err(AuthError::Incomplete {
                key: key.to_owned(),
            }),
        }
    }
}

impl Credential {
    /// User name and password as HTTP Basic sends them.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Self::Basic { username, password } => {
                Some(BASE64.encode(format!("{username}:{password}")))
            }
            Self::IdentityToken(_) => None,
        }
    }

    /// What must not be seen: the secret itself and, for a password, the form HTTP sends.
    pub(super) fn secrets(&self) -> Vec<String> {
        let (Self::Basic {
            password: secret, ..
        }
        | Self::IdentityToken(secret)) = self;
        std::iter::once(secret.clone())
            .chain(self.basic())
            .collect()
    }
}

/// The key without scheme, path of an API and aliases; and whether it was written so.
fn plain_key(key: &str) -> (String, bool) {
    let url = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let plain = match url {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    let (host, path) = match plain.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (plain, String::new()),
    };
    (format!("{}{path}", canonical_host(host)), url.is_none())
}

/// Docker Hub is known by several names.
fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
        })
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("entries", &self.entries)
            .field("helpers", &self.helpers)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

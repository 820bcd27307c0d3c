//! How a registry wants to be authorized (`WWW-Authenticate`) and the tokens it gave.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::auth::Credential;

/// What a token lives if its server doesn't say, as the token specification has it.
const DEFAULT_LIFE: u64 = 60;
/// Tokens are renewed this long before they end, so that none ends on its way.
const MARGIN: Duration = Duration::from_secs(10);
/// The cache starts anew beyond this many grants.
const MAX_GRANTS: usize = 256;

/// What a 401 asks for.
#[derive(Debug, Clone)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

impl Challenge {
    /// The challenge to be answered: Bearer, else Basic, else none.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let challenges = || {
            headers
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| http_auth::parse_challenges(value.to_str().ok()?).ok())
                .flatten()
        };
        let bearer = challenges()
            .filter(|c| c.scheme.eq_ignore_ascii_case("bearer"))
            .find_map(|c| {
                Some(Self::Bearer {
                    realm: Url::parse(&parameter(&c, "realm")?).ok()?,
                    service: parameter(&c, "service"),
                })
            });
        bearer.or_else(|| {
            challenges()
                .any(|c| c.scheme.eq_ignore_ascii_case("basic"))
                .then_some(Self::Basic)
        })
    }

    /// Whether the 401 means that the token is good but lacks the right (RFC 6750).
    pub(super) fn lacks_right(headers: &HeaderMap) -> bool {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| http_auth::parse_challenges(value.to_str().ok()?).ok())
            .flatten()
            .any(|c| parameter(&c, "error").as_deref() == Some("insufficient_scope"))
    }
}

fn parameter(challenge: &http_auth::ChallengeRef<'_>, name: &str) -> Option<String> {
    let (_, value) = challenge
        .params
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.to_unescaped())
}

/// A token server's answer.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

/// An `Authorization` header, until when it's good, and the challenge that renews it.
#[derive(Clone)]
pub(super) struct Grant {
    pub challenge: Challenge,
    pub header: HeaderValue,
    /// `None`: as long as the credential.
    expires: Option<Instant>,
}

impl Grant {
    /// `None` if the text can't stand in a header.
    pub(super) fn new(challenge: Challenge, scheme: &str, secret: &str) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("{scheme} {secret}")).ok()?;
        header.set_sensitive(true);
        Some(Self {
            challenge,
            header,
            expires: None,
        })
    }

    pub(super) fn from_token(challenge: Challenge, answer: &TokenAnswer) -> Option<Self> {
        let token = [&answer.token, &answer.access_token]
            .into_iter()
            .find(|t| !t.is_empty())?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE));
        let mut grant = Self::new(challenge, "Bearer", token)?;
        grant.expires = Instant::now().checked_add(life.saturating_sub(MARGIN));
        Some(grant)
    }

    pub(super) fn expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// The secret part of the header.
    pub(super) fn secret(&self) -> &str {
        let text = self.header.to_str().unwrap_or_default();
        text.split_once(' ').map_or(text, |(_, secret)| secret)
    }
}

/// What a grant holds for. The credential is part of it: callers with different rights share one
/// client.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct GrantKey {
    pub host: String,
    pub scope: String,
    pub credential: Option<Credential>,
}

#[derive(Default)]
pub(super) struct Grants(Mutex<HashMap<GrantKey, Grant>>);

impl Grants {
    pub(super) fn get(&self, key: &GrantKey) -> Option<Grant> {
        self.lock().get(key).cloned()
    }

    pub(super) fn insert(&self, key: GrantKey, grant: Grant) {
        let mut grants = self.lock();
        if grants.len() >= MAX_GRANTS {
            grants.clear();
        }
        grants.insert(key, grant);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GrantKey, Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

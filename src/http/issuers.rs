//! Tokens that others issue: JWTs (RFC 7519) of a Nomad cluster's workloads or of an OpenID provider.
//!
//! Checked are the signature by a public key of the issuer, the time, the audience and, where it is
//! configured, the issuer's name. Keys are read when a token needs them, and again when they are old or
//! a token names one that is not known: issuers rotate them.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::config;
use crate::service::Principal;

/// Signatures with a public key; none (`none`), and none with a shared secret (`HS…`), for which a public
/// key could be taken.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// By how many seconds clocks may differ.
const LEEWAY: u64 = 30;
/// When keys are read again.
const FRESH: Duration = Duration::from_secs(300);
/// How long keys are trusted that could not be read again.
const TRUSTED: Duration = Duration::from_secs(3600);
/// Between two readings: tokens with unknown keys must not make this server ask and ask.
const BETWEEN: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a set of keys at most.
const MOST: usize = 1024 * 1024;
/// Characters of a subject at most.
const SUBJECT: usize = 256;

/// Why a token does not let its bearer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is no token that anybody knows.
    Unknown,
    /// It is over.
    Expired,
    /// It would be valid for ever.
    Endless,
    /// It is not valid yet.
    Early,
    /// It is for somebody else.
    Audience,
    /// It says another issuer, or none.
    Issuer,
    /// It does not say whose it is.
    Nobody,
    /// The keys that would tell cannot be read.
    NoKeys,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the token is not known here",
            Self::Expired => "the token has expired",
            Self::Endless => "the token does not say when it expires",
            Self::Early => "the token is not valid yet",
            Self::Audience => "the token is for another audience",
            Self::Issuer => "the token is of another issuer",
            Self::Nobody => "the token does not say whose it is",
            Self::NoKeys => "the keys of the token's issuer cannot be read",
        })
    }
}

/// An issuer.
pub struct Issuer {
    name: String,
    config: config::http::Issuer,
    client: reqwest::Client,
    keys: Mutex<Keys>,
    /// Held by who reads them anew.
    reading: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Keys {
    set: Option<(JwkSet, Instant)>,
    tried: Option<Instant>,
}

impl Issuer {
    /// An issuer of this name. Its keys are not read yet.
    ///
    /// # Errors
    /// When the certificates for its URL cannot be read.
    pub fn new(name: &str, config: &config::http::Issuer) -> anyhow::Result<Self> {
        let mut client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = &config.ca {
            let broken = |error: &dyn fmt::Display| anyhow::anyhow!("{}: {error}", ca.display());
            let pem = std::fs::read(ca).map_err(|error| broken(&error))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| broken(&error))?;
            client = client.tls_certs_only(certificates);
        }
        Ok(Self {
            name: name.to_owned(),
            config: config.clone(),
            client: client.build()?,
            keys: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// Who issues, as it says itself.
    pub fn url(&self) -> Option<&str> {
        self.config.issuer.as_deref()
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub async fn owner(&self, token: &str) -> Result<Principal, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Unknown)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Refused::Unknown);
        }
        // What it says of its issuer is not checked yet; but it says whose keys are not needed.
        if let Some(issuer) = &self.config.issuer {
            let claims =
                jsonwebtoken::dangerous::insecure_decode_claims::<Map<String, Value>>(token)
                    .map_err(|_| Refused::Unknown)?;
            if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
                return Err(Refused::Issuer);
            }
        }
        let key = self.key(&header).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&self.config.audiences);
        validation.set_required_spec_claims(&["exp", "aud"]);
        if let Some(issuer) = &self.config.issuer {
            validation.set_issuer(&[issuer]);
            validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        }
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation)
            .map_err(|error| refused(error.kind()))?;
        let subject = decoded
            .claims
            .get(&self.config.claim)
            .and_then(Value::as_str)
            .filter(|subject| is_subject(subject))
            .ok_or(Refused::Nobody)?;
        Ok(Principal(format!("{}:{subject}", self.name)))
    }

    /// The key that a token names. Where it is known, nobody waits for more than one reading after the
    /// other to find out whether it still is.
    async fn key(&self, header: &Header) -> Result<DecodingKey, Refused> {
        let (known, fresh) = self.known(header);
        if fresh && known.is_some() {
            return known.ok_or(Refused::Unknown);
        }
        let turn = match &known {
            // Another finds out already.
            Some(_) => self.reading.try_lock().ok(),
            None => Some(self.reading.lock().await),
        };
        if turn.is_some() && self.is_rested() {
            let read = self.read().await;
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.tried = Some(Instant::now());
            match read {
                Ok(set) => keys.set = Some((set, Instant::now())),
                Err(error) => {
                    tracing::warn!(issuer = %self.name, %error, "the keys of an issuer cannot be read");
                }
            }
        }
        drop(turn);
        let (known, _) = self.known(header);
        known.ok_or_else(|| match self.has_keys() {
            true => Refused::Unknown,
            false => Refused::NoKeys,
        })
    }

    /// The key, if it is known, and whether what is known is fresh.
    fn known(&self, header: &Header) -> (Option<DecodingKey>, bool) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match &keys.set {
            Some((set, read)) if read.elapsed() < TRUSTED => {
                (find(set, header), read.elapsed() < FRESH)
            }
            _ => (None, false),
        }
    }

    fn has_keys(&self) -> bool {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        (keys.set.as_ref()).is_some_and(|(_, read)| read.elapsed() < TRUSTED)
    }

    fn is_rested(&self) -> bool {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.tried.is_none_or(|tried| tried.elapsed() >= BETWEEN)
    }

    async fn read(&self) -> anyhow::Result<JwkSet> {
        let text = if self.config.jwks.starts_with('/') {
            tokio::fs::read(Path::new(&self.config.jwks)).await?
        } else {
            let mut answer =
                (self.client.get(&self.config.jwks).send().await?).error_for_status()?;
            let mut text = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                text.extend_from_slice(&chunk);
                anyhow::ensure!(text.len() <= MOST, "they are larger than {MOST} bytes");
            }
            text
        };
        Ok(serde_json::from_slice(&text)?)
    }
}

/// The key that a token names; without a name, the only one.
fn find(set: &JwkSet, header: &Header) -> Option<DecodingKey> {
    let fits = |key: &&Jwk| {
        let signs = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
        let algorithm = (key.common.key_algorithm)
            .is_none_or(|algorithm| algorithm.to_string() == format!("{:?}", header.alg));
        signs && algorithm
    };
    let key = match &header.kid {
        Some(name) => {
            (set.keys.iter().filter(fits)).find(|key| key.common.key_id.as_ref() == Some(name))?
        }
        None => {
            let mut all = set.keys.iter().filter(fits);
            all.next().filter(|_| all.next().is_none())?
        }
    };
    DecodingKey::from_jwk(key).ok()
}

fn refused(kind: &ErrorKind) -> Refused {
    match kind {
        ErrorKind::ExpiredSignature => Refused::Expired,
        ErrorKind::ImmatureSignature => Refused::Early,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::InvalidIssuer => Refused::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => Refused::Endless,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Refused::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Refused::Issuer,
        _ => Refused::Unknown,
    }
}

/// Subjects are shown, and stand in records.
fn is_subject(text: &str) -> bool {
    (1..=SUBJECT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::EncodingKey;
    use serde_json::json;

    use super::*;

    struct Maker {
        key: EncodingKey,
        jwk: Value,
        algorithm: Algorithm,
    }

    impl Maker {
        fn new(kid: &str, algorithm: Algorithm, kind: &'static rcgen::SignatureAlgorithm) -> Self {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let der = pair.serialize_der();
            let (key, mut jwk) = match algorithm {
                Algorithm::EdDSA => {
                    // Its private key does not hold the public one.
                    let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
                    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x});
                    (EncodingKey::from_ed_der(&der), jwk)
                }
                _ => {
                    let key = EncodingKey::from_ec_der(&der);
                    let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
                    (key, serde_json::to_value(jwk).unwrap())
                }
            };
            jwk["kid"] = kid.into();
            jwk["use"] = "sig".into();
            Self {
                key,
                jwk,
                algorithm,
            }
        }

        fn token(&self, kid: Option<&str>, change: Value) -> String {
            let mut claims = json!({"sub": "global:default:job:group:task", "aud": ["nomad-build", "x"],
                "iss": "https://nomad.example.com", "exp": now() + 600, "nbf": now() - 1, "iat": now()});
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            claims
                .as_object_mut()
                .unwrap()
                .retain(|_, value| !value.is_null());
            let mut header = Header::new(self.algorithm);
            header.kid = kid.map(str::to_owned);
            jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
        }
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn es(kid: &str) -> Maker {
        Maker::new(kid, Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn issuer(file: &Path) -> Issuer {
        let config = config::http::Issuer {
            jwks: file.to_str().unwrap().into(),
            audiences: vec!["nomad-build".into()],
            issuer: Some("https://nomad.example.com".into()),
            ..config::http::Issuer::default()
        };
        Issuer::new("nomad", &config).unwrap()
    }

    fn publish(file: &Path, keys: &[&Maker]) {
        let keys: Vec<&Value> = keys.iter().map(|maker| &maker.jwk).collect();
        std::fs::write(file, json!({ "keys": keys }).to_string()).unwrap();
    }

    #[tokio::test]
    async fn tokens_are_taken_and_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jwks.json");
        let ed = Maker::new("ed", Algorithm::EdDSA, &rcgen::PKCS_ED25519);
        let (es, other, third) = (es("es"), es("es"), es("third"));
        let mut third = third;
        // It need not say for which algorithm it is (RFC 7517, section 4.4).
        third.jwk.as_object_mut().unwrap().remove("alg");
        publish(&file, &[&ed, &es, &third]);
        let issuer = issuer(&file);
        let whole = Ok(Principal("nomad:global:default:job:group:task".into()));
        for (maker, kid) in [(&ed, "ed"), (&es, "es"), (&third, "third")] {
            assert_eq!(
                issuer.owner(&maker.token(Some(kid), json!({}))).await,
                whole,
                "{kid}"
            );
        }
        let one = |change: Value| es.token(Some("es"), change);
        let twice = es.token(None, json!({}));
        let (head, rest) = twice.split_once('.').unwrap();
        let payload = rest.split('.').next().unwrap();
        let head_of_none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let none = format!("{head_of_none}.{payload}.");
        let shared = {
            // The public key as if it were a shared secret.
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some("es".into());
            let key = EncodingKey::from_secret(es.jwk["x"].as_str().unwrap().as_bytes());
            let claims = json!({"sub": "x", "aud": "nomad-build", "iss": "https://nomad.example.com", "exp": now() + 60});
            jsonwebtoken::encode(&header, &claims, &key).unwrap()
        };
        for (name, token, why) in [
            ("expired", one(json!({"exp": now() - 60})), Refused::Expired),
            (
                "without an end",
                one(json!({"exp": null})),
                Refused::Endless,
            ),
            ("too early", one(json!({"nbf": now() + 90})), Refused::Early),
            (
                "another audience",
                one(json!({"aud": "vault.io"})),
                Refused::Audience,
            ),
            (
                "without an audience",
                one(json!({"aud": null})),
                Refused::Audience,
            ),
            (
                "another issuer",
                one(json!({"iss": "https://evil.example.com"})),
                Refused::Issuer,
            ),
            (
                "without an issuer",
                one(json!({"iss": null})),
                Refused::Issuer,
            ),
            ("nobody's", one(json!({"sub": null})), Refused::Nobody),
            (
                "with a line break",
                one(json!({"sub": "a\nb"})),
                Refused::Nobody,
            ),
            (
                "another key",
                other.token(Some("es"), json!({})),
                Refused::Unknown,
            ),
            (
                "an unknown key",
                es.token(Some("x"), json!({})),
                Refused::Unknown,
            ),
            ("one of two keys", twice.clone(), Refused::Unknown),
            ("alg none", none, Refused::Unknown),
            ("a shared secret", shared, Refused::Unknown),
            (
                "no signature",
                format!("{head}.{payload}."),
                Refused::Unknown,
            ),
            ("no token", "x.y.z".to_owned(), Refused::Unknown),
        ] {
            assert_eq!(issuer.owner(&token).await, Err(why), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jwks.json");
        let issuer = issuer(&file);
        let (old, new) = (es("old"), es("new"));
        let (with_old, with_new) = (
            old.token(Some("old"), json!({})),
            new.token(Some("new"), json!({})),
        );
        assert_eq!(issuer.owner(&with_old).await, Err(Refused::NoKeys));
        publish(&file, &[&old]);
        assert_eq!(
            issuer.owner(&with_old).await,
            Err(Refused::NoKeys),
            "not asked again at once"
        );
        tokio::time::advance(BETWEEN).await;
        assert!(issuer.owner(&with_old).await.is_ok());
        tokio::time::advance(BETWEEN).await;
        publish(&file, &[&old, &new]);
        assert!(
            issuer.owner(&with_new).await.is_ok(),
            "a key that was not known"
        );
        assert!(issuer.owner(&with_old).await.is_ok());
        publish(&file, &[&new]);
        tokio::time::advance(FRESH).await;
        assert_eq!(
            issuer.owner(&with_old).await,
            Err(Refused::Unknown),
            "a key that is gone"
        );
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(FRESH).await;
        assert!(issuer.owner(&with_new).await.is_ok(), "for a while");
        tokio::time::advance(TRUSTED).await;
        assert_eq!(issuer.owner(&with_new).await, Err(Refused::NoKeys));
    }
}

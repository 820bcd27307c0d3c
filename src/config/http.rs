//! MCP over HTTP.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::build::validate::is_name;

use super::listen::Listen;

/// Beginnings of principals that are not an issuer's.
const RESERVED: [&str; 2] = ["local", "token"];

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where `serve` listens: an address with a port, such as `127.0.0.1:8080`, or a socket, such as
    /// `unix:/run/nomad-build/mcp.sock`, which is for its owner alone. Default: nowhere, and it speaks over standard input
    /// and output.
    #[schemars(example = &"127.0.0.1:8080")]
    pub listen: Option<String>,
    /// File of the tokens that may be used: a line `NAME SHA256` each. Default: `tokens` in the state
    /// directory, made at the first start.
    #[schemars(example = "/etc/nomad-build/tokens")]
    pub tokens: Option<PathBuf>,
    /// How clients call this server, such as `https://build.example.com`. Default: as each of them does.
    #[schemars(example = "https://build.example.com")]
    pub url: Option<String>,
    /// Names by which clients call this server, in their `Host`. Addresses, `localhost` and the name in
    /// `url` always work.
    #[schemars(example = ["build.example.com"])]
    pub hosts: Vec<String>,
    /// Web pages elsewhere that may call this server, such as `https://app.example.com`. Others, which
    /// browsers tell by `Origin`, are refused.
    #[schemars(example = ["https://app.example.com"])]
    pub origins: Vec<String>,
    /// Whether clients of the protocol's versions before 2026-07-28 get sessions, whose streams can be
    /// resumed. Without them any server answers any request.
    pub sessions: bool,
    /// Connections at the same time.
    pub connections: u32,
    /// Seconds for which a connection may be without a request, longer than proxies and clients keep theirs.
    pub idle: u32,
    /// Seconds for which uploads are kept.
    pub uploads_keep: u32,
    /// The certificate of this server. Default: none, and no TLS.
    pub tls: Option<Tls>,
    /// Issuers of tokens (JWT) that are taken besides the file's, by name: `NAME:SUBJECT` is who asks.
    #[schemars(extend("propertyNames" = {"examples": ["nomad"]}))]
    pub issuers: BTreeMap<String, Issuer>,
}

/// A certificate, read again when it is renewed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// File of the chain of certificates, the server's first, in PEM.
    #[schemars(example = "/etc/nomad-build/cert.pem")]
    pub certificate: PathBuf,
    /// File of its key, in PEM.
    #[schemars(example = "/etc/nomad-build/key.pem")]
    pub key: PathBuf,
}

/// Who issues tokens: a cluster of Nomad, or an OpenID provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Issuer {
    /// URL or file of its public keys (RFC 7517), such as `https://nomad.example.com/.well-known/jwks.json`.
    #[schemars(example = "https://nomad.example.com/.well-known/jwks.json")]
    pub jwks: String,
    /// File of the certificate, in PEM, that this URL is checked against. Default: the system's.
    #[schemars(example = "/etc/nomad-build/issuer-ca.pem")]
    pub ca: Option<PathBuf>,
    /// Who the tokens must be for (`aud`); one of these is enough.
    #[schemars(example = ["nomad-build"])]
    pub audiences: Vec<String>,
    /// What they must say of their issuer (`iss`). Default: anything.
    #[schemars(example = "https://nomad.example.com")]
    pub issuer: Option<String>,
    /// The claim that says whose token it is.
    pub claim: String,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: None,
            tokens: None,
            url: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            sessions: false,
            connections: 4096,
            idle: 75,
            uploads_keep: 86_400,
            tls: None,
            issuers: BTreeMap::new(),
        }
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            jwks: String::new(),
            ca: None,
            audiences: Vec::new(),
            issuer: None,
            claim: "sub".into(),
        }
    }
}

impl Http {
    /// Where `serve` listens; `None`: it speaks over standard input and output.
    pub fn place(&self) -> Option<Listen> {
        self.listen.as_ref().and_then(|text| text.parse().ok())
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, text: String| {
            if !ok {
                faults.push(text);
            }
        };
        let absolute = |path: &PathBuf| path.is_absolute();
        if let Some(text) = &self.listen
            && let Err(wrong) = text.parse::<Listen>()
        {
            check(false, format!("http.listen: {wrong}"));
        }
        check(
            self.tokens.as_ref().is_none_or(absolute),
            "http.tokens must be an absolute path".into(),
        );
        check(
            (16..=65_536).contains(&self.connections),
            "http.connections must be from 16 to 65536".into(),
        );
        check(
            (1..=3600).contains(&self.idle),
            "http.idle must be from 1 to 3600".into(),
        );
        check(
            (60..=2_592_000).contains(&self.uploads_keep),
            "http.uploads_keep must be from 60 to 2592000".into(),
        );
        for host in &self.hosts {
            check(
                url::Host::parse(host).is_ok(),
                format!(
                    "http.hosts: {host:?} is no name of a host, such as build.example.com (without a port)"
                ),
            );
        }
        for origin in &self.origins {
            check(
                is_origin(origin),
                format!("http.origins: {origin:?} is no origin, such as https://app.example.com"),
            );
        }
        if let Some(url) = &self.url {
            check(
                is_origin(url),
                format!("http.url: {url:?} is not of the form https://build.example.com"),
            );
        }
        if let Some(tls) = &self.tls {
            check(
                tls.certificate.is_absolute() && tls.key.is_absolute(),
                "http.tls needs certificate and key, absolute paths of files".into(),
            );
        }
        for (name, issuer) in &self.issuers {
            check(
                is_name(name) && !RESERVED.contains(&name.as_str()),
                format!(
                    "http.issuers: {name:?} is no name (letters, digits, . _ -, at most 64), or one of {}",
                    RESERVED.join(", ")
                ),
            );
            // Whoever is on the way could answer with keys of his own.
            let is_url = Url::parse(&issuer.jwks).is_ok_and(|url| match url.scheme() {
                "https" => true,
                "http" => is_loopback(&url),
                _ => false,
            });
            check(
                is_url || issuer.jwks.starts_with('/'),
                format!(
                    "http.issuers.{name}.jwks must be a URL with https (http on loopback alone) or an absolute path"
                ),
            );
            check(
                !issuer.audiences.is_empty(),
                format!(
                    "http.issuers.{name}.audiences is empty: a token for somebody else must not do here"
                ),
            );
            check(
                issuer.ca.as_ref().is_none_or(absolute),
                format!("http.issuers.{name}.ca must be an absolute path"),
            );
            check(
                !issuer.claim.is_empty(),
                format!("http.issuers.{name}.claim is empty"),
            );
        }
        faults
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.username().is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named() {
        let http: Http = toml::from_str(
            "listen = \"8080\"\ntokens = \"x\"\nurl = \"build.example.com\"\nhosts = [\"a b\"]\norigins = [\"https://x/y\"]\nconnections = 1\n\
             [tls]\ncertificate = \"/c\"\n[issuers.token]\n[issuers.nomad]\njwks = \"x\"\nca = \"x\"\nclaim = \"\"\n",
        )
        .unwrap();
        let faults = http.faults();
        for begin in [
            "http.listen",
            "http.tokens",
            "http.connections",
            "http.hosts",
            "http.origins",
            "http.url",
            "http.tls",
            "http.issuers: \"token\"",
            "http.issuers.nomad.jwks",
            "http.issuers.nomad.audiences",
            "http.issuers.nomad.ca",
            "http.issuers.nomad.claim",
        ] {
            assert!(
                faults.iter().any(|fault| fault.starts_with(begin)),
                "{begin}: {faults:#?}"
            );
        }
        let sound = "url = \"https://build.example.com\"\n[issuers.nomad]\njwks = \"http://127.0.0.1:4646/.well-known/jwks.json\"\naudiences = [\"nomad-build\"]\n";
        assert_eq!(
            toml::from_str::<Http>(sound).unwrap().faults(),
            Vec::<String>::new()
        );
        assert_eq!(Http::default().faults(), Vec::<String>::new());
    }
}

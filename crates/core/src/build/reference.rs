//! Image references, `host[:port]/repository[:tag][@digest]`, written in full.
//!
//! Nothing is defaulted and nothing normalised: there is one spelling of a place, so an allow-list
//! may compare text, and `Display` gives back exactly what was parsed. Errors repeat input only as
//! a suggestion that is itself a valid reference.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::digest::Digest;

/// Longest `host/repository`, as in the reference grammar of the distribution project.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// Why a text isn't a reference, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    #[error("the reference is empty; write host/repository:tag")]
    Empty,
    #[error("a reference has ASCII letters, digits and punctuation only, no spaces")]
    Characters,
    #[error("a reference isn't a URL; leave off the part up to ://")]
    Scheme,
    #[error("a reference has no user name or password in it; credentials are configured apart")]
    Credentials,
    #[error(
        "no registry host; write it in full, as in registry.example.com/team/app:1 (a host has a \
         '.' or a ':port', or is localhost)"
    )]
    NoHost,
    #[error("not a registry host; write a DNS name, an IPv4 address or an [IPv6 address]")]
    BadHost,
    #[error("registry host isn't in its plain spelling; did you mean {0}?")]
    HostSpelling(String),
    #[error("not a port; write a number from 1 to 65535 without leading zeros")]
    BadPort,
    #[error("no repository after the registry host; write host/repository:tag")]
    NoRepository,
    #[error("repository must be lower case; did you mean {0}?")]
    RepositoryCase(String),
    #[error(
        "not a repository; its parts between slashes are a-z and 0-9, joined by '.', '_', '__' or \
         dashes"
    )]
    BadRepository,
    #[error("host and repository are longer than {MAX_NAME} characters")]
    TooLong,
    #[error(
        "not a tag; it is 1 to {MAX_TAG} characters of A-Z a-z 0-9 _ . - and doesn't begin with \
         '.' or '-'"
    )]
    BadTag,
    #[error("a tag is missing; write {0}:tag")]
    TagMissing(Repository),
    #[error("{0}")]
    BadDigest(#[from] super::digest::BadDigest),
    #[error("a push goes to a tag; leave off the @digest")]
    DigestInPush,
}

/// A repository on a registry: `host[:port]/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    host: String,
    name: String,
}

/// Something in a repository: `host[:port]/repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Where an image is to be pushed: `host[:port]/repository:tag`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PushReference {
    repository: Repository,
    tag: String,
}

impl Repository {
    /// Reads `host[:port]/name`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ReferenceError::Characters);
        }
        if text.contains("://") {
            return Err(ReferenceError::Scheme);
        }
        let (host, name) = text.split_once('/').ok_or(ReferenceError::NoHost)?;
        if host.contains('@') {
            return Err(ReferenceError::Credentials);
        }
        if !host.contains(['.', ':']) && !host.eq_ignore_ascii_case("localhost") {
            return Err(ReferenceError::NoHost);
        }
        check_host_and_port(host)?;
        if name.is_empty() {
            return Err(ReferenceError::NoRepository);
        }
        if text.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        let lower = name.to_ascii_lowercase();
        if !lower.split('/').all(is_component) {
            return Err(ReferenceError::BadRepository);
        }
        if lower != name {
            return Err(ReferenceError::RepositoryCase(format!("{host}/{lower}")));
        }
        Ok(Self {
            host: host.to_owned(),
            name: lower,
        })
    }

    /// `host[:port]` as written.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path below the host.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Reference {
    /// Reads `host[:port]/repository[:tag][@digest]`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        // An '@' before the first '/' belongs to user:password@host; that's the repository's to say.
        let slash = text.find('/').unwrap_or(text.len());
        let (head, rest) = text.split_at(slash);
        let (path, digest) = match rest.split_once('@') {
            Some((path, digest)) => (path, Some(digest)),
            None => (rest, None),
        };
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        let repository = Repository::parse(&format!("{head}{path}"))?;
        let tag = tag
            .map(|tag| check_tag(tag).map(|()| tag.to_owned()))
            .transpose()?;
        let digest = digest.map(Digest::parse).transpose()?;
        Ok(Self {
            repository,
            tag,
            digest,
        })
    }

    /// What `digest` names in `repository`.
    pub fn by_digest(repository: Repository, digest: Digest) -> Self {
        Self {
            repository,
            tag: None,
            digest: Some(digest),
        }
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl PushReference {
    /// Reads `host[:port]/repository:tag`; the tag is required, a digest refused.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let Reference {
            repository,
            tag,
            digest,
        } = Reference::parse(text)?;
        if digest.is_some() {
            return Err(ReferenceError::DigestInPush);
        }
        match tag {
            Some(tag) => Ok(Self { repository, tag }),
            None => Err(ReferenceError::TagMissing(repository)),
        }
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl From<PushReference> for Reference {
    fn from(push: PushReference) -> Self {
        Self {
            repository: push.repository,
            tag: Some(push.tag),
            digest: None,
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PushReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

fn check_host_and_port(text: &str) -> Result<(), ReferenceError> {
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(ReferenceError::BadHost)?;
        let (host, rest) = text.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(ReferenceError::BadHost),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if let Some(port) = port {
        let number: u16 = port.parse().map_err(|_| ReferenceError::BadPort)?;
        if number == 0 || number.to_string() != port {
            return Err(ReferenceError::BadPort);
        }
    }
    let plain = plain_host(host).ok_or(ReferenceError::BadHost)?;
    if plain == host {
        return Ok(());
    }
    let port = port.map(|p| format!(":{p}")).unwrap_or_default();
    Err(ReferenceError::HostSpelling(format!("{plain}{port}")))
}

/// The one spelling of a host, or `None` if it is none.
///
/// URL parsers read a name whose last label is a number (`127.1`, `0x7f.1`) as an IPv4 address, so
/// such a name must be one, else two spellings would reach one machine past an allow-list.
fn plain_host(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let host = host.to_ascii_lowercase();
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return host.parse::<Ipv4Addr>().ok().map(|a| a.to_string());
    }
    host.split('.').all(label_ok).then_some(host)
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    // The pieces between alphanumerics: empty inside a word, and at both ends if these are words.
    let mut gaps = text.split(|c: char| c.is_ascii_alphanumeric());
    gaps.next() == Some("")
        && gaps.next_back() == Some("")
        && gaps.all(|gap| matches!(gap, "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let well_formed = (1..=MAX_TAG).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    well_formed.then_some(()).ok_or(ReferenceError::BadTag)
}

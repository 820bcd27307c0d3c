//! Which URLs a repository may be fetched from. Pure: an allow-list, since git itself also takes
//! commands (`ext::`), files and options.

use std::fmt;

use thiserror::Error;

/// Longest URL in bytes.
const MAX_URL: usize = 2048;

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Https,
    /// Without encryption; for tests and operators who allow it.
    Http,
    Ssh,
}

impl Transport {
    /// As in git's list of allowed protocols.
    pub fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
        }
    }
}

/// A URL that git may be given. It holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    text: String,
    transport: Transport,
    /// `user@host:port` in lower case but for the user.
    authority: String,
    path: String,
}

/// Why a URL is refused, and what to give instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlFault {
    #[error("the URL is empty")]
    Empty,
    #[error("the URL is longer than {MAX_URL} bytes")]
    TooLong,
    #[error("the URL has a space, a control character or a backslash; write it percent-encoded")]
    Character,
    #[error("the URL starts with `-`, so git would take it for an option; give https://HOST/PATH")]
    Option,
    #[error("`{0}` is not a transport that is allowed; give https://HOST/PATH or git@HOST:PATH")]
    Transport(String),
    #[error("http is not encrypted; give https://HOST/PATH")]
    Plain,
    #[error(
        "a path on a machine is not a URL; push it to a server, or give the directory as `path`"
    )]
    LocalPath,
    #[error(
        "the URL has credentials; leave them out, the operator has configured those of this server"
    )]
    Credentials,
    #[error("the URL has a `?`; give the plain URL of the repository")]
    Query,
    #[error(
        "the URL has a `#`; give the branch, tag or commit as `ref` and the directory as `subdir`"
    )]
    Fragment,
    #[error("the URL has no user; give git@HOST:PATH or ssh://git@HOST/PATH")]
    NoUser,
    #[error("the user of the URL has characters other than letters, digits and `._-`")]
    User,
    #[error("the host of the URL is missing or malformed")]
    Host,
    #[error("the port of the URL is not a number from 1 to 65535")]
    Port,
    #[error("the URL names no repository; give https://HOST/PATH")]
    NoPath,
    #[error("the path of the URL starts with `-` or has a `.` or `..` component; write it plainly")]
    Path,
}

impl GitUrl {
    /// Takes `https://`, `ssh://` and `user@host:path`; `http://` only with `allow_http`.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, UrlFault> {
        let url = Self::parse_prefix(text, allow_http)?;
        if url.path.is_empty() {
            return Err(UrlFault::NoPath);
        }
        Ok(url)
    }

    /// Reads the beginning of URLs: it may name a host only.
    pub fn parse_prefix(text: &str, allow_http: bool) -> Result<Self, UrlFault> {
        check_characters(text)?;
        if let Some((scheme, rest)) = text.split_once("://") {
            let transport = match scheme.to_ascii_lowercase().as_str() {
                "https" => Transport::Https,
                "ssh" => Transport::Ssh,
                "http" if allow_http => Transport::Http,
                "http" => return Err(UrlFault::Plain),
                "file" => return Err(UrlFault::LocalPath),
                _ => return Err(UrlFault::Transport(scheme.chars().take(20).collect())),
            };
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let authority = check_authority(authority, transport)?;
            return Self::build(
                format!("{}://{authority}/{path}", transport.name()),
                transport,
                authority,
                path,
            );
        }
        if let Some((helper, _)) = text.split_once("::") {
            return Err(UrlFault::Transport(helper.chars().take(20).collect()));
        }
        let (authority, path) = text.split_once(':').ok_or(UrlFault::LocalPath)?;
        if authority.contains('/') {
            return Err(UrlFault::LocalPath);
        }
        if !authority.contains('@') {
            return Err(UrlFault::NoUser);
        }
        let authority = check_authority(authority, Transport::Ssh)?;
        let text = format!("{authority}:{path}");
        Self::build(
            text,
            Transport::Ssh,
            authority,
            path.trim_start_matches('/'),
        )
    }

    fn build(
        text: String,
        transport: Transport,
        authority: String,
        path: &str,
    ) -> Result<Self, UrlFault> {
        if path.contains('?') {
            return Err(UrlFault::Query);
        }
        if path.contains('#') {
            return Err(UrlFault::Fragment);
        }
        let path = path.trim_end_matches('/');
        let decoded = path.to_ascii_lowercase().replace("%2e", ".");
        if path.starts_with('-') || decoded.split('/').any(|name| name == "." || name == "..") {
            return Err(UrlFault::Path);
        }
        Ok(Self {
            text,
            transport,
            authority,
            path: path.to_owned(),
        })
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// As git gets it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// For people. Nothing has to be taken out: a URL with credentials is refused.
    pub fn display_without_credentials(&self) -> &str {
        &self.text
    }

    /// Whether this repository is `prefix` itself or lies below it: same transport, user, host and
    /// port, and whole names of the path.
    pub fn is_within(&self, prefix: &GitUrl) -> bool {
        self.transport == prefix.transport
            && self.authority == prefix.authority
            && self.path.strip_prefix(&prefix.path).is_some_and(|rest| {
                rest.is_empty() || prefix.path.is_empty() || rest.starts_with('/')
            })
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.display_without_credentials())
    }
}

fn check_characters(text: &str) -> Result<(), UrlFault> {
    if text.is_empty() {
        return Err(UrlFault::Empty);
    }
    if text.len() > MAX_URL {
        return Err(UrlFault::TooLong);
    }
    let bad =
        |character: char| character.is_control() || character.is_whitespace() || character == '\\';
    if text.contains(bad) || has_encoded_control(text) {
        return Err(UrlFault::Character);
    }
    if text.starts_with('-') {
        return Err(UrlFault::Option);
    }
    Ok(())
}

/// `%00` to `%1f` and `%7f`: git decodes them.
fn has_encoded_control(text: &str) -> bool {
    text.split('%').skip(1).any(|rest| {
        rest.get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .is_some_and(|byte| byte.is_ascii_control())
    })
}

/// Checks `[user@]host[:port]` and puts the host into lower case.
fn check_authority(authority: &str, transport: Transport) -> Result<String, UrlFault> {
    let (user, host_port) = match authority.rsplit_once('@') {
        Some((user, host_port)) => (Some(user), host_port),
        None => (None, authority),
    };
    match (user, transport) {
        (Some(_), Transport::Https | Transport::Http) => return Err(UrlFault::Credentials),
        (Some(user), Transport::Ssh) if user.contains(':') => return Err(UrlFault::Credentials),
        (Some(user), Transport::Ssh) if !is_name(user) => return Err(UrlFault::User),
        (None, Transport::Ssh) => return Err(UrlFault::NoUser),
        _ => {}
    }
    let port = if let Some(rest) = host_port.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(UrlFault::Host)?;
        let malformed = address.parse::<std::net::Ipv6Addr>().is_err();
        match after.strip_prefix(':') {
            _ if malformed => return Err(UrlFault::Host),
            None if !after.is_empty() => return Err(UrlFault::Host),
            port => port,
        }
    } else {
        let (host, port) = match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        };
        if !is_name(host) {
            return Err(UrlFault::Host);
        }
        port
    };
    if let Some(port) = port {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || port.parse::<u16>().unwrap_or(0) == 0 {
            return Err(UrlFault::Port);
        }
    }
    let host_port = host_port.to_ascii_lowercase();
    Ok(user.map_or(host_port.clone(), |user| format!("{user}@{host_port}")))
}

/// Letters, digits and `._-`, and no dash or dot first.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['-', '.'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_taken() {
        for (text, expected, transport) in [
            ("https://example.com/a/b.git", None, Transport::Https),
            (
                "HTTPS://Example.COM:8443/A/b",
                Some("https://example.com:8443/A/b"),
                Transport::Https,
            ),
            ("https://[::1]:8/a", None, Transport::Https),
            ("ssh://git@example.com:22/a/b", None, Transport::Ssh),
            ("git@example.com:a/b.git", None, Transport::Ssh),
            ("git@example.com:/srv/a.git", None, Transport::Ssh),
        ] {
            let url = GitUrl::parse(text, false).expect(text);
            assert_eq!(url.as_str(), expected.unwrap_or(text));
            assert_eq!(url.transport(), transport);
        }
        let plain = GitUrl::parse("http://127.0.0.1:8/a", true).unwrap();
        assert_eq!(plain.transport(), Transport::Http);
    }

    #[test]
    fn what_is_refused() {
        let transport = |name: &str| UrlFault::Transport(name.to_owned());
        let long = format!("https://example.com/{}", "a".repeat(2048));
        for (text, expected) in [
            ("", UrlFault::Empty),
            (long.as_str(), UrlFault::TooLong),
            ("https://example.com/a b", UrlFault::Character),
            ("https://example.com/a\n", UrlFault::Character),
            ("https://example.com/a%0ab", UrlFault::Character),
            ("https://example.com\\@evil/a", UrlFault::Character),
            ("--upload-pack=touch", UrlFault::Option),
            ("-oProxyCommand=x:y", UrlFault::Option),
            ("ext::sh", transport("ext")),
            ("fd::17", transport("fd")),
            ("git://example.com/a", transport("git")),
            ("ext::ssh://a/b", transport("ext::ssh")),
            ("http://example.com/a", UrlFault::Plain),
            ("file:///srv/a", UrlFault::LocalPath),
            ("/srv/a", UrlFault::LocalPath),
            ("./a", UrlFault::LocalPath),
            ("../a:b", UrlFault::LocalPath),
            ("a", UrlFault::LocalPath),
            ("https://user:secret@example.com/a", UrlFault::Credentials),
            ("https://token@example.com/a", UrlFault::Credentials),
            ("ssh://git:secret@example.com/a", UrlFault::Credentials),
            ("https://a@b@example.com/a", UrlFault::Credentials),
            ("https://example.com/a?token=b", UrlFault::Query),
            ("https://example.com/a.git#main:sub", UrlFault::Fragment),
            ("https://example.com#@evil.com/a", UrlFault::Credentials),
            ("https://example.com?x/a", UrlFault::Host),
            ("example.com:a/b", UrlFault::NoUser),
            ("ssh://example.com/a", UrlFault::NoUser),
            ("-x@example.com:a", UrlFault::Option),
            ("ssh://-x@example.com/a", UrlFault::User),
            ("ssh://git@-oProxyCommand=x/a", UrlFault::Host),
            ("git@-oProxyCommand:a", UrlFault::Host),
            ("https:///a", UrlFault::Host),
            ("https://exa$mple.com/a", UrlFault::Host),
            ("https://[::1/a", UrlFault::Host),
            ("https://[::1]x/a", UrlFault::Host),
            ("https://example.com:/a", UrlFault::Port),
            ("https://example.com:0/a", UrlFault::Port),
            ("https://example.com:+80/a", UrlFault::Port),
            ("https://example.com", UrlFault::NoPath),
            ("https://example.com///", UrlFault::NoPath),
            ("git@example.com:", UrlFault::NoPath),
            ("git@example.com:-x", UrlFault::Path),
            ("https://example.com/a/%2e%2E/b", UrlFault::Path),
        ] {
            assert_eq!(GitUrl::parse(text, false), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let within = |url: &str, prefix: &str| {
            let parse = |text| GitUrl::parse(text, true).unwrap();
            parse(url).is_within(&parse(prefix))
        };
        assert!(within(
            "https://example.com/org/a",
            "https://EXAMPLE.com/org/"
        ));
        assert!(within("https://example.com/org", "https://example.com/org"));
        assert!(!within(
            "https://example.com/orgs",
            "https://example.com/org"
        ));
        assert!(!within(
            "https://example.com:1/org/a",
            "https://example.com/org"
        ));
        assert!(!within(
            "http://example.com/org/a",
            "https://example.com/org"
        ));
        assert!(!within(
            "https://example.com.evil/org/a",
            "https://example.com/org"
        ));
        assert!(within("git@example.com:org/a", "git@example.com:org"));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_harmless(text in "(https://|ssh://|git@)?[a-z:/@.%\\-#?]{0,20}") {
            if let Ok(url) = GitUrl::parse(&text, false) {
                prop_assert!(!url.as_str().starts_with('-'));
                prop_assert!(!url.as_str().contains("::") || url.as_str().contains("://"));
                let again = GitUrl::parse(url.as_str(), false);
                prop_assert_eq!(again.as_ref(), Ok(&url));
            }
        }
    }
}

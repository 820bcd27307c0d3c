//! Why git failed, recognised from what it says in the C locale.

use thiserror::Error;

/// A failure of git, its message free of credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}: {message}")]
pub struct GitError {
    pub kind: GitErrorKind,
    /// One line, from git or from the other side: data, not our own words.
    pub message: String,
}

impl GitError {
    pub(super) fn new(kind: GitErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GitErrorKind {
    #[error("the server wants other credentials")]
    AuthFailed,
    #[error("no such repository, or no right to see it")]
    RepositoryNotFound,
    #[error("no such branch, tag or commit")]
    RefNotFound,
    #[error("the server's name does not resolve")]
    UnknownHost,
    #[error("the server cannot be reached")]
    Unreachable,
    #[error("the server's certificate or TLS is not accepted")]
    Tls,
    #[error("the server's SSH host key is not known or not the known one")]
    HostKey,
    #[error("the transport or a redirect is not allowed")]
    ProtocolRefused,
    #[error("a disk is full")]
    DiskFull,
    #[error("git failed")]
    Failed,
    #[error("git or ssh is not installed")]
    Missing,
    #[error("more than is allowed")]
    TooBig,
    #[error("the time was up")]
    TimedOut,
    #[error("cancelled")]
    Cancelled,
}

impl GitErrorKind {
    /// Stable, for machines.
    pub fn code(self) -> &'static str {
        match self {
            Self::AuthFailed => "git_auth_failed",
            Self::RepositoryNotFound => "git_repository_not_found",
            Self::RefNotFound => "git_ref_not_found",
            Self::UnknownHost => "git_unknown_host",
            Self::Unreachable => "git_unreachable",
            Self::Tls => "git_tls",
            Self::HostKey => "git_host_key",
            Self::ProtocolRefused => "git_protocol_refused",
            Self::DiskFull => "git_disk_full",
            Self::Failed => "git_failed",
            Self::Missing => "git_missing",
            Self::TooBig => "git_too_big",
            Self::TimedOut => "git_timed_out",
            Self::Cancelled => "git_cancelled",
        }
    }
}

/// The first kind with a matching sentence holds, so the more telling ones stand first.
const SENTENCES: &[(GitErrorKind, &[&str])] = &[
    (
        GitErrorKind::DiskFull,
        &["No space left on device", "Disk quota exceeded"],
    ),
    (
        GitErrorKind::HostKey,
        &[
            "Host key verification failed",
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "no matching host key type found",
        ],
    ),
    (
        GitErrorKind::ProtocolRefused,
        &[
            "' not allowed",
            "requested URL returned error: 30",
            "unable to update url base from redirection",
        ],
    ),
    (
        GitErrorKind::AuthFailed,
        &[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "Permission denied (",
            "Permission denied, please try again",
            "HTTP Basic: Access denied",
            "Too many authentication failures",
            "returned error: 401",
            "returned error: 403",
        ],
    ),
    (
        GitErrorKind::RepositoryNotFound,
        &[
            "does not appear to be a git repository",
            "Repository not found",
            "The project you were looking for could not be found",
            "is this a git repository?",
            "returned error: 404",
            "returned error: 410",
        ],
    ),
    (
        GitErrorKind::RefNotFound,
        &[
            "couldn't find remote ref",
            "not our ref",
            "request for unadvertised object",
        ],
    ),
    (
        GitErrorKind::Missing,
        &[
            "cannot run ssh",
            "unable to find remote helper",
            "ssh: not found",
        ],
    ),
    (
        GitErrorKind::Tls,
        &[
            "SSL certificate problem",
            "certificate verification failed",
            "gnutls_handshake() failed",
            "SSL routines",
            "SSL_connect",
            "no alternative certificate subject name",
            "subject name does not match",
            "error setting certificate",
            "TLS connect error",
        ],
    ),
    (
        GitErrorKind::UnknownHost,
        &[
            "Could not resolve host",
            "Temporary failure in name resolution",
            "Name or service not known",
        ],
    ),
    (
        GitErrorKind::Unreachable,
        &[
            "Could not resolve",
            "Connection refused",
            "Connection reset",
            "Connection timed out",
            "Connection closed by",
            "Failed to connect",
            "Couldn't connect to server",
            "Network is unreachable",
            "No route to host",
            "Operation timed out",
            "Operation too slow",
            "Empty reply from server",
            "the remote end hung up unexpectedly",
            "unexpected disconnect while reading",
            "early EOF",
            "returned error: 429",
            "returned error: 5",
        ],
    ),
];

/// What `stderr` tells. The words of the other side (`remote:`) count only when git's own, or
/// those of ssh, tell nothing.
pub(super) fn classify(stderr: &str) -> GitErrorKind {
    let (remote, local): (Vec<&str>, Vec<&str>) = stderr
        .lines()
        .partition(|line| line.starts_with("remote: "));
    recognise(&local)
        .or_else(|| recognise(&remote))
        .unwrap_or(GitErrorKind::Failed)
}

fn recognise(lines: &[&str]) -> Option<GitErrorKind> {
    let not_found = |line: &&str| {
        line.starts_with("fatal: repository '") && line.trim_end().ends_with("' not found")
    };
    if lines.iter().any(not_found) {
        return Some(GitErrorKind::RepositoryNotFound);
    }
    let says = |sentence: &&str| lines.iter().any(|line| line.contains(sentence));
    SENTENCES
        .iter()
        .find(|(_, sentences)| sentences.iter().any(says))
        .map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_git_ssh_and_servers() {
        use GitErrorKind::*;
        for (stderr, expected) in [
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                AuthFailed,
            ),
            (
                "remote: Invalid username or password.\nfatal: Authentication failed for 'https://h/a/'",
                AuthFailed,
            ),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                AuthFailed,
            ),
            (
                "fatal: unable to access 'https://h/a/': The requested URL returned error: 403",
                AuthFailed,
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://h/a/' not found",
                RepositoryNotFound,
            ),
            (
                "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
                RepositoryNotFound,
            ),
            (
                "remote: The project you were looking for could not be found or you don't have permission to view it.\nfatal: Could not read from remote repository.",
                RepositoryNotFound,
            ),
            (
                "fatal: '/a' does not appear to be a git repository",
                RepositoryNotFound,
            ),
            ("fatal: couldn't find remote ref nope", RefNotFound),
            (
                "fatal: remote error: upload-pack: not our ref 0123",
                RefNotFound,
            ),
            (
                "error: Server does not allow request for unadvertised object 0123",
                RefNotFound,
            ),
            (
                "fatal: unable to access 'https://h/': Could not resolve host: h",
                UnknownHost,
            ),
            (
                "fatal: unable to access 'https://h/': Could not resolve proxy: p",
                Unreachable,
            ),
            (
                "ssh: Could not resolve hostname h: Name or service not known",
                UnknownHost,
            ),
            (
                "ssh: connect to host h port 22: Connection refused",
                Unreachable,
            ),
            (
                "fatal: unable to access 'https://h/': Failed to connect to h port 443 after 1 ms: Couldn't connect to server",
                Unreachable,
            ),
            (
                "fatal: unable to access 'https://h/': The requested URL returned error: 503",
                Unreachable,
            ),
            (
                "fatal: unable to access 'https://h/': SSL certificate problem: self-signed certificate",
                Tls,
            ),
            (
                "fatal: unable to access 'https://h/': server certificate verification failed. CAfile: none CRLfile: none",
                Tls,
            ),
            (
                "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.",
                HostKey,
            ),
            ("fatal: transport 'file' not allowed", ProtocolRefused),
            (
                "fatal: unable to access 'https://h/': The requested URL returned error: 302",
                ProtocolRefused,
            ),
            (
                "error: cannot run ssh: No such file or directory\nfatal: unable to fork",
                Missing,
            ),
            (
                "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output\nfatal: early EOF",
                DiskFull,
            ),
            ("fatal: pack has bad object", Failed),
            ("", Failed),
            // The other side cannot pass its words off as git's.
            (
                "remote: Authentication failed\nfatal: couldn't find remote ref x",
                RefNotFound,
            ),
        ] {
            assert_eq!(classify(stderr), expected, "{stderr}");
        }
    }
}

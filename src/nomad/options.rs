//! Where Nomad is and how to talk to it: the customary environment variables.
//!
//! <https://developer.hashicorp.com/nomad/docs/commands#environment-variables>

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::Token;

/// Where Nomad's HTTP API is when nothing says so.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4646";

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `http://` or `https://`.
    Http(Url),
    /// The Task API, or any other Unix socket (`unix:///path`).
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// TLS towards Nomad.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Directory of such files.
    pub ca_dir: Option<PathBuf>,
    /// PEM certificate of this client; with [`Tls::client_key`].
    pub client_cert: Option<PathBuf>,
    /// PEM key of this client.
    pub client_key: Option<PathBuf>,
    /// Name in the server's certificate, such as `server.global.nomad`, where it is not the host's.
    pub server_name: Option<String>,
    /// Whether any certificate is taken. Only for tests of a cluster's set-up.
    pub skip_verify: bool,
}

/// How to talk to Nomad.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the API is.
    pub address: Address,
    /// Token of every request.
    pub token: Token,
    /// `user:password` of a proxy before Nomad, as basic authentication.
    pub http_auth: Option<HttpAuth>,
    /// Namespace of every request.
    pub namespace: String,
    /// Region; `None`: that of the agent that is asked.
    pub region: Option<String>,
    /// TLS.
    pub tls: Tls,
    /// Longest for a connection.
    pub connect_timeout: Duration,
    /// Longest for an answer, for blocking queries on top of the time they may block.
    pub timeout: Duration,
    /// First pause before a repetition; each further one is twice as long.
    pub backoff: Duration,
}

/// See [`Options::http_auth`].
#[derive(Clone, PartialEq, Eq)]
pub struct HttpAuth {
    /// User.
    pub user: String,
    /// Password.
    pub password: Option<String>,
}

impl fmt::Debug for HttpAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpAuth(…)")
    }
}

/// What is wrong with the options; every fault at once.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.join("\n"))]
pub struct OptionsError(pub Vec<String>);

impl Default for Options {
    fn default() -> Self {
        Self {
            address: default_address(),
            token: Token::None,
            http_auth: None,
            namespace: "default".into(),
            region: None,
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            backoff: Duration::from_millis(200),
        }
    }
}

fn default_address() -> Address {
    match Url::parse(DEFAULT_ADDRESS) {
        Ok(url) => Address::Http(url),
        Err(_) => Address::Unix("/nonexistent".into()),
    }
}

impl Options {
    /// From the customary variables: `NOMAD_ADDR`, `NOMAD_TOKEN`, `NOMAD_NAMESPACE`,
    /// `NOMAD_REGION`, `NOMAD_CACERT`, `NOMAD_CAPATH`, `NOMAD_CLIENT_CERT`, `NOMAD_CLIENT_KEY`,
    /// `NOMAD_TLS_SERVER_NAME`, `NOMAD_SKIP_VERIFY`, `NOMAD_HTTP_AUTH`.
    ///
    /// Inside a Nomad task without `NOMAD_ADDR` it is the Task API, with the task's workload
    /// identity from its file where there is one.
    ///
    /// # Errors
    /// Names every variable that cannot be used.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut options = Self::default();
        let mut faults = Vec::new();
        let secrets = env("NOMAD_SECRETS_DIR").map(PathBuf::from);
        let socket = secrets.as_ref().map(|dir| dir.join("api.sock"));
        let identity = secrets.as_ref().map(|dir| dir.join("nomad_token"));
        match (env("NOMAD_ADDR"), socket) {
            (Some(text), _) => match parse_address(&text) {
                Ok(address) => options.address = address,
                Err(fault) => faults.push(format!("NOMAD_ADDR: {fault}")),
            },
            (None, Some(socket)) if socket.exists() => options.address = Address::Unix(socket),
            (None, _) => {}
        }
        options.token = match (identity.filter(|file| file.exists()), env("NOMAD_TOKEN")) {
            // The variable's copy of a workload identity expires; the file is renewed.
            (Some(file), _) => Token::File(file),
            (None, Some(token)) => Token::Fixed(token),
            (None, None) => Token::None,
        };
        options.http_auth = env("NOMAD_HTTP_AUTH").map(|text| match text.split_once(':') {
            Some((user, password)) => HttpAuth {
                user: user.into(),
                password: Some(password.into()),
            },
            None => HttpAuth {
                user: text,
                password: None,
            },
        });
        if let Some(namespace) = env("NOMAD_NAMESPACE") {
            options.namespace = namespace;
        }
        options.region = env("NOMAD_REGION");
        let file = |name: &str| env(name).map(PathBuf::from);
        options.tls = Tls {
            ca_file: file("NOMAD_CACERT"),
            ca_dir: file("NOMAD_CAPATH"),
            client_cert: file("NOMAD_CLIENT_CERT"),
            client_key: file("NOMAD_CLIENT_KEY"),
            server_name: env("NOMAD_TLS_SERVER_NAME"),
            skip_verify: match env("NOMAD_SKIP_VERIFY").as_deref() {
                None | Some("false" | "0") => false,
                Some("true" | "1") => true,
                Some(_) => {
                    faults.push("NOMAD_SKIP_VERIFY must be true or false".into());
                    false
                }
            },
        };
        if options.tls.client_cert.is_some() != options.tls.client_key.is_some() {
            faults.push("NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY belong together".into());
        }
        if faults.is_empty() {
            Ok(options)
        } else {
            Err(OptionsError(faults))
        }
    }
}

impl Options {
    /// The same in another namespace, where one is given.
    #[must_use]
    pub fn in_namespace(self, namespace: Option<&str>) -> Self {
        Self {
            namespace: namespace.map_or(self.namespace, str::to_owned),
            ..self
        }
    }
}

/// Reads an address as `NOMAD_ADDR` has it.
///
/// # Errors
/// Says what an address looks like.
pub(super) fn parse_address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        return if path.starts_with('/') {
            Ok(Address::Unix(path.into()))
        } else {
            Err("a Unix socket is given as unix:///absolute/path".into())
        };
    }
    match Url::parse(text) {
        Ok(url)
            if matches!(url.scheme(), "http" | "https")
                && url.host().is_some()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none() =>
        {
            Ok(Address::Http(url))
        }
        _ => Err("it must be http://HOST:PORT, https://HOST:PORT or unix:///PATH".into()),
    }
}

//! The token of a request.

use std::fmt;
use std::path::PathBuf;

use reqwest::header::HeaderValue;

use super::ConsulError;

/// Where the token comes from.
#[derive(Clone, Default)]
pub enum Token {
    /// There is none: what the anonymous token may.
    #[default]
    None,
    /// Always the same.
    Fixed(String),
    /// Read again for every request: somebody renews it.
    File(PathBuf),
}

impl Token {
    /// As `CONSUL_HTTP_TOKEN` says, unless there is a file of it.
    pub fn from_env(file: Option<PathBuf>, env: impl Fn(&str) -> Option<String>) -> Self {
        let variable = || env("CONSUL_HTTP_TOKEN").filter(|token| !token.trim().is_empty());
        file.map(Self::File)
            .or_else(|| variable().map(Self::Fixed))
            .unwrap_or_default()
    }

    /// The value of `X-Consul-Token`.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>, ConsulError> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Fixed(text) => text.clone(),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                ConsulError::Setup(format!("the token file {}: {error}", path.display()))
            })?,
        };
        let text = text.trim();
        if let (Self::File(path), true) = (self, text.is_empty()) {
            let empty = format!("the token file {} is empty", path.display());
            return Err(ConsulError::Setup(empty));
        }
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| ConsulError::Setup("the token has characters that no token has".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(_) => f.write_str("Fixed(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

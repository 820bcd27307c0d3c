//! The token of a request: fixed, or read from a file that somebody renews.

use std::fmt;
use std::path::PathBuf;

use reqwest::header::HeaderValue;

use super::NomadError;

/// Where the token comes from.
#[derive(Clone, Default)]
pub enum Token {
    /// There is none.
    #[default]
    None,
    /// Always the same.
    Fixed(String),
    /// Read again for every request: a workload identity is renewed in its file before it expires.
    File(PathBuf),
}

impl Token {
    /// The value of `X-Nomad-Token`, which takes ACL tokens and workload identities alike.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>, NomadError> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Fixed(text) => text.clone(),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                NomadError::Setup(format!("the token file {}: {error}", path.display()))
            })?,
        };
        let text = text.trim();
        match self {
            // It is being renewed.
            Self::File(path) if text.is_empty() => {
                return Err(NomadError::Unreachable {
                    address: path.display().to_string(),
                    why: "the token file is empty".into(),
                    unsent: true,
                });
            }
            _ if text.is_empty() => return Ok(None),
            _ => {}
        }
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| NomadError::Setup("the token has characters that no token has".into()))?;
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

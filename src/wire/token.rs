//! The token of a request: fixed, or read from a file that somebody renews.

use std::fmt;
use std::path::PathBuf;

use reqwest::header::HeaderValue;

/// Where the token comes from. It stands in no `Debug`.
#[derive(Clone, Default)]
pub enum Token {
    /// There is none.
    #[default]
    None,
    /// Always the same.
    Fixed(String),
    /// Read again for every request: somebody renews it in its file before it expires.
    File(PathBuf),
}

/// Why there is no token for a request.
#[derive(Debug, thiserror::Error)]
pub enum TokenFault {
    /// Its file cannot be read.
    #[error("the token file {}: {error}", .path.display())]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Its file is empty: perhaps it is being renewed.
    #[error("the token file {} is empty", .0.display())]
    Empty(PathBuf),
    /// It cannot stand in a header.
    #[error("the token has characters that no token has")]
    Malformed,
}

impl Token {
    /// The value of a header, which no log shows; `None`: there is no token.
    ///
    /// # Errors
    /// When the file has none, or it is none.
    pub fn header(&self) -> Result<Option<HeaderValue>, TokenFault> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Fixed(text) => text.clone(),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                let path = path.clone();
                TokenFault::Unreadable { path, error }
            })?,
        };
        let text = text.trim();
        match self {
            Self::File(path) if text.is_empty() => return Err(TokenFault::Empty(path.clone())),
            _ if text.is_empty() => return Ok(None),
            _ => {}
        }
        let mut value = HeaderValue::from_str(text).map_err(|_| TokenFault::Malformed)?;
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

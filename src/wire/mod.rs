//! What clients of HTTP APIs share, whatever API it is: bounded bodies, causes, certificates, tokens.

mod token;

use std::error::Error;
use std::fmt;
use std::path::Path;

use reqwest::{Certificate, Response};

pub use token::{Token, TokenFault};

/// The body's first bytes, `limit` at most.
///
/// # Errors
/// When the body breaks off.
pub async fn read_body(mut response: Response, limit: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(mut chunk) = response.chunk().await?
    {
        chunk.truncate(limit.saturating_sub(body.len()));
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause: the outer errors say little more than that there was one.
pub fn cause(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// The certificates of a file in PEM, of which there is at least one.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn certificates(file: &Path) -> Result<Vec<Certificate>, String> {
    let named = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let pem = std::fs::read(file).map_err(|error| named(&error))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| named(&error))?;
    match found.is_empty() {
        true => Err(named(&"no certificate in it")),
        false => Ok(found),
    }
}

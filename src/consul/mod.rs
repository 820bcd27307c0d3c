//! A thin client of Consul's HTTP API: keys below a prefix, and instances of a service; and what keeps a
//! configuration as those keys say.
//!
//! ```text
//! GET /v1/kv/PREFIX?recurse&index=N&wait=60s ─▶ config::Live      (Watch)
//! GET /v1/health/service/NAME?passing        ─▶ where a server is  (Client::instances)
//! ```
//! Tokens are read anew for each request, and stand in no error, log or `Debug`.

mod client;
mod error;
mod kv;
mod services;
#[cfg(test)]
mod tests;
mod watch;

pub use client::Client;
pub use error::ConsulError;
pub use kv::Keys;
pub use services::Instance;
pub use watch::Watch;

use std::path::PathBuf;

use crate::wire::Token;

/// The token of requests, of which there is none where the anonymous one is to do: a file's, or as
/// `CONSUL_HTTP_TOKEN` says.
pub fn token(file: Option<PathBuf>, env: impl Fn(&str) -> Option<String>) -> Token {
    let variable = || env("CONSUL_HTTP_TOKEN").filter(|token| !token.trim().is_empty());
    file.map(Token::File)
        .or_else(|| variable().map(Token::Fixed))
        .unwrap_or_default()
}

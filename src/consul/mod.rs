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
mod token;
mod watch;

pub use client::Client;
pub use error::ConsulError;
pub use kv::Keys;
pub use services::Instance;
pub use token::Token;
pub use watch::Watch;

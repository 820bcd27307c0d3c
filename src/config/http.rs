//! MCP over HTTP.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// File of the tokens that may be used: a line `NAME SHA256` each. Default: `tokens` in the state
    /// directory, made at the first start.
    pub tokens: Option<PathBuf>,
    /// Names by which clients call this server, in their `Host`. Addresses and `localhost` always work.
    pub hosts: Vec<String>,
    /// Web pages that may call this server, such as `https://app.example.com:443`. Others, which browsers
    /// tell by `Origin`, are refused.
    pub origins: Vec<String>,
}

impl Http {
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.tokens.as_ref().is_some_and(|path| path.is_relative()) {
            faults.push("http.tokens must be an absolute path".into());
        }
        for host in &self.hosts {
            if url::Host::parse(host).is_err() {
                faults.push(format!(
                    "http.hosts: {host:?} is no name of a host, such as build.example.com (without a port)"
                ));
            }
        }
        for origin in &self.origins {
            let is_origin = url::Url::parse(origin).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && matches!(url.path(), "" | "/")
                    && url.query().is_none()
            });
            if !is_origin {
                faults.push(format!(
                    "http.origins: {origin:?} is no origin, such as https://app.example.com:443"
                ));
            }
        }
        faults
    }
}

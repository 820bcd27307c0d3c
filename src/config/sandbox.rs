//! Isolation of foreign code.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Isolation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// Whom builds run as when the server was started as root: the accounts of this name with
    /// `-0`, `-1`, … behind it, each a build at a time. `nomad-build setup` makes them.
    pub user: String,
    /// `auto`, `rootless` (a runtime with its own namespaces) or `chroot`.
    pub isolation: Isolation,
    /// Network of foreign code: `egress` (out, but not to this host), `none`, or `host` (this host's network, its
    /// loopback included).
    pub network: Network,
    /// Networks that are closed to foreign code under `egress`, besides this host's own and link-local addresses.
    #[schemars(example = ["10.0.0.0/8"])]
    pub deny: Vec<String>,
    /// Whether foreign code is kept from gaining privileges, as by setuid programs. `false` lets them (sudo) work in RUN,
    /// without the filter over system calls.
    pub no_new_privileges: bool,
}

/// See [`Sandbox`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "explained at Sandbox")]
pub enum Isolation {
    #[default]
    Auto,
    Rootless,
    Chroot,
}

/// See [`Sandbox`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "explained at Sandbox")]
pub enum Network {
    #[default]
    Egress,
    None,
    Host,
}

impl Network {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Network::Egress => "egress",
            Network::None => "none",
            Network::Host => "host",
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            user: super::DEFAULT_USER.into(),
            isolation: Isolation::Auto,
            network: Network::Egress,
            deny: Vec::new(),
            no_new_privileges: true,
        }
    }
}

impl Sandbox {
    /// The networks of `deny`.
    pub fn denied(&self) -> Vec<IpNet> {
        self.deny
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect()
    }

    /// What is wrong, each with the key and what would be right.
    pub fn faults(&self) -> Vec<String> {
        let no_network = |(index, text): (usize, &String)| {
            let instead = instead_of(text)?;
            Some(format!(
                "sandbox.deny[{index}]: {text:?} is no network; {instead}"
            ))
        };
        self.deny
            .iter()
            .enumerate()
            .filter_map(no_network)
            .collect()
    }
}

/// What to write instead of a text that is no network.
fn instead_of(text: &str) -> Option<String> {
    if let Ok(net) = text.parse::<IpNet>() {
        // The kernel takes no route to an address within a network.
        return (net.trunc() != net).then(|| format!("write {}", net.trunc()));
    }
    Some(match text.parse::<std::net::IpAddr>() {
        Ok(address) => format!("write {}", IpNet::from(address)),
        Err(_) => "write one as 10.0.0.0/8 or fd00::/8".into(),
    })
}

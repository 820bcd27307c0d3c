//! Where Consul is, and the prefix of its keys that lies over the file.
//!
//! The customary variables win over the file: `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_CACERT`.
//! A token itself stands in `CONSUL_HTTP_TOKEN` alone: no configuration ever holds one.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Where Consul's HTTP API is when nothing says so.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8500";
/// Longest prefix, in bytes: of what Consul takes as a key, this leaves most to the keys below it.
const MAX_PREFIX: usize = 200;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Consul {
    /// Address of its HTTP API: `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`. `CONSUL_HTTP_ADDR` wins over it.
    pub address: String,
    /// Keys below this prefix lie over the file. Empty: Consul is not asked.
    pub prefix: String,
    /// File of the token, read again for each request. `CONSUL_HTTP_TOKEN_FILE` wins over it. Default:
    /// `CONSUL_HTTP_TOKEN`, else none.
    #[schemars(example = "/etc/nomad-build/consul-token")]
    pub token_file: Option<PathBuf>,
    /// PEM certificates to trust besides the system's. `CONSUL_CACERT` wins over it.
    #[schemars(example = "/etc/nomad-build/consul-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// Datacenter. Default: that of the agent that is asked.
    #[schemars(example = &"dc1")]
    pub datacenter: Option<String>,
}

impl Default for Consul {
    fn default() -> Self {
        Self {
            address: DEFAULT_ADDRESS.into(),
            prefix: String::new(),
            token_file: None,
            ca_file: None,
            datacenter: None,
        }
    }
}

/// What the variables of Consul's own programs say: keys, values and the names of the variables.
pub(super) fn customary(
    env: &dyn Fn(&str) -> Option<String>,
) -> Vec<(&'static str, String, &'static str)> {
    // Consul's own programs take HOST:PORT, too.
    let address = |text: String| match (text.contains("://"), env("CONSUL_HTTP_SSL").as_deref()) {
        (true, _) => text,
        (false, Some("true" | "1")) => format!("https://{text}"),
        (false, _) => format!("http://{text}"),
    };
    let given = [
        (
            "address",
            env("CONSUL_HTTP_ADDR").map(address),
            "CONSUL_HTTP_ADDR",
        ),
        (
            "token_file",
            env("CONSUL_HTTP_TOKEN_FILE"),
            "CONSUL_HTTP_TOKEN_FILE",
        ),
        ("ca_file", env("CONSUL_CACERT"), "CONSUL_CACERT"),
    ];
    let taken = given
        .into_iter()
        .filter_map(|(key, value, name)| Some((key, value?, name)));
    taken.collect()
}

impl Consul {
    /// As the customary variables alone say, for a client that has no configuration.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Self {
        let mut consul = Self::default();
        for (key, value, _) in customary(&|name| env(name).filter(|value| !value.is_empty())) {
            match key {
                "address" => consul.address = value,
                "token_file" => consul.token_file = Some(value.into()),
                _ => consul.ca_file = Some(value.into()),
            }
        }
        consul
    }

    /// The prefix as keys begin with it, with a slash at its end; none where Consul is not asked.
    pub fn keys_below(&self) -> Option<String> {
        let prefix = self.prefix.trim_matches('/');
        (!prefix.is_empty()).then(|| format!("{prefix}/"))
    }

    /// What is wrong with the address. It is not repeated: it may hold a password that should not stand there.
    ///
    /// # Errors
    /// Says what an address looks like.
    pub fn check_address(&self) -> Result<(), String> {
        if let Some(path) = self.address.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(()),
                false => Err("a Unix socket is given as unix:///absolute/path".into()),
            };
        }
        let sound = Url::parse(&self.address).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
        });
        match sound {
            true => Ok(()),
            false => Err("it must be http://HOST:PORT, https://HOST:PORT or unix:///PATH".into()),
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        // Variables of Consul's own programs must not keep a server from its work that does not use it.
        if self.keys_below().is_none() {
            return Vec::new();
        }
        let mut faults = Vec::new();
        if let Err(fault) = self.check_address() {
            faults.push(format!("consul.address: {fault}"));
        }
        if self.prefix.len() > MAX_PREFIX || self.prefix.contains(char::is_control) {
            faults.push(format!(
                "consul.prefix must be one line of at most {MAX_PREFIX} bytes"
            ));
        }
        for (name, file) in [("token_file", &self.token_file), ("ca_file", &self.ca_file)] {
            if file.as_ref().is_some_and(|file| !file.is_absolute()) {
                faults.push(format!("consul.{name} must be an absolute path"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customary_variables_are_taken() {
        let of = |env: &[(&str, &str)]| {
            let env: Vec<_> = env
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect();
            Consul::from_env(move |name| {
                let found = env.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone())
            })
        };
        assert_eq!(of(&[]), Consul::default());
        assert_eq!(of(&[("CONSUL_HTTP_ADDR", "")]).address, DEFAULT_ADDRESS);
        assert_eq!(of(&[("CONSUL_HTTP_ADDR", "a:1")]).address, "http://a:1");
        let tls = [("CONSUL_HTTP_ADDR", "a:1"), ("CONSUL_HTTP_SSL", "true")];
        assert_eq!(of(&tls).address, "https://a:1");
        let all = of(&[
            ("CONSUL_HTTP_ADDR", "unix:///run/consul.sock"),
            ("CONSUL_HTTP_TOKEN_FILE", "/t"),
            ("CONSUL_CACERT", "/c"),
        ]);
        assert_eq!(all.address, "unix:///run/consul.sock");
        assert_eq!(all.token_file, Some("/t".into()));
        assert_eq!(all.ca_file, Some("/c".into()));
    }

    #[test]
    fn faults_are_named_and_only_where_consul_is_asked() {
        let wrong: Consul = toml::from_str(
            "address = \"http://user:geheim@a:1\"\ntoken_file = \"t\"\nca_file = \"c\"\nprefix = \"a\\nb\"\n",
        )
        .unwrap();
        let faults = wrong.faults().join("\n");
        for part in [
            "consul.address",
            "consul.prefix",
            "consul.token_file",
            "consul.ca_file",
        ] {
            assert!(faults.contains(part), "{faults}");
        }
        assert!(!faults.contains("geheim"), "{faults}");
        let off = Consul {
            prefix: "/".into(),
            ..wrong
        };
        assert_eq!(off.faults(), Vec::<String>::new());
        let below = |prefix: &str| {
            let consul = Consul {
                prefix: prefix.into(),
                ..Consul::default()
            };
            consul.keys_below()
        };
        assert_eq!(below("/a/b/").as_deref(), Some("a/b/"));
        assert_eq!(below("a").as_deref(), Some("a/"));
        assert_eq!(below(""), None);
    }
}

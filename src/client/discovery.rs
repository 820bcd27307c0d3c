//! Finding a server by the name of its service in Consul.
//!
//! `consul://NAME` is an instance of the service whose checks pass, at random among several; Consul is where the
//! customary variables say. `?tag=T` takes only those with that tag. An instance is called by HTTPS when it has the
//! tag `https`, or where `?scheme=https` says so.

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};
use url::Url;

use crate::config::Consul;
use crate::consul::{self, Client, Instance};

/// What the address of a service begins with.
const SCHEME: &str = "consul";
/// What is said of an address that names no service. It is not repeated: it may hold a password that should not stand there.
const WRONG: &str = "the address of the server is no service: such as consul://nomad-build?tag=TAG&scheme=https&dc=DATACENTER";
/// Tag of instances that are called by HTTPS.
const HTTPS: &str = "https";

/// The URL of a server: as it is, or of a passing instance of the service that `consul://NAME` names.
///
/// # Errors
/// When Consul does not answer, or has no such instance.
pub async fn locate(
    server: &str,
    env: impl Fn(&str) -> Option<String> + Copy,
) -> anyhow::Result<String> {
    let Some(wanted) = Wanted::parse(server)? else {
        return Ok(server.to_owned());
    };
    let consul = Consul {
        datacenter: wanted.datacenter.clone(),
        ..Consul::from_env(env)
    };
    let token = consul::token(consul.token_file.clone(), env);
    let client = Client::new(&consul, token)?;
    let found = client.instances(&wanted.name, wanted.tag.as_deref()).await;
    let found = found.with_context(|| format!("{server} cannot be found"))?;
    let registered = found.len();
    let mut passing: Vec<Instance> = found.into_iter().filter(|one| one.is_passing).collect();
    if passing.is_empty() {
        bail!("{}", wanted.none_of(registered, client.address()));
    }
    let one = passing.swap_remove(fastrand::usize(..passing.len()));
    let url = wanted.url(&one);
    tracing::debug!(url, "found by Consul");
    Ok(url)
}

/// What `consul://…` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    tag: Option<String>,
    scheme: Option<String>,
    datacenter: Option<String>,
}

impl Wanted {
    fn parse(server: &str) -> anyhow::Result<Option<Self>> {
        if !server.starts_with("consul:") {
            return Ok(None);
        }
        let url = Url::parse(server).context(WRONG)?;
        // Anything more would be left out in silence.
        let bare = url.port().is_none() && url.username().is_empty() && url.password().is_none();
        let whole =
            url.scheme() == SCHEME && matches!(url.path(), "" | "/") && url.fragment().is_none();
        let name = url.host_str().filter(|_| bare && whole).context(WRONG)?;
        let mut given: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let wanted = Self {
            name: name.to_owned(),
            tag: given.remove("tag"),
            scheme: given.remove("scheme"),
            datacenter: given.remove("dc"),
        };
        let scheme = wanted.scheme.as_deref();
        ensure!(
            given.is_empty() && matches!(scheme, None | Some("http" | HTTPS)),
            WRONG
        );
        Ok(Some(wanted))
    }

    fn url(&self, one: &Instance) -> String {
        let tagged = one.tags.iter().any(|tag| tag == HTTPS);
        let scheme = match &self.scheme {
            Some(scheme) => scheme.as_str(),
            None if tagged => HTTPS,
            None => "http",
        };
        match one.address.contains(':') {
            true => format!("{scheme}://[{}]:{}", one.address, one.port),
            false => format!("{scheme}://{}:{}", one.address, one.port),
        }
    }

    fn none_of(&self, registered: usize, consul: &str) -> String {
        let name = &self.name;
        let tag = self
            .tag
            .as_ref()
            .map(|tag| format!(" with the tag {tag:?}"));
        let tag = tag.unwrap_or_default();
        match registered {
            0 => format!(
                "Consul at {consul} has no service {name:?}{tag}, or does not show it to this token"
            ),
            some => format!(
                "none of the {some} instances of {name:?}{tag} passes its checks, as Consul at {consul} has it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(server: &str) -> Wanted {
        Wanted::parse(server).unwrap().unwrap()
    }

    #[test]
    fn services_are_told_from_urls() {
        assert_eq!(Wanted::parse("https://build.example.com").unwrap(), None);
        let plain = wanted("consul://nomad-build");
        assert_eq!(
            (plain.name.as_str(), plain.tag, plain.scheme),
            ("nomad-build", None, None)
        );
        let all = wanted("consul://nomad-build/?tag=a%20b&scheme=https&dc=dc2");
        assert_eq!(all.tag.as_deref(), Some("a b"));
        assert_eq!(all.scheme.as_deref(), Some("https"));
        assert_eq!(all.datacenter.as_deref(), Some("dc2"));
        for wrong in [
            "consul:",
            "consul://",
            "consul:nomad-build",
            "consul://nomad-build:8080",
            "consul://a:b@nomad-build",
            "consul://nomad-build/mcp",
            "consul://nomad-build?scheme=ftp",
            "consul://nomad-build?tga=x",
        ] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_never_repeated() {
        for wrong in [
            "consul://ann:geheim@nomad-build",
            "consul://geheim@nomad-build",
            "consul://ann:geheim@nomad-build:x",
            "consul:ann:geheim@nomad-build",
            "consul://nomad-build?token=geheim",
            "consul://nomad-build#geheim",
        ] {
            let error = Wanted::parse(wrong).unwrap_err();
            assert!(
                !format!("{error:?} {error:#}").contains("geheim"),
                "{error:?}"
            );
            assert!(error.to_string().contains("such as consul://nomad-build"));
        }
    }

    #[test]
    fn an_instance_says_by_its_tag_how_it_is_called() {
        let one = |address: &str, tags: &[&str]| Instance {
            address: address.into(),
            port: 8080,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            is_passing: true,
        };
        let plain = wanted("consul://x");
        assert_eq!(
            plain.url(&one("10.0.0.1", &["mcp"])),
            "http://10.0.0.1:8080"
        );
        assert_eq!(
            plain.url(&one("fd00::1", &["https"])),
            "https://[fd00::1]:8080"
        );
        let said = wanted("consul://x?scheme=https");
        assert_eq!(said.url(&one("h", &[])), "https://h:8080");
        let plain = wanted("consul://x?scheme=http");
        assert_eq!(plain.url(&one("h", &["https"])), "http://h:8080");
    }
}

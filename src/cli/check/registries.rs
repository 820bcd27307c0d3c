//! The registries that the configuration names: whether each is there and takes the credentials for it.

use std::collections::BTreeSet;
use std::io;

use crate::backend::local::credentials;
use crate::build::reference::Repository;
use crate::cli::block_on;
use crate::config::Config;
use crate::registry::{Auth, Client, ClientOptions, RegistryError};

use super::lines::{Line, State, flaw, lack, line};

/// Registries that are asked at most.
const MOST: usize = 20;
/// Stands for a repository where only a registry, or a part of one, is named.
const ANY: &str = "check";

/// Asks each of them; a line for each.
///
/// # Errors
/// When nothing can be asked at all.
pub fn lines(config: &Config) -> io::Result<Vec<Line>> {
    let read = credentials::registry(config).map_err(|error| error.to_string());
    let auth =
        match read.and_then(|json| Auth::from_slice(&json).map_err(|error| error.to_string())) {
            Ok(auth) => auth,
            Err(wrong) => {
                let state = flaw(wrong, "correct registry.auth_file");
                return Ok(vec![line("registries", state)]);
            }
        };
    let client = match Client::new(ClientOptions::from(&config.registry)) {
        Ok(client) => client,
        Err(error) => return Ok(vec![unusable(&error, config)]),
    };
    let named = named(config, &auth);
    let ask = async {
        let asked = named
            .iter()
            .take(MOST)
            .map(|repository| ask(&client, repository, &auth));
        futures_util::future::join_all(asked).await
    };
    block_on(ask)
}

/// Nobody asks them but the user whose credentials count.
pub fn untried(user: &str) -> Vec<Line> {
    let why = format!("the credentials of {user} count, see the user above");
    vec![line("registries", super::lines::untried(why))]
}

/// No build that talks to a registry goes on then, whatever registry it is.
fn unusable(error: &RegistryError, config: &Config) -> Line {
    match &config.registry.ca_file {
        Some(file) => {
            let mend = format!(
                "put the registry's certificate there, in PEM, for the server's user to read ({}), or leave registry.ca_file out",
                file.display()
            );
            line("registry.ca_file", flaw(error.to_string(), mend))
        }
        None => line(
            "registries",
            flaw(error.to_string(), "install the package ca-certificates"),
        ),
    }
}

/// A repository of each registry, or part of one, that the configuration or its credentials name.
fn named(config: &Config, auth: &Auth) -> Vec<Repository> {
    let registry = &config.registry;
    let names: BTreeSet<String> = (registry.insecure.iter().chain(&registry.allow))
        .chain(&config.nomad.repository)
        .cloned()
        .chain(auth.places())
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect();
    let repository = |name: &String| Repository::parse(&format!("{name}/{ANY}")).ok();
    names.iter().filter_map(repository).collect()
}

async fn ask(client: &Client, repository: &Repository, auth: &Auth) -> Line {
    let name = repository.to_string();
    let name = name
        .strip_suffix(ANY)
        .unwrap_or(&name)
        .trim_end_matches('/')
        .to_owned();
    let answer = client.greet(repository, auth).await;
    line(
        &format!("registry {name}"),
        state(answer, auth.knows(repository)),
    )
}

fn state(answer: Result<(), RegistryError>, is_known: bool) -> State {
    match answer {
        Ok(()) if is_known => Ok("it answers, and takes the credentials".into()),
        Ok(()) => Ok("it answers; there are no credentials for it".into()),
        Err(error) => {
            let wrong = error.to_string();
            match error {
                RegistryError::Unauthorized { .. } | RegistryError::Denied { .. } => flaw(
                    wrong,
                    "put the right ones into registry.auth_file, as by buildah login --authfile FILE HOST",
                ),
                RegistryError::Tls { .. } => flaw(
                    wrong,
                    "registry.ca_file for a certificate of your own, registry.insecure for plain HTTP",
                ),
                RegistryError::Auth(_) => flaw(wrong, "correct registry.auth_file"),
                _ => lack(wrong, "look at its name and port, and at the way to it"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registry_is_asked_once() {
        let mut config = Config::default();
        config.registry.insecure = vec!["localhost:5000".into(), "a.example.com".into()];
        config.registry.allow = vec!["a.example.com/team/".into(), "a.example.com".into()];
        let auth = br#"{"auths": {"a.example.com/team": {"auth": "YTpi"}, "b.example.com": {"auth": "YTpi"}}}"#;
        let auth = Auth::from_slice(auth).unwrap();
        let names: Vec<String> = named(&config, &auth)
            .iter()
            .map(Repository::to_string)
            .collect();
        assert_eq!(
            names,
            [
                "a.example.com/check",
                "a.example.com/team/check",
                "b.example.com/check",
                "localhost:5000/check"
            ]
        );
        let known: Vec<bool> = named(&config, &auth)
            .iter()
            .map(|one| auth.knows(one))
            .collect();
        assert_eq!(known, [false, true, true, false]);
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_is_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.registry.ca_file = Some(dir.path().join("ca.pem"));
        for text in [None, Some("no certificate")] {
            if let Some(text) = text {
                std::fs::write(dir.path().join("ca.pem"), text).unwrap();
            }
            let lines = lines(&config).unwrap();
            let told = lines.iter().map(Line::to_string).collect::<String>();
            assert!(
                told.starts_with("wrong    registry.ca_file: ") && told.contains("/ca.pem"),
                "{told}"
            );
        }
    }

    #[test]
    fn what_is_wrong_says_what_mends_it() {
        let host = || "a.example.com".to_owned();
        let refused = RegistryError::Unauthorized {
            host: host(),
            given: true,
        };
        let text = line("registry", state(Err(refused), true)).to_string();
        assert!(
            text.starts_with("wrong    registry: ") && text.contains("buildah login"),
            "{text}"
        );
        let gone = RegistryError::Unreachable {
            host: host(),
            why: crate::registry::Unreachable::Refused,
        };
        let text = line("registry", state(Err(gone), true)).to_string();
        assert!(text.starts_with("missing  registry: "), "{text}");
        assert!(state(Ok(()), false).is_ok());
    }
}

//! Asks Vault. All requests read; no path among them has a secret's value.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError as HttpError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vaultrs::api::{exec_with_no_result, exec_with_result};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;

use super::env::Env;
use super::role::Role;
use super::{Answer, Facts, Fault, Plan, Status};
use crate::cli::block_on;
use crate::wire;

/// Longest for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for everything that the plan needs.
///
/// # Errors
/// When the environment cannot be used.
pub fn gather(plan: &Plan) -> io::Result<Facts> {
    let env = Env::read(|name| std::env::var(name).ok())?;
    let client = client(&env)?;
    block_on(ask(client, &env, plan))
}

fn client(env: &Env) -> io::Result<VaultClient> {
    let ca_file = env.ca_file.as_ref().map(|path| path.display().to_string());
    let settings = VaultClientSettingsBuilder::default()
        .address(env.address.as_str())
        .token(env.token.as_deref().unwrap_or_default())
        .ca_certs(ca_file.into_iter().collect())
        .verify(!env.skip_verify)
        .timeout(Some(TIMEOUT))
        .build()
        .map_err(io::Error::other)?;
    VaultClient::new(settings).map_err(|error| match error {
        ClientError::FileReadError { source, path } => {
            io::Error::other(format!("VAULT_CACERT: {path}: {source}"))
        }
        error => io::Error::other(error),
    })
}

async fn ask(mut client: VaultClient, env: &Env, plan: &Plan) -> Facts {
    let mut facts = Facts {
        address: env.address.as_str().trim_end_matches('/').to_owned(),
        status: status(&client).await,
        token: Err(Fault::Missing),
        store: Err(Fault::Missing),
        method: Err(Fault::Missing),
        config: Err(Fault::Missing),
        names: Err(Fault::Missing),
        roles: BTreeMap::new(),
        policies: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    let ready = facts
        .status
        .as_ref()
        .is_ok_and(|status| status.initialized && !status.sealed);
    if !ready || env.token.is_none() {
        return facts;
    }
    // The status is that of the whole server, all else is the namespace's.
    client.middle.namespace.clone_from(&env.namespace);
    // What it answers has the token in it.
    facts.token = read::<Value>(&client, "auth/token/lookup-self")
        .await
        .map(drop);
    if facts.token.is_err() {
        return facts;
    }
    let places = &plan.places;
    facts.store = read(&client, &format!("sys/mounts/{}", places.mount)).await;
    facts.method = read(&client, &format!("sys/mounts/auth/{}", places.auth)).await;
    if !matches!(facts.method, Err(Fault::Missing)) {
        roles(&client, plan, &mut facts).await;
    }
    for taker in plan.takers() {
        let versions: Answer<Versions> = read(&client, &taker.metadata).await;
        let newest = versions.map(|versions| versions.newest());
        facts.secrets.insert(taker.metadata, newest);
    }
    facts
}

async fn roles(client: &VaultClient, plan: &Plan, facts: &mut Facts) {
    let auth = &plan.places.auth;
    facts.config = read(client, &format!("auth/{auth}/config")).await;
    facts.names = match list(client, &format!("auth/{auth}/role")).await {
        Err(Fault::Missing) => Ok(Vec::new()),
        names => names,
    };
    let mut names: Vec<String> = plan.takers().into_iter().map(|taker| taker.role).collect();
    names.extend(facts.names.iter().flatten().cloned());
    for name in names {
        if facts.roles.contains_key(&name) {
            continue;
        }
        let role: Answer<Role> = read(client, &format!("auth/{auth}/role/{name}")).await;
        for policy in role.iter().flat_map(Role::policies) {
            if !facts.policies.contains_key(policy) {
                let text: Answer<Policy> =
                    read(client, &format!("sys/policies/acl/{policy}")).await;
                facts
                    .policies
                    .insert(policy.to_owned(), text.map(|policy| policy.policy));
            }
        }
        facts.roles.insert(name, role);
    }
}

/// `sys/policies/acl/NAME`.
#[derive(Deserialize)]
struct Policy {
    policy: String,
}

/// `MOUNT/metadata/PATH`.
#[derive(Deserialize)]
struct Versions {
    current_version: u64,
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

impl Versions {
    /// See [`Facts`]. A time of deletion may lie ahead.
    fn newest(&self) -> Option<u64> {
        let newest = self.versions.get(&self.current_version.to_string())?;
        let deleted = match newest.deletion_time.parse::<jiff::Timestamp>() {
            Ok(time) => time <= jiff::Timestamp::now(),
            Err(_) => !newest.deletion_time.is_empty(),
        };
        (!newest.destroyed && !deleted).then_some(self.current_version)
    }
}

/// A request that reads.
struct Read<'a> {
    path: &'a str,
    list: bool,
}

impl Endpoint for Read<'_> {
    type Response = Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.to_owned()
    }

    fn method(&self) -> RequestMethod {
        if self.list {
            RequestMethod::LIST
        } else {
            RequestMethod::GET
        }
    }
}

async fn status(client: &VaultClient) -> Result<Status, String> {
    let path = "sys/seal-status";
    let read = exec_with_no_result(client, Read { path, list: false }).await;
    let told = read.map_err(|error| why(&error))?;
    serde_json::from_value(told).map_err(|_| "it is no Vault that answers there".to_owned())
}

async fn read<T: DeserializeOwned>(client: &VaultClient, path: &str) -> Answer<T> {
    decode(exec_with_result(client, Read { path, list: false }).await)
}

async fn list(client: &VaultClient, path: &str) -> Answer<Vec<String>> {
    #[derive(Deserialize)]
    struct Keys {
        keys: Vec<String>,
    }
    let keys: Answer<Keys> = decode(exec_with_result(client, Read { path, list: true }).await);
    keys.map(|keys| keys.keys)
}

fn decode<T: DeserializeOwned>(told: Result<Value, ClientError>) -> Answer<T> {
    let told = told.map_err(|error| fault(&error))?;
    serde_json::from_value(told)
        .map_err(|error| Fault::Other(format!("its answer is not understood: {error}")))
}

fn fault(error: &ClientError) -> Fault {
    match error {
        ClientError::APIError { code: 403, .. } => Fault::Denied,
        ClientError::APIError { code: 404, .. } | ClientError::ResponseDataEmptyError => {
            Fault::Missing
        }
        // So a path of `sys/mounts` answers where nothing is.
        ClientError::APIError { code: 400, errors }
            if errors
                .iter()
                .any(|error| error.to_lowercase().starts_with("no secret engine mount")) =>
        {
            Fault::Missing
        }
        error => Fault::Other(why(error)),
    }
}

/// The innermost cause. No part of an answer is in it but Vault's own errors.
fn why(error: &ClientError) -> String {
    match error {
        ClientError::APIError { code, errors } => format!("HTTP {code}: {}", errors.join("; ")),
        ClientError::RestClientError {
            source: HttpError::ServerResponseError { code, .. },
        } => format!("HTTP {code}"),
        ClientError::RestClientError {
            source: HttpError::ResponseParseError { .. },
        } => "its answer is not understood".into(),
        error => wire::cause(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_that_are_deleted_are_not_there() {
        let newest = |version: Value| {
            let told = json!({"current_version": 2, "versions": {"1": {}, "2": version}});
            serde_json::from_value::<Versions>(told).unwrap().newest()
        };
        assert_eq!(
            newest(json!({"deletion_time": "", "destroyed": false})),
            Some(2)
        );
        assert_eq!(
            newest(json!({"deletion_time": "2100-01-01T00:00:00.5Z"})),
            Some(2)
        );
        assert_eq!(
            newest(json!({"deletion_time": "2020-01-01T00:00:00.5Z"})),
            None
        );
        assert_eq!(newest(json!({"deletion_time": "?"})), None);
        assert_eq!(newest(json!({"destroyed": true})), None);
        let none: Versions = serde_json::from_value(json!({"current_version": 0})).unwrap();
        assert_eq!(none.newest(), None);
    }

    #[test]
    fn faults_are_told_apart() {
        let of = |code, text: &str| {
            fault(&ClientError::APIError {
                code,
                errors: vec![text.into()],
            })
        };
        assert_eq!(of(403, "permission denied"), Fault::Denied);
        assert_eq!(of(404, ""), Fault::Missing);
        assert_eq!(of(400, "No secret engine mount at x/"), Fault::Missing);
        assert_eq!(of(400, "other"), Fault::Other("HTTP 400: other".into()));
        assert_eq!(fault(&ClientError::ResponseDataEmptyError), Fault::Missing);
    }
}

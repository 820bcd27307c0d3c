//! What was found out about Vault as lines for people. Does no I/O.

use super::super::lines::{Line, State, flaw, lack, line};
use super::roles::Roles;
use super::{Answer, Facts, Fault, MethodConfig, Mount, Plan, Status, Taker};

/// What lets a token see all that is looked at here, and no secret.
const CHECK: &str = "vault policy write nomad-build-check nomad/vault/check.policy.hcl, and take a token of that policy";

/// A line an item, and one more for each further fault of it.
pub fn lines(facts: &Facts, plan: &Plan) -> Vec<Line> {
    let mut lines = vec![line("vault", server(facts))];
    if lines.iter().all(|line| line.state.is_ok()) {
        lines.push(line("token", token(&facts.token)));
    }
    if lines.iter().any(|line| line.state.is_err()) {
        return lines;
    }
    let jwks = facts
        .config
        .as_ref()
        .ok()
        .map(|config| config.jwks_url.as_str());
    let setup = plan.setup(jwks.filter(|jwks| !jwks.is_empty()));
    let takers = plan.takers();
    lines.extend(store(facts, plan));
    lines.extend(plan.alike().into_iter().map(alike));
    let roles = Roles::new(facts, plan, &takers, &setup);
    if method(facts, plan, &setup, &mut lines) {
        roles.lines(&mut lines);
    }
    for taker in takers.iter().filter(|_| keeps_versions(&facts.store)) {
        lines.extend(secrets(facts, plan, taker));
    }
    lines.extend(rights(facts, plan));
    lines
}

/// A line about what Vault could not tell. What it may not tell is a line of [`rights`].
pub fn untold(item: &str, fault: &Fault) -> Option<Line> {
    match fault {
        Fault::Other(why) => Some(line(
            item,
            lack(why, "look at the log of Vault, and try again"),
        )),
        Fault::Missing | Fault::Denied => None,
    }
}

/// Vault keeps the names of roles and policies in small letters.
fn alike(profiles: Vec<&str>) -> Line {
    let names = profiles.join(", ");
    let wrong = format!(
        "Vault takes {names} for one name, so they have the roles and policies of one of them"
    );
    let mend = "give them names that differ in more than capitals";
    line(&format!("profiles {names}"), flaw(wrong, mend))
}

fn server(facts: &Facts) -> State {
    let address = &facts.address;
    match &facts.status {
        Err(why) => lack(
            format!("{address} does not answer: {why}"),
            "set VAULT_ADDR and VAULT_CACERT as for `vault status`",
        ),
        Ok(Status {
            initialized: false, ..
        }) => lack(
            format!("{address} is not initialized"),
            "vault operator init",
        ),
        Ok(Status { sealed: true, .. }) => {
            flaw(format!("{address} is sealed"), "vault operator unseal")
        }
        Ok(Status { version, .. }) => Ok(format!("{address}, version {version}")),
    }
}

fn token(token: &Answer<()>) -> State {
    let login = "vault login, or set VAULT_TOKEN";
    match token {
        Ok(()) => Ok("accepted".into()),
        Err(Fault::Missing) => lack("none in VAULT_TOKEN or ~/.vault-token", login),
        Err(Fault::Denied) => flaw(
            "it is refused: expired, revoked, of another Vault, or without the right read of auth/token/lookup-self",
            login,
        ),
        Err(Fault::Other(why)) => flaw(
            format!("Vault does not tell whether it is one: {why}"),
            login,
        ),
    }
}

/// Also where nothing says the contrary.
fn keeps_versions(store: &Answer<Mount>) -> bool {
    match store {
        Ok(store) => store.version() == Some("2"),
        Err(fault) => *fault != Fault::Missing,
    }
}

impl Mount {
    /// Of a key-value store; none of what is none.
    fn version(&self) -> Option<&str> {
        let told = self
            .options
            .as_ref()
            .and_then(|options| options.get("version"));
        (self.kind == "kv").then(|| told.map_or("1", String::as_str))
    }
}

fn store(facts: &Facts, plan: &Plan) -> Option<Line> {
    let mount = &plan.places.mount;
    let item = format!("store {mount}");
    let state = match &facts.store {
        Ok(store) => match store.version() {
            Some("2") => Ok("key-value store of version 2".into()),
            Some(version) => flaw(
                format!(
                    "it is a key-value store of version {version}, and the jobs read version 2"
                ),
                format!("vault kv enable-versioning {mount}"),
            ),
            None => flaw(
                format!("it is of the type {}, no key-value store", store.kind),
                "name another by --mount, and in vault_path of the jobs",
            ),
        },
        Err(Fault::Missing) => lack(
            "no store has this path",
            format!("vault secrets enable -path={mount} -version=2 kv"),
        ),
        Err(fault) => return untold(&item, fault),
    };
    Some(line(&item, state))
}

/// Whether there can be roles.
fn method(facts: &Facts, plan: &Plan, setup: &str, lines: &mut Vec<Line>) -> bool {
    let auth = &plan.places.auth;
    let item = format!("auth method {auth}");
    match &facts.method {
        Ok(Mount { kind, .. }) if kind != "jwt" && kind != "oidc" => {
            let wrong = format!("it is of the type {kind} instead of jwt");
            lines.push(line(
                &item,
                flaw(wrong, format!("vault auth disable {auth}, then {setup}")),
            ));
            return false;
        }
        Err(Fault::Missing) => {
            lines.push(line(&item, lack("no auth method has this path", setup)));
            return false;
        }
        Err(fault) => lines.extend(untold(&item, fault)),
        Ok(_) => {}
    }
    let config = match &facts.config {
        Ok(config) => config,
        Err(Fault::Missing) => &MethodConfig::default(),
        Err(fault) => {
            lines.extend(untold(&item, fault));
            return true;
        }
    };
    // Others may use it: that is for whoever reads this to know.
    let anew = setup.replacen("setup.sh", "setup.sh --overwrite", 1);
    let state = match (config.jwks_url.as_str(), config.oidc_discovery_url.as_str()) {
        ("", "") => lack(
            "it has no jwks_url, so it does not know Nomad's keys",
            anew.clone(),
        ),
        ("", url) | (url, _) => Ok(format!("Nomad's keys are at {url}")),
    };
    lines.push(line(&item, state));
    if let Some(Ok(role)) = facts.roles.get(&config.default_role)
        && role.takers().are_any_jobs()
    {
        let wrong = format!(
            "its default_role {} can be taken by {}, and is what a task gets that names no role",
            config.default_role,
            role.takers().phrase()
        );
        lines.push(line(&item, flaw(wrong, anew)));
    }
    true
}

fn secrets(facts: &Facts, plan: &Plan, taker: &Taker) -> Option<Line> {
    let item = format!("secrets {}", taker.secrets);
    let places = &plan.places;
    let put = format!(
        "vault kv put -mount={} {}/{} auth.json=@FILE",
        places.mount, places.prefix, taker.secrets
    );
    let state = match facts.secrets.get(&taker.metadata) {
        Some(Ok(Some(version))) => Ok(format!("there, in version {version}")),
        Some(Ok(None)) => lack(
            "their newest version is deleted: a task that wants some waits",
            put,
        ),
        Some(Err(Fault::Missing)) | None => lack("none: a task that wants some waits", put),
        Some(Err(fault)) => return untold(&item, fault),
    };
    Some(line(&item, state))
}

/// One line a right that is missing, in place of all that this leaves unknown.
fn rights(facts: &Facts, plan: &Plan) -> Vec<Line> {
    let (mount, auth) = (&plan.places.mount, &plan.places.auth);
    let mut rights = vec![
        (
            is_denied(&facts.store),
            format!("read of sys/mounts/{mount}"),
        ),
        (
            is_denied(&facts.method),
            format!("read of sys/mounts/auth/{auth}"),
        ),
        (
            is_denied(&facts.config),
            format!("read of auth/{auth}/config"),
        ),
        (is_denied(&facts.names), format!("list of auth/{auth}/role")),
    ];
    rights.extend([
        (
            facts.roles.values().any(is_denied),
            format!("read of auth/{auth}/role/*"),
        ),
        (
            facts.policies.values().any(is_denied),
            "read of sys/policies/acl/*".into(),
        ),
        (
            facts.secrets.values().any(is_denied),
            format!("read of {mount}/metadata/{}/*", plan.places.prefix),
        ),
    ]);
    let missing = rights.into_iter().filter(|(denied, _)| *denied);
    missing
        .map(|(_, right)| line(&right, lack("the token has not this right", CHECK)))
        .collect()
}

fn is_denied<T>(answer: &Answer<T>) -> bool {
    matches!(answer, Err(Fault::Denied))
}

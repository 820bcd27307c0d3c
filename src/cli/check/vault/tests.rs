//! Each fault of Vault, and the line that names it.

use serde_json::{Value, json};

use super::*;

const JWKS: &str = "http://n:4646/.well-known/jwks.json";
const SETUP: &str = "nomad/vault/setup.sh --jwks http://n:4646/.well-known/jwks.json default";

fn plan() -> Plan {
    let places = Places {
        mount: "secret".into(),
        prefix: "nomad-build".into(),
        auth: "jwt-nomad".into(),
        audience: "vault.io".into(),
        server_namespace: "default".into(),
    };
    Plan::new(&Config::default(), places, Some("builds".into()))
}

fn told<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn policy_of(path: &str) -> String {
    let text = include_str!("../../../../nomad/vault/task.policy.hcl");
    text.replace("${mount}/data/${prefix}/${secrets}", path)
}

/// As setup.sh leaves it.
fn well() -> Facts {
    let mut facts = Facts {
        address: "http://v:8200".into(),
        status: Ok(told(
            json!({"initialized": true, "sealed": false, "version": "2.7.2", "t": 1}),
        )),
        token: Ok(()),
        store: Ok(told(json!({"type": "kv", "options": {"version": "2"}}))),
        method: Ok(told(json!({"type": "jwt", "options": null}))),
        config: Ok(told(json!({"jwks_url": JWKS, "default_role": ""}))),
        names: Ok(Vec::new()),
        roles: BTreeMap::new(),
        policies: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    let template = include_str!("../../../../nomad/vault/role.json");
    for taker in plan().takers() {
        let text = [
            ("audience", "vault.io"),
            ("namespace", &taker.task.namespace),
            ("job", &taker.task.job),
            ("task", &taker.task.name),
            ("policy", &taker.role),
        ]
        .into_iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value)
        });
        facts
            .roles
            .insert(taker.role.clone(), Ok(serde_json::from_str(&text).unwrap()));
        facts
            .policies
            .insert(taker.role, Ok(policy_of(&taker.path)));
        facts.secrets.insert(taker.metadata, Ok(Some(1)));
    }
    facts
}

fn shown(facts: &Facts) -> Vec<String> {
    lines(facts, &plan())
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The lines about what is missing or wrong.
fn faults(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = well();
    change(&mut facts);
    let faults = shown(&facts).into_iter();
    faults.filter(|line| !line.starts_with("ok ")).collect()
}

/// The faults of a role with these fields changed.
fn of_role(name: &str, changes: Value) -> Vec<String> {
    faults(|facts| facts.change(name, changes))
}

impl Facts {
    fn change(&mut self, role: &str, changes: Value) {
        let role = self.roles.get_mut(role).unwrap().as_mut().unwrap();
        for (field, value) in changes.as_object().unwrap() {
            let fields = json!({(field): value});
            let new: Role = told(fields);
            match field.as_str() {
                "role_type" => role.role_type = new.role_type,
                "bound_audiences" => role.bound_audiences = new.bound_audiences,
                "bound_claims" => role.bound_claims.extend(new.bound_claims),
                "bound_claims_type" => role.bound_claims_type = new.bound_claims_type,
                "token_policies" => role.token_policies = new.token_policies,
                "token_no_default_policy" => {
                    role.token_no_default_policy = new.token_no_default_policy
                }
                "without" => drop(role.bound_claims.remove(value.as_str().unwrap())),
                _ => unreachable!("{field}"),
            }
        }
    }

    fn policy(&mut self, name: &str, text: &str) {
        self.policies.insert(name.into(), Ok(text.into()));
    }

    fn other_role(&mut self, role: Value, policy: &str) {
        self.roles.insert("other".into(), Ok(told(role)));
        self.policy("other", policy);
    }
}

const PUBLISH: &str = "nomad-build-default-publish";
const BUILD: &str = "nomad-build-default-build";

#[test]
fn profiles_that_vault_takes_for_one_are_named() {
    let mut plan = plan();
    plan.profiles = ["default", "Large", "large", "x"]
        .map(String::from)
        .to_vec();
    let lines = lines(&well(), &plan);
    let told: Vec<String> = lines.iter().map(ToString::to_string).collect();
    assert!(
        told.contains(
            &"wrong    profiles Large, large: Vault takes Large, large for one name, so they have the roles and \
              policies of one of them; mend it: give them names that differ in more than capitals"
                .to_owned()
        ),
        "{told:#?}"
    );
}

#[test]
fn what_setup_makes_has_no_fault() {
    let shown = shown(&well());
    assert!(
        shown.iter().all(|line| line.starts_with("ok ")),
        "{shown:#?}"
    );
    // vault, token, store, auth method; role, policy and secrets of four tasks.
    assert_eq!(shown.len(), 4 + 4 * 3);
    for line in [
        "ok       role nomad-build-default-publish: task publish of job nomad-build-default of the namespace builds can take it, and nobody else",
        "ok       policy nomad-build-default-publish: reads secret/data/nomad-build/default/publish and nothing else",
        "ok       secrets server: there, in version 1",
    ] {
        assert!(shown.iter().any(|one| one == line), "{shown:#?}");
    }
}

#[test]
fn where_vault_does_not_work_nothing_else_is_said() {
    let status = |changes: Value| faults(|facts| facts.status = Ok(told(changes)));
    assert_eq!(
        status(json!({"initialized": false})),
        ["missing  vault: http://v:8200 is not initialized; mend it: vault operator init"]
    );
    assert_eq!(
        status(json!({"initialized": true, "sealed": true})),
        ["wrong    vault: http://v:8200 is sealed; mend it: vault operator unseal"]
    );
    assert_eq!(
        faults(|facts| facts.status = Err("Connection refused".into())),
        [
            "missing  vault: http://v:8200 does not answer: Connection refused; mend it: set VAULT_ADDR and VAULT_CACERT as for `vault status`"
        ]
    );
    for (fault, wrong) in [
        (Fault::Missing, "missing  token: none in VAULT_TOKEN"),
        (Fault::Denied, "wrong    token: it is refused"),
        (
            Fault::Other("x".into()),
            "wrong    token: Vault does not tell whether it is one: x",
        ),
    ] {
        let lines = faults(|facts| facts.token = Err(fault));
        assert!(
            lines.len() == 1 && lines[0].starts_with(wrong),
            "{lines:#?}"
        );
    }
}

#[test]
fn the_store_is_of_version_2() {
    let store = |value: Value| faults(|facts| facts.store = Ok(told(value)));
    assert_eq!(
        store(json!({"type": "kv", "options": null})),
        [
            "wrong    store secret: it is a key-value store of version 1, and the jobs read version 2; mend it: vault kv enable-versioning secret"
        ]
    );
    assert!(
        store(json!({"type": "pki"}))[0]
            .starts_with("wrong    store secret: it is of the type pki")
    );
    assert_eq!(
        faults(|facts| facts.store = Err(Fault::Missing)),
        [
            "missing  store secret: no store has this path; mend it: vault secrets enable -path=secret -version=2 kv"
        ]
    );
}

#[test]
fn the_auth_method_knows_nomads_keys() {
    assert_eq!(
        faults(|facts| facts.method = Err(Fault::Missing)),
        [format!(
            "missing  auth method jwt-nomad: no auth method has this path; mend it: {SETUP}"
        )]
    );
    assert_eq!(
        faults(|facts| facts.method = Ok(told(json!({"type": "approle"})))),
        [format!(
            "wrong    auth method jwt-nomad: it is of the type approle instead of jwt; mend it: vault auth disable jwt-nomad, then {SETUP}"
        )]
    );
    let lines = faults(|facts| facts.config = Ok(told(json!({"jwks_url": ""}))));
    assert_eq!(
        lines,
        [
            "missing  auth method jwt-nomad: it has no jwks_url, so it does not know Nomad's keys; mend it: \
          nomad/vault/setup.sh --overwrite --jwks ADDRESS_OF_NOMAD/.well-known/jwks.json default"
        ]
    );
    assert_eq!(faults(|facts| facts.config = Err(Fault::Missing)), lines);
    assert_eq!(
        faults(|facts| facts.config = Ok(told(json!({"oidc_discovery_url": "x"})))),
        [""; 0]
    );
}

#[test]
fn a_default_role_that_any_job_can_take_is_wrong() {
    let with_default = |claims: Value| {
        faults(|facts| {
            facts.config = Ok(told(json!({"jwks_url": JWKS, "default_role": "other"})));
            facts.other_role(json!({"role_type": "jwt", "bound_claims": claims}), "");
        })
    };
    assert_eq!(
        with_default(json!({"nomad_namespace": "builds"})),
        [format!(
            "wrong    auth method jwt-nomad: its default_role other can be taken by any job of the namespace builds, and is what a task gets that names no role; mend it: {}",
            SETUP.replace("setup.sh", "setup.sh --overwrite")
        )]
    );
    assert_eq!(with_default(json!({"nomad_job_id": "x"})), [""; 0]);
}

#[test]
fn a_role_that_others_can_take_says_who() {
    for (changes, wrong) in [
        (
            json!({"without": "nomad_job_id"}),
            "it can be taken by task publish of any job of the namespace builds: nomad_job_id is not bound",
        ),
        (
            json!({"without": "nomad_task"}),
            "it can be taken by any task of job nomad-build-default of the namespace builds: nomad_task is not bound",
        ),
        (
            json!({"without": "nomad_namespace"}),
            "it can be taken by task publish of job nomad-build-default of any namespace: nomad_namespace is not bound",
        ),
        (
            json!({"bound_claims_type": "glob", "bound_claims": {"nomad_job_id": "nomad-build-*"}}),
            "it can be taken by task publish of any job like nomad-build-* of the namespace builds: nomad_job_id is bound by the pattern `nomad-build-*`",
        ),
        (
            json!({"bound_claims": {"nomad_task": ["publish", "build"]}}),
            "it can be taken by task publish or build of job nomad-build-default of the namespace builds: nomad_task is bound to build",
        ),
        (
            json!({"bound_claims": {"nomad_namespace": "other"}}),
            "task publish of job nomad-build-default of the namespace builds cannot take it: it is for task publish of job nomad-build-default of the namespace other",
        ),
        (
            json!({"bound_claims": {"nomad_job_id": "nomad-build-*"}}),
            "task publish of job nomad-build-default of the namespace builds cannot take it: it is for task publish of job nomad-build-* of the namespace builds",
        ),
        (
            json!({"bound_audiences": []}),
            "no audience is bound: identities that were made for others than Vault are as good",
        ),
        (
            json!({"bound_audiences": ["x"]}),
            "it is for the audience x, and Nomad's identities are for vault.io",
        ),
        (
            json!({"bound_audiences": ["vault.io", "x"]}),
            "identities that were made for x are as good as those for vault.io",
        ),
        (
            json!({"role_type": "oidc"}),
            "it is of the type oidc instead of jwt, so no job can take it",
        ),
    ] {
        assert_eq!(
            of_role(PUBLISH, changes),
            [format!(
                "wrong    role {PUBLISH}: {wrong}; mend it: {SETUP}"
            )]
        );
    }
    let all = faults(|facts| {
        for claim in ["nomad_job_id", "nomad_task"] {
            facts.change(PUBLISH, json!({"without": claim}));
        }
    });
    assert!(
        all[0].contains("it can be taken by any job of the namespace builds: "),
        "{all:#?}"
    );
}

#[test]
fn a_role_that_is_not_there_is_missing() {
    assert_eq!(
        faults(|facts| facts
            .roles
            .insert(BUILD.into(), Err(Fault::Missing))
            .map_or((), drop)),
        [format!(
            "missing  role {BUILD}: not there, so task build of job nomad-build-default of the namespace builds gets no secrets; mend it: {SETUP}"
        )]
    );
}

#[test]
fn a_role_has_one_policy_that_is_there() {
    assert_eq!(
        of_role(BUILD, json!({"token_policies": []})),
        [format!(
            "missing  role {BUILD}: it has no policy, so its task reads no secrets; mend it: {SETUP}"
        )]
    );
    assert_eq!(
        of_role(BUILD, json!({"token_policies": [BUILD, "root"]})),
        [format!(
            "wrong    role {BUILD}: whoever takes it may do anything: it has the policy root; mend it: {SETUP}"
        )]
    );
    assert_eq!(
        faults(|facts| drop(facts.policies.insert(BUILD.into(), Err(Fault::Missing)))),
        [
            format!(
                "missing  role {BUILD}: no policy of it reads secret/data/nomad-build/default/build; mend it: {SETUP}"
            ),
            format!(
                "missing  policy {BUILD}: not there, and the role {BUILD} has it; mend it: {SETUP}"
            ),
        ]
    );
    let two = faults(|facts| {
        facts.policy(
            "team",
            "path \"secret/data/team\" { capabilities = [\"read\"] }",
        );
        facts.change(BUILD, json!({"token_policies": [BUILD, "team"]}));
    });
    assert_eq!(
        two,
        [
            format!(
                "wrong    role {BUILD}: it has 2 policies where one is enough: {BUILD}, team; mend it: {SETUP}"
            ),
            format!(
                "wrong    policy team: it reaches more of the store than secret/data/nomad-build/default/build: read of secret/data/team; mend it: {SETUP}"
            ),
        ]
    );
    let default = |text: &str| {
        faults(|facts| {
            facts.policy("default", text);
            facts.change(BUILD, json!({"token_no_default_policy": false}));
        })
    };
    assert_eq!(
        default("path \"sys/tools/hash\" { capabilities = [\"update\"] }"),
        [""; 0]
    );
    assert_eq!(
        default("path \"secret/*\" { capabilities = [\"list\"] }"),
        [format!(
            "wrong    policy default: it reaches more of the store than secret/data/nomad-build/default/build: list of secret/*; mend it: {SETUP}"
        )]
    );
}

#[test]
fn a_policy_reads_one_path() {
    let with = |text: &str| {
        let text = format!(
            "{}\n{text}",
            policy_of("secret/data/nomad-build/default/build")
        );
        faults(|facts| facts.policy(BUILD, &text))
    };
    assert_eq!(
        with("path \"secret/data/nomad-build/default/publish\" { capabilities = [\"read\"] }"),
        [format!(
            "wrong    policy {BUILD}: it reads the secrets of default/publish: read of secret/data/nomad-build/default/publish; mend it: {SETUP}"
        )]
    );
    assert_eq!(
        with("path \"sys/*\" { capabilities = [\"sudo\"] }"),
        [format!(
            "wrong    policy {BUILD}: it allows what the task does not need: sudo of sys/*; mend it: {SETUP}"
        )]
    );
    let broken = faults(|facts| facts.policy(BUILD, "path {"));
    assert!(
        broken.len() == 1
            && broken[0].starts_with(&format!(
                "wrong    policy {BUILD}: it is not understood, so look at it: "
            )),
        "{broken:#?}"
    );
}

#[test]
fn a_policy_lets_nomad_renew_the_token() {
    let text = policy_of("secret/data/nomad-build/default/build");
    let without = text.replace("\"update\"", "\"deny\"");
    assert_eq!(
        faults(|facts| facts.policy(BUILD, &without)),
        [format!(
            "missing  role {BUILD}: no policy of it has update of auth/token/renew-self, and Nomad starts no task whose token it cannot renew; mend it: {SETUP}"
        )]
    );
}

#[test]
fn a_policy_is_one_roles() {
    let lines = of_role(BUILD, json!({"token_policies": [PUBLISH]}));
    for wrong in [
        format!(
            "missing  role {BUILD}: no policy of it reads secret/data/nomad-build/default/build; mend it: {SETUP}"
        ),
        format!(
            "wrong    policy {PUBLISH}: it reads the secrets of default/publish: read of secret/data/nomad-build/default/publish; mend it: {SETUP}"
        ),
        format!(
            "wrong    policy {PUBLISH}: several roles have it, so what one reads all read: {BUILD}, {PUBLISH}; mend it: {SETUP}"
        ),
    ] {
        assert!(lines.contains(&wrong), "{lines:#?}");
    }
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn other_roles_do_not_lead_here() {
    let other = |claims: Value, policy: &str| {
        faults(|facts| {
            let role = json!({"role_type": "jwt", "bound_claims": claims, "token_policies": ["other"], "token_no_default_policy": true});
            facts.other_role(role, policy);
        })
    };
    let all = "path \"secret/data/nomad-build/+/build\" { capabilities = [\"read\"] }";
    let mend = "vault delete auth/jwt-nomad/role/other, or give it policies without these paths";
    assert_eq!(
        other(json!({"nomad_namespace": "builds"}), all),
        [format!(
            "wrong    role other: it can be taken by any job of the namespace builds, and reads the secrets of default/build; mend it: {mend}"
        )]
    );
    let own = json!({"nomad_namespace": "builds", "nomad_job_id": "nomad-build-default", "nomad_task": "build"});
    assert_eq!(other(own, all), [""; 0], "those that the task has anyway");
    let nothing = "path \"secret/data/team\" { capabilities = [\"read\"] }";
    assert_eq!(other(json!({}), nothing), [""; 0]);
    let broken = other(json!({"nomad_namespace": "builds"}), "path {");
    assert!(
        broken.len() == 1 && broken[0].contains("has a policy that is not understood"),
        "{broken:#?}"
    );
    assert_eq!(other(json!({"nomad_job_id": "x"}), "path {"), [""; 0]);
    let root = faults(|facts| {
        facts.other_role(json!({"role_type": "jwt", "token_policies": ["root"]}), "");
    });
    assert!(
        root[0].contains(
            "any job of any namespace, and reads the secrets of default/build, default/publish"
        ),
        "{root:#?}"
    );
}

#[test]
fn secrets_that_nobody_has_put_are_missing() {
    let secrets = |answer: Answer<Option<u64>>| {
        faults(|facts| {
            drop(
                facts
                    .secrets
                    .insert("secret/metadata/nomad-build/default/build".into(), answer),
            )
        })
    };
    let put = "vault kv put -mount=secret nomad-build/default/build auth.json=@FILE";
    assert_eq!(
        secrets(Err(Fault::Missing)),
        [format!(
            "missing  secrets default/build: none: a task that wants some waits; mend it: {put}"
        )]
    );
    assert!(secrets(Ok(None))[0].contains("newest version is deleted"));
}

#[test]
fn each_missing_right_is_named_once() {
    let lines = faults(|facts| {
        facts.store = Err(Fault::Denied);
        facts.method = Err(Fault::Denied);
        facts.config = Err(Fault::Denied);
        facts.names = Err(Fault::Denied);
        facts
            .roles
            .values_mut()
            .for_each(|role| *role = Err(Fault::Denied));
        facts
            .policies
            .values_mut()
            .for_each(|policy| *policy = Err(Fault::Denied));
        facts
            .secrets
            .values_mut()
            .for_each(|secrets| *secrets = Err(Fault::Denied));
    });
    let mend = "vault policy write nomad-build-check nomad/vault/check.policy.hcl, and take a token of that policy";
    let rights = [
        "read of sys/mounts/secret",
        "read of sys/mounts/auth/jwt-nomad",
        "read of auth/jwt-nomad/config",
        "list of auth/jwt-nomad/role",
        "read of auth/jwt-nomad/role/*",
        "read of sys/policies/acl/*",
        "read of secret/metadata/nomad-build/*",
    ];
    let wanted = rights
        .map(|right| format!("missing  {right}: the token has not this right; mend it: {mend}"));
    assert_eq!(lines, wanted);
}

#[test]
fn what_vault_cannot_tell_is_said() {
    let lines = faults(|facts| {
        drop(
            facts
                .roles
                .insert(BUILD.into(), Err(Fault::Other("HTTP 500: x".into()))),
        )
    });
    assert_eq!(
        lines,
        [format!(
            "missing  role {BUILD}: HTTP 500: x; mend it: look at the log of Vault, and try again"
        )]
    );
}

#[test]
fn the_command_that_mends_is_that_of_this_installation() {
    let mut plan = plan();
    assert_eq!(plan.setup(Some(JWKS)), SETUP);
    plan.name = "nb".into();
    plan.namespace = "ci".into();
    plan.places.mount = "kv".into();
    plan.profiles.push("large".into());
    assert_eq!(
        plan.setup(None),
        "nomad/vault/setup.sh --jwks ADDRESS_OF_NOMAD/.well-known/jwks.json --name nb --namespace ci --mount kv default large"
    );
    assert_eq!(plan.takers().len(), 7);
}

//! What policies allow beyond the one path of a task. Does no I/O.

use std::collections::BTreeSet;

use super::Taker;
use super::policy::{Rule, capabilities};

/// By what Nomad keeps a task's token.
pub const RENEWS: (&str, &str) = ("auth/token/renew-self", "update");
/// What a token may do with itself: one, and others that do no harm.
const OF_THE_TOKEN: &[(&str, &str)] = &[
    ("auth/token/lookup-self", "read"),
    RENEWS,
    ("auth/token/revoke-self", "update"),
];

/// The tasks whose secrets these rules together read.
pub fn read_by<'a>(rules: &[Rule], takers: &'a [Taker]) -> Vec<&'a Taker> {
    let reads = |taker: &&Taker| capabilities(rules, &taker.path).contains("read");
    takers.iter().filter(reads).collect()
}

/// What one policy allows beyond the secrets of this task. `default` is the policy that every token
/// has unless it is told not to; of that only what concerns the store counts.
pub fn excess(
    rules: &[Rule],
    taker: &Taker,
    takers: &[Taker],
    mount: &str,
    default: bool,
) -> Vec<String> {
    let store = format!("{mount}/");
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| rule.allows()) {
        if rule.path == taker.path {
            let more: Vec<&str> = words(&rule.capabilities)
                .filter(|word| *word != "read")
                .collect();
            if !more.is_empty() {
                found.push(format!(
                    "it allows more than read of {}: {}",
                    rule.path,
                    more.join(", ")
                ));
            }
            continue;
        }
        let allowed: Vec<&str> = words(&rule.capabilities).collect();
        let what = format!("{} of {}", allowed.join(", "), rule.path);
        let others: Vec<&str> = takers
            .iter()
            .filter(|other| other.path != taker.path && rule.is_for(&other.path))
            .map(|other| other.secrets.as_str())
            .collect();
        if !others.is_empty() && allowed.contains(&"read") {
            found.push(format!(
                "it reads the secrets of {}: {what}",
                others.join(", ")
            ));
        } else if rule.reaches_into(&store) {
            found.push(format!(
                "it reaches more of the store than {}: {what}",
                taker.path
            ));
        } else if !default && !is_of_the_token(rule) {
            found.push(format!("it allows what the task does not need: {what}"));
        }
    }
    found
}

fn words(capabilities: &BTreeSet<String>) -> impl Iterator<Item = &str> {
    capabilities.iter().map(String::as_str)
}

fn is_of_the_token(rule: &Rule) -> bool {
    OF_THE_TOKEN.iter().any(|(path, capability)| {
        rule.path == *path && words(&rule.capabilities).all(|word| word == *capability)
    })
}

#[cfg(test)]
mod tests {
    use super::super::policy::parse;
    use super::super::role::Task;
    use super::*;

    fn taker(secrets: &str) -> Taker {
        Taker {
            role: "r".into(),
            task: Task {
                namespace: "n".into(),
                job: "j".into(),
                name: "t".into(),
            },
            secrets: secrets.into(),
            path: format!("secret/data/nb/{secrets}"),
            metadata: String::new(),
        }
    }

    fn found(text: &str, default: bool) -> Vec<String> {
        let takers = [taker("a/build"), taker("a/publish"), taker("b/build")];
        excess(
            &parse(text).unwrap(),
            &takers[0],
            &takers,
            "secret",
            default,
        )
    }

    #[test]
    fn one_path_is_allowed_and_what_a_token_needs() {
        let text = r#"
            path "secret/data/nb/a/build" { capabilities = ["read"] }
            path "secret/data/nb/b/*" { capabilities = ["deny"] }
            path "auth/token/lookup-self" { capabilities = ["read"] }
            path "auth/token/renew-self" { capabilities = ["update"] }
            path "auth/token/revoke-self" { capabilities = ["update"] }
        "#;
        assert_eq!(found(text, false), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_more_is_named() {
        for (path, capabilities, wanted) in [
            (
                "secret/data/nb/a/build",
                "\"read\", \"create\", \"list\"",
                "it allows more than read of secret/data/nb/a/build: create, list",
            ),
            (
                "secret/data/nb/a/publish",
                "\"read\"",
                "it reads the secrets of a/publish: read of secret/data/nb/a/publish",
            ),
            (
                "secret/data/nb/a/*",
                "\"read\"",
                "it reads the secrets of a/publish: read of secret/data/nb/a/*",
            ),
            (
                "secret/data/nb/+/build",
                "\"read\"",
                "it reads the secrets of b/build: read of secret/data/nb/+/build",
            ),
            (
                "secret/*",
                "\"read\", \"sudo\"",
                "it reads the secrets of a/publish, b/build: read, sudo of secret/*",
            ),
            (
                "secret/data/nb/a/publish",
                "\"update\"",
                "it reaches more of the store than secret/data/nb/a/build: update of secret/data/nb/a/publish",
            ),
            (
                "secret/metadata/nb/*",
                "\"list\"",
                "it reaches more of the store than secret/data/nb/a/build: list of secret/metadata/nb/*",
            ),
            (
                "secret/data/other",
                "\"read\"",
                "it reaches more of the store than secret/data/nb/a/build: read of secret/data/other",
            ),
            (
                "sys/policies/*",
                "\"read\"",
                "it allows what the task does not need: read of sys/policies/*",
            ),
            (
                "auth/token/lookup-self",
                "\"read\", \"sudo\"",
                "it allows what the task does not need: read, sudo of auth/token/lookup-self",
            ),
        ] {
            let text = format!("path \"{path}\" {{ capabilities = [{capabilities}] }}");
            assert_eq!(found(&text, false), [wanted]);
            let of_the_store = !path.starts_with("sys/") && !path.starts_with("auth/");
            assert_eq!(
                found(&text, true).len(),
                usize::from(of_the_store),
                "{path}"
            );
        }
    }
}

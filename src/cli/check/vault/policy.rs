//! Policies of Vault: their text, and what they allow. Does no I/O.
//!
//! <https://developer.hashicorp.com/vault/docs/concepts/policies>

use std::collections::BTreeSet;

use hcl::{Body, Expression, Structure};
use serde_json::Value;

/// What a policy says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Path, or pattern: `+` is any one segment, `*` at the end anything that follows.
    pub path: String,
    /// Such as `read`.
    pub capabilities: BTreeSet<String>,
}

/// Reads a policy, which is HCL or JSON.
///
/// # Errors
/// When it is neither, or is written in a way that is not known. It is then not to be trusted.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    if text.trim_start().starts_with('{') {
        let value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        return from_json(&value);
    }
    let body: Body = hcl::parse(text).map_err(|error| {
        // The lines after it show the text once more.
        let error = error.to_string();
        let first = error.lines().next().unwrap_or_default();
        first.trim_start_matches([' ', '-', '>']).to_owned()
    })?;
    let mut rules = Vec::new();
    for structure in body {
        match structure {
            Structure::Block(block) if block.identifier() == "path" => {
                let [label] = block.labels() else {
                    return Err("a block `path` that does not have one path".into());
                };
                rules.push(rule(label.as_str(), block.body())?);
            }
            Structure::Attribute(attribute) if attribute.key() == "name" => {}
            Structure::Block(block) => return Err(format!("a block `{}`", block.identifier())),
            Structure::Attribute(attribute) => {
                return Err(format!("an attribute `{}`", attribute.key()));
            }
        }
    }
    Ok(rules)
}

fn rule(path: &str, body: &Body) -> Result<Rule, String> {
    let mut fields = Vec::new();
    for attribute in body.attributes() {
        let words = match attribute.expr() {
            Expression::String(word) => Some(vec![word.clone()]),
            Expression::Array(words) => words
                .iter()
                .map(|word| match word {
                    Expression::String(word) => Some(word.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        fields.push((attribute.key().to_owned(), words));
    }
    of_fields(path, fields)
}

fn from_json(value: &Value) -> Result<Vec<Rule>, String> {
    // An object by its paths, or a list of such.
    let objects: Vec<&Value> = match value.get("path") {
        None => Vec::new(),
        Some(Value::Array(objects)) => objects.iter().collect(),
        Some(object) => vec![object],
    };
    let mut rules = Vec::new();
    for object in objects {
        let paths = object.as_object().ok_or("`path` is no object")?;
        for (path, body) in paths {
            let bodies = match body {
                Value::Array(bodies) => bodies.iter().collect(),
                body => vec![body],
            };
            for body in bodies {
                let body = body
                    .as_object()
                    .ok_or("the rules of a path are no object")?;
                let words = |value: &Value| match value {
                    Value::String(word) => Some(vec![word.clone()]),
                    Value::Array(words) => words
                        .iter()
                        .map(|word| Some(word.as_str()?.to_owned()))
                        .collect(),
                    _ => None,
                };
                let fields = body.iter().map(|(key, value)| (key.clone(), words(value)));
                rules.push(of_fields(path, fields.collect())?);
            }
        }
    }
    Ok(rules)
}

fn of_fields(path: &str, fields: Vec<(String, Option<Vec<String>>)>) -> Result<Rule, String> {
    let mut capabilities = BTreeSet::new();
    for (key, words) in fields {
        // Whatever else there is narrows what the capabilities allow.
        if key != "capabilities" && key != "policy" {
            continue;
        }
        let words = words.ok_or_else(|| format!("`{key}` of {path} is no list of words"))?;
        for word in words {
            match (key.as_str(), word.as_str()) {
                ("policy", "read") => capabilities.extend(["read", "list"].map(str::to_owned)),
                ("policy", "write" | "sudo") => capabilities
                    .extend(["create", "read", "update", "delete", "list"].map(str::to_owned)),
                _ => drop(capabilities.insert(word.clone())),
            }
            if (key.as_str(), word.as_str()) == ("policy", "sudo") {
                capabilities.insert("sudo".into());
            }
        }
    }
    // Vault takes leading slashes away, too.
    let path = path.trim_start_matches('/').to_owned();
    Ok(Rule { path, capabilities })
}

impl Rule {
    /// Whether it allows anything.
    pub fn allows(&self) -> bool {
        !self.capabilities.is_empty() && !self.capabilities.contains("deny")
    }

    /// Whether its pattern is for this path.
    pub fn is_for(&self, path: &str) -> bool {
        let (begin, any_end) = self.parts();
        let (mut wanted, mut given) = (begin.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                // The last segment of a pattern with `*` is the beginning of one.
                (Some(want), Some(has)) if any_end && wanted.clone().next().is_none() => {
                    return is_any(want) || has.starts_with(want);
                }
                (Some(want), Some(has)) if is_any(want) || want == has => {}
                _ => return false,
            }
        }
    }

    /// Whether its pattern is for any path below this directory, which ends with a slash.
    pub fn reaches_into(&self, directory: &str) -> bool {
        let (begin, any_end) = self.parts();
        let mut wanted = begin.split('/');
        for has in directory.trim_end_matches('/').split('/') {
            match wanted.next() {
                Some(want) if any_end && wanted.clone().next().is_none() => {
                    return is_any(want) || has.starts_with(want);
                }
                Some(want) if is_any(want) || want == has => {}
                _ => return false,
            }
        }
        wanted.next().is_some()
    }

    /// The pattern without its `*`, and whether it had one.
    fn parts(&self) -> (&str, bool) {
        match self.path.strip_suffix('*') {
            Some(begin) => (begin, true),
            None => (&self.path, false),
        }
    }

    fn is_exact(&self) -> bool {
        !self.path.ends_with('*') && !self.path.split('/').any(is_any)
    }

    /// Of several patterns for a path Vault takes the one that is greatest by this.
    fn rank(&self) -> impl Ord + '_ {
        let segments = || self.path.split('/');
        let fixed: usize = segments()
            .take_while(|segment| !is_any(segment))
            .map(|segment| segment.len() + 1)
            .sum();
        let any = segments().filter(|segment| is_any(segment)).count();
        let ends = !self.path.ends_with('*');
        (
            fixed,
            ends,
            std::cmp::Reverse(any),
            self.path.len(),
            &self.path,
        )
    }
}

/// A segment that can be anything. What a template will hold nobody knows before the login.
fn is_any(segment: &str) -> bool {
    segment == "+" || segment.contains("{{")
}

/// What all of these rules together allow at one path.
pub fn capabilities<'a>(rules: &'a [Rule], path: &str) -> BTreeSet<&'a str> {
    let is_for = || rules.iter().filter(|rule| rule.is_for(path));
    let best = is_for()
        .filter(|rule| rule.is_exact())
        .chain(is_for().filter(|rule| !rule.is_exact()));
    let Some(best) = best.max_by_key(|rule| (rule.is_exact(), rule.rank())) else {
        return BTreeSet::new();
    };
    let same = rules.iter().filter(|rule| rule.path == best.path);
    let all: BTreeSet<&str> = same
        .flat_map(|rule| &rule.capabilities)
        .map(String::as_str)
        .collect();
    if all.contains("deny") {
        return BTreeSet::new();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str) -> Rule {
        rule_with(path, "read")
    }

    fn rule_with(path: &str, capabilities: &str) -> Rule {
        let capabilities = capabilities.split(' ').map(str::to_owned).collect();
        Rule {
            path: path.into(),
            capabilities,
        }
    }

    #[test]
    fn the_policies_of_this_repository_are_read() {
        let task = include_str!("../../../../nomad/vault/task.policy.hcl");
        let rules =
            parse(&task.replace("${mount}/data/${prefix}/${secrets}", "secret/data/a")).unwrap();
        assert!(rules.contains(&rule("secret/data/a")), "{rules:#?}");
        assert_eq!(rules.len(), 2);
        let rules = parse(include_str!("../../../../nomad/vault/check.policy.hcl")).unwrap();
        assert!(rules.contains(&rule("sys/policies/acl/*")), "{rules:#?}");
        assert!(rules.iter().all(|rule| !rule.reaches_into("secret/data/")));
    }

    #[test]
    fn hcl_and_json_say_the_same() {
        let hcl = r#"
            # a comment
            name = "x"
            path "a/*" {
              capabilities = ["read", "list",] // another
              allowed_parameters = { "*" = [] }
            }
            path "/b" { policy = "sudo" }
            path "c" { capabilities = [] }
        "#;
        let json = r#"{"path": {"a/*": {"capabilities": ["read", "list"]}, "b": {"policy": "sudo"}, "c": {}}}"#;
        let lists = r#"{"path": [{"a/*": [{"capabilities": ["read", "list"]}]}, {"b": {"policy": "sudo"}}, {"c": {}}]}"#;
        let wanted = [
            rule_with("a/*", "read list"),
            rule_with("b", "create read update delete list sudo"),
            Rule {
                path: "c".into(),
                capabilities: BTreeSet::new(),
            },
        ];
        for text in [hcl, json, lists] {
            assert_eq!(parse(text).unwrap(), wanted);
        }
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(
            parse(r#"path "a" { policy = "read" }"#).unwrap(),
            [rule_with("a", "read list")]
        );
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for text in [
            "path",
            "path \"a\" {",
            "path { capabilities = [\"read\"] }",
            "path \"a\" { capabilities = all }",
            "path \"a\" { capabilities = [1] }",
            "paths \"a\" { capabilities = [\"read\"] }",
            "more = 1",
            "{\"path\": 1}",
            "{\"path\": {\"a\": 1}}",
            "{\"path\": {\"a\": {\"capabilities\": [1]}}}",
            "{",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(char::is_alphanumeric) || error.starts_with('`'),
                "{error}"
            );
        }
    }

    #[test]
    fn patterns_are_vaults() {
        for (pattern, path, is_for) in [
            ("s/data/a", "s/data/a", true),
            ("s/data/a", "s/data/a/b", false),
            ("s/data/a", "s/data", false),
            ("s/data/*", "s/data/a/b", true),
            ("s/data/a*", "s/data/ab/c", true),
            ("s/data/a*", "s/data/b", false),
            ("*", "s/data/a", true),
            ("s/+/a", "s/data/a", true),
            ("s/+/a", "s/data/b/a", false),
            ("+/data/*", "s/data/b/a", true),
            ("s/data/+", "s/data/a", true),
            ("s/data/{{identity.entity.name}}/*", "s/data/a/b", true),
            ("s/data/{{identity.entity.name}}", "s/data/a/b", false),
        ] {
            assert_eq!(rule(pattern).is_for(path), is_for, "{pattern} {path}");
        }
        for (pattern, reaches) in [
            ("team/kv/data/a", true),
            ("team/kv/*", true),
            ("team/*", true),
            ("te*", true),
            ("*", true),
            ("+/kv/data/x", true),
            ("team/+/*", true),
            ("{{x}}/kv/data/x", true),
            ("team/kv", false),
            ("team/other/*", false),
            ("team", false),
            ("sys/*", false),
        ] {
            assert_eq!(rule(pattern).reaches_into("team/kv/"), reaches, "{pattern}");
        }
    }

    #[test]
    fn the_nearest_rule_holds() {
        let rules = [
            rule_with("s/*", "read list"),
            rule_with("s/data/+/build", "update"),
            rule_with("s/data/a/*", "delete"),
            rule_with("s/data/a/build", "read"),
            rule_with("s/data/a/secret", "deny"),
            rule_with("s/data/a/secret", "read"),
        ];
        let at = |path: &str| capabilities(&rules, path).into_iter().collect::<Vec<_>>();
        assert_eq!(at("s/data/a/build"), ["read"]);
        assert_eq!(at("s/data/b/build"), ["update"]);
        assert_eq!(at("s/data/a/other"), ["delete"]);
        assert_eq!(at("s/data/b"), ["list", "read"]);
        assert_eq!(at("s/data/a/secret"), Vec::<&str>::new());
        assert_eq!(at("t"), Vec::<&str>::new());
    }
}

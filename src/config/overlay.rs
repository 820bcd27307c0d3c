//! Keys and values from elsewhere that lie over the configuration: all of them, or none.
//!
//! ```text
//! limits/memory_mb = 2048        profiles/small = {memory_mb = 512}        principals/token:ann/builds = 3
//!        └──────── leaves: a path of names and a value each ────────┘ ─▶ over the base ─▶ a whole Config, or faults
//! ```
//! A key is the path of a TOML key with `/` between its names; a value is one of TOML or JSON, or the text itself
//! where it is neither. What may stand there is a closed list: never a file, a token, or what a sandbox is made of.
//! Values are never repeated in a fault. No I/O.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::build::clean::short;

use super::Config;

/// Most bytes of one value: a list of thousands of beginnings fits in.
const MAX_VALUE: usize = 64 << 10;
/// Most keys.
const MAX_KEYS: usize = 10_000;
/// Most faults that are told at once.
const MAX_FAULTS: usize = 20;
/// Longest key and longest reason in a fault, in characters.
const MAX_TEXT: usize = 160;
/// What may stand there, in words.
const ALLOWED: &str = "limits, profiles (without network), principals, registry.allow, git.allow, keep_builds and \
    keep_days of local and nomad, and local.keep_outputs_mb";

/// A key below the prefix, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value as it was written.
    pub value: Vec<u8>,
}

/// A value of the configuration, and the key it came with.
#[derive(Debug, Clone, PartialEq)]
struct Leaf {
    key: String,
    value: Value,
}

/// What lies over a configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlay(BTreeMap<Vec<String>, Leaf>);

impl Overlay {
    /// Reads keys and their values.
    ///
    /// # Errors
    /// Every fault with its key, and no value.
    pub fn read(pairs: &[Pair]) -> Result<Self, Vec<String>> {
        if pairs.len() > MAX_KEYS {
            let fault = format!(
                "there are {} keys, at most {MAX_KEYS} are taken",
                pairs.len()
            );
            return Err(vec![fault]);
        }
        let mut overlay = Self::default();
        let mut faults = Vec::new();
        for pair in pairs {
            // Folders that somebody has made in Consul's page.
            if pair.value.is_empty() && (pair.key.is_empty() || pair.key.ends_with('/')) {
                continue;
            }
            if let Err(fault) = overlay.add(pair) {
                faults.push(format!("{}: {fault}", short(&pair.key, MAX_TEXT)));
            }
        }
        bounded(faults).map_or(Ok(overlay), Err)
    }

    fn add(&mut self, pair: &Pair) -> Result<(), String> {
        if pair.value.len() > MAX_VALUE {
            let size = pair.value.len();
            return Err(format!("{size} bytes; a value has at most {MAX_VALUE}"));
        }
        let text = std::str::from_utf8(&pair.value).map_err(|_| "the value is not UTF-8")?;
        let value = value_of(text)?;
        let path = path_of(&pair.key, value.is_table());
        for (path, value) in leaves(path, value) {
            if !is_allowed(&path, &value) {
                return Err(format!("may not be set from Consul: only {ALLOWED}"));
            }
            let leaf = Leaf {
                key: pair.key.clone(),
                value,
            };
            if let Some(other) = self.0.insert(path, leaf) {
                let other = short(&other.key, MAX_TEXT);
                return Err(format!("the same is set by {other}"));
            }
        }
        Ok(())
    }

    /// The key that sets a value of the configuration, if one does.
    pub fn key_of(&self, path: &[String]) -> Option<&str> {
        self.0.get(path).map(|leaf| leaf.key.as_str())
    }

    /// The base with these values over it.
    ///
    /// # Errors
    /// Every fault with its key, and no value; then nothing of it holds.
    pub fn over(&self, base: &Config) -> Result<Config, Vec<String>> {
        let mut table = Table::try_from(base).map_err(|error| vec![error.to_string()])?;
        for (path, leaf) in &self.0 {
            if !put(&mut table, path, leaf.value.clone()) {
                return Err(vec![format!(
                    "{}: cannot stand there",
                    short(&leaf.key, MAX_TEXT)
                )]);
            }
        }
        let config: Config = match table.try_into() {
            Ok(config) => config,
            Err(error) => return Err(self.misfits().unwrap_or_else(|| vec![expected(&error)])),
        };
        bounded(config.value_faults()).map_or(Ok(config), Err)
    }

    /// Which of the values are not of the kind that stands there.
    fn misfits(&self) -> Option<Vec<String>> {
        let misfit = |(path, leaf): (&Vec<String>, &Leaf)| {
            let mut table = Table::new();
            put(&mut table, path, leaf.value.clone());
            let error = table.try_into::<Config>().err()?;
            let (key, kind) = (short(&leaf.key, MAX_TEXT), leaf.value.type_str());
            Some(format!(
                "{key}: {}; it is of the kind {kind}",
                expected(&error)
            ))
        };
        bounded(
            self.0
                .iter()
                .filter_map(misfit)
                .take(MAX_FAULTS + 1)
                .collect(),
        )
    }
}

/// Faults, if there are any, and not too many of them.
fn bounded(mut faults: Vec<String>) -> Option<Vec<String>> {
    let more = faults.len().saturating_sub(MAX_FAULTS);
    faults.truncate(MAX_FAULTS);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    (!faults.is_empty()).then_some(faults)
}

/// What a deserializer expected: the part of its words that does not repeat the value.
fn expected(error: &toml::de::Error) -> String {
    let said = error.message();
    let wanted = match said.rsplit_once("expected ") {
        Some((_, wanted)) if said.starts_with("unknown field") => {
            format!("there is no such key; expected {wanted}")
        }
        Some((_, wanted)) => format!("expected {wanted}"),
        None => "it does not fit there".to_owned(),
    };
    short(&wanted, MAX_TEXT * 2)
}

/// One value of TOML or JSON, or else the text itself.
fn value_of(text: &str) -> Result<Value, String> {
    let text = text.trim();
    if let Ok(value) = text.parse::<Value>() {
        return Ok(value);
    }
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        return Value::try_from(value).map_err(|_| "JSON's null is no value".to_owned());
    }
    match text.contains(char::is_control) {
        true => Err("it is neither a value of TOML nor of JSON, nor one line of text".into()),
        false => Ok(Value::String(text.to_owned())),
    }
}

/// The names of a key. In sections of named things a name may hold slashes: all between the section and the last.
fn path_of(key: &str, is_table: bool) -> Vec<String> {
    let own = |name: &str| name.to_owned();
    let Some((section @ ("profiles" | "principals"), rest)) = key.split_once('/') else {
        return key.split('/').map(own).collect();
    };
    match rest.rsplit_once('/') {
        Some((name, field)) if !is_table => vec![own(section), own(name), own(field)],
        _ => vec![own(section), own(rest)],
    }
}

/// The values of a table, each with its path; what is no table is one itself.
fn leaves(path: Vec<String>, value: Value) -> Vec<(Vec<String>, Value)> {
    match value {
        Value::Table(table) if !table.is_empty() => table
            .into_iter()
            .flat_map(|(name, value)| leaves([path.as_slice(), &[name]].concat(), value))
            .collect(),
        value => vec![(path, value)],
    }
}

/// The closed list.
fn is_allowed(path: &[String], value: &Value) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    match names.as_slice() {
        // Whoever writes into Consul must not open the sandbox.
        ["profiles", _, "network"] => false,
        ["limits", _] | ["profiles" | "principals", _, _] => !value.is_table(),
        // One that differs in nothing from the others.
        ["profiles" | "principals", _] => value.is_table(),
        ["registry" | "git", "allow"] => true,
        ["local" | "nomad", "keep_builds" | "keep_days"] | ["local", "keep_outputs_mb"] => true,
        _ => false,
    }
}

/// Puts a value at its place, among what is there already. `false`: something else is in the way.
fn put(table: &mut Table, path: &[String], value: Value) -> bool {
    match path {
        [] => false,
        [name] => {
            // An empty table changes nothing of one that is there.
            let is_there = value.is_table() && table.contains_key(name);
            if !is_there {
                table.insert(name.clone(), value);
            }
            true
        }
        [name, rest @ ..] => match table
            .entry(name.clone())
            .or_insert_with(|| Value::Table(Table::new()))
        {
            Value::Table(inner) => put(inner, rest, value),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<Pair> {
        let pair = |(key, value): &(&str, &str)| Pair {
            key: (*key).into(),
            value: (*value).into(),
        };
        pairs.iter().map(pair).collect()
    }

    fn over(base: &str, given: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let base: Config = toml::from_str(base).unwrap();
        Overlay::read(&pairs(given))?.over(&base)
    }

    #[test]
    fn nothing_over_a_configuration_is_that_configuration() {
        let text = "state_dir = \"/s\"\n[limits]\ncpus = 2\nmemory_mb = 512\n[profiles.a]\nnetwork = \"none\"\n\
            [principals.\"token:*\"]\ntags = []\n[secrets]\nx = \"/x\"\n[http.tls]\ncertificate = \"/c\"\nkey = \"/k\"\n\
            [http.issuers.n]\njwks = \"/j\"\naudiences = [\"a\"]\n[[git.credentials]]\nurl = \"https://g/\"\nssh_key = \"/k\"\nknown_hosts = \"/h\"\n";
        let base: Config = toml::from_str(text).unwrap();
        assert_eq!(Overlay::default().over(&base).unwrap(), base);
    }

    #[test]
    fn values_of_toml_of_json_and_bare_ones_lie_over_the_file() {
        let file = "[limits]\nmemory_mb = 256\ndisk_mb = 100\n[profiles.small]\nnetwork = \"none\"\ndisk_mb = 99\n\
            [principals.\"token:ann\"]\nbuilds = 1\nqueued = 1\n[registry]\nallow = [\"a\", \"b\"]\n";
        let config = over(
            file,
            &[
                ("", ""),
                ("profiles/", ""),
                ("limits/memory_mb", " 2048\n"),
                ("limits/cpus", "2"),
                ("registry/allow", "[\n  \"registry.example.com/\"\n]"),
                ("git/allow", "['https:\\x']"),
                ("profiles/small", "{\"memory_mb\": 512}"),
                ("profiles/small/description", "for small things"),
                (
                    "profiles/large",
                    "{memory_mb = 9000, description = \"large\"}",
                ),
                ("profiles/empty", "{}"),
                ("principals/token:ann/builds", "7"),
                ("principals/nomad:a/b/c/operator", "true"),
                ("principals/nomad:d/e", "{profiles = [\"large\"]}"),
                ("local/keep_days", "3"),
                ("nomad", "{keep_builds = 5}"),
            ],
        )
        .unwrap();
        let limits = &config.limits;
        assert_eq!(
            (limits.memory_mb, limits.cpus, limits.disk_mb),
            (Some(2048), Some(2.0), 100)
        );
        assert_eq!(config.registry.allow, ["registry.example.com/"]);
        assert_eq!(config.git.allow, ["https:\\x"]);
        let small = config.profile("small").unwrap();
        assert_eq!(small.description.as_deref(), Some("for small things"));
        assert_eq!(small.network, crate::config::Network::None);
        assert_eq!(
            (small.limits.memory_mb, small.limits.disk_mb),
            (Some(512), 99)
        );
        assert_eq!(
            config.profile("large").unwrap().limits.memory_mb,
            Some(9000)
        );
        assert!(config.profile("empty").is_some());
        let ann = &config.principals["token:ann"];
        assert_eq!((ann.builds, ann.queued), (7, 1));
        assert!(config.principals["nomad:a/b/c"].operator);
        assert_eq!(
            config.principals["nomad:d/e"].profiles,
            Some(vec!["large".to_owned()])
        );
        assert_eq!((config.local.keep_days, config.nomad.keep_builds), (3, 5));
        assert_eq!(
            config.local.keep_builds,
            Config::default().local.keep_builds
        );
    }

    #[test]
    fn what_is_not_on_the_list_is_refused_by_its_name() {
        for (key, value) in [
            ("state_dir", "/x"),
            ("buildah", "/tmp/evil"),
            ("sandbox/network", "host"),
            ("sandbox", "{network = \"host\"}"),
            ("profiles/small/network", "host"),
            ("profiles/small", "{memory_mb = 512, network = \"host\"}"),
            ("profiles/small", "5"),
            ("registry/auth_file", "/etc/shadow"),
            ("registry/insecure", "[\"a\"]"),
            ("git/credentials", "[]"),
            ("git/allow_http", "true"),
            ("http/tokens", "/x"),
            ("http/tls/key", "/x"),
            ("secrets/npm", "/etc/shadow"),
            ("consul/prefix", "x"),
            ("nomad/repository", "x"),
            ("local/slots", "5"),
            ("limits", "5"),
            ("limits/memory_mb", "{a = 1}"),
            ("nonsense", "1"),
            ("/limits/memory_mb", "1024"),
        ] {
            let faults = over("", &[("limits/memory_mb_", "1"), (key, value)]).unwrap_err();
            assert_eq!(faults.len(), 1, "{key}: {faults:?}");
            assert!(
                faults[0].starts_with(&format!("{key}: may not be set from Consul: only limits")),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn every_fault_is_named_by_its_key_and_no_value_is_repeated() {
        let faults = over(
            "",
            &[
                ("limits/memory_mb", "geheim"),
                ("limits/memroy_mb", "1"),
                ("limits/files", "-1"),
                ("registry/allow", "geheim"),
                ("principals/token:ann/builds", "[\"geheim\"]"),
                ("principals/token:ann/operator", "\"geheim\""),
            ],
        )
        .unwrap_err();
        let text = faults.join("\n");
        assert_eq!(faults.len(), 6, "{text}");
        assert!(
            text.contains("limits/memory_mb: expected u64; it is of the kind string"),
            "{text}"
        );
        assert!(
            text.contains("limits/memroy_mb: there is no such key; expected one of `log_mb`"),
            "{text}"
        );
        assert!(
            text.contains("registry/allow: expected a sequence"),
            "{text}"
        );
        assert!(
            text.contains("principals/token:ann/builds: expected u32"),
            "{text}"
        );
        assert!(!text.contains("geheim"), "{text}");

        let faults = over(
            "",
            &[
                ("limits/memory_mb", "77"),
                ("limits/cpus", "7777.7"),
                ("profiles/x/files", "77"),
                ("profiles/x/secrets", "[\"geheim geheim\"]"),
                ("profiles/x/description", "\"geheim\\ngeheim\""),
                ("principals/token:ann/profiles", "[\"geheim\"]"),
                ("principals/token:ann/builds", "0"),
                ("principals/token:bob/queued", "7777777"),
                ("registry/allow", "[\"geheim\"]"),
                ("git/allow", "[\"geheim\"]"),
            ],
        )
        .unwrap_err();
        let text = faults.join("\n");
        for part in [
            "limits.memory_mb must be from 128",
            "limits.cpus must be from 0.1",
            "profiles.x.files must be from 1000",
            "profiles.x.secrets[0] is no name",
            "profiles.x.description must be one line",
            "principals.\"token:ann\".profiles[0]: there is no such profile",
            "principals.\"token:ann\".builds must be from 1",
            "principals.\"token:bob\".queued must be from 1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("geheim") && !text.contains("77"), "{text}");

        let faults = over(
            "",
            &[
                ("limits/memory_mb", "1"),
                ("principals/ann", "{builds = 0}"),
            ],
        );
        let text = faults.unwrap_err().join("\n");
        for part in [
            "limits.memory_mb must be from 128",
            "\"ann\" is no principal",
            "builds must be from 1",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let faults = over(
            "",
            &[("profiles/x", "{files = 1}"), ("profiles/x/files", "1000")],
        );
        assert_eq!(
            faults.unwrap_err(),
            ["profiles/x/files: the same is set by profiles/x"]
        );
    }

    #[test]
    fn rubbish_is_refused_shortly() {
        let rubbish = "x".repeat(512 << 10);
        let faults = over("", &[("limits/memory_mb", &rubbish)]).unwrap_err();
        assert_eq!(
            faults,
            ["limits/memory_mb: 524288 bytes; a value has at most 65536"]
        );
        let binary = Pair {
            key: "limits/\u{1b}[31mmemory_mb".into(),
            value: vec![0xff, 0xfe],
        };
        let faults = Overlay::read(&[binary]).unwrap_err();
        assert!(
            faults[0].ends_with("the value is not UTF-8") && !faults[0].contains('\u{1b}'),
            "{faults:?}"
        );
        let faults = over("", &[("limits/memory_mb", "a\nb = 2")]).unwrap_err();
        assert!(faults[0].contains("neither a value of TOML"), "{faults:?}");
        let long = format!("limits/{}", "k".repeat(100_000));
        let faults = over("", &[(&long, &"[".repeat(60_000))]).unwrap_err();
        assert!(
            faults.iter().all(|fault| fault.chars().count() < 1000),
            "{faults:?}"
        );
        let many: Vec<Pair> = (0..200)
            .map(|n| Pair {
                key: format!("x/{n}"),
                value: b"1".to_vec(),
            })
            .collect();
        let faults = Overlay::read(&many).unwrap_err();
        assert_eq!((faults.len(), faults[20].as_str()), (21, "and 180 more"));
        let far = vec![many[0].clone(); MAX_KEYS + 1];
        assert_eq!(Overlay::read(&far).unwrap_err().len(), 1);
    }
}

//! From a file, variables and flags to one table of values that fit, with every fault and where each value came from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize as _;
use serde_json::Value as Schema;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use crate::build::clean::short;
use crate::schema::suggest::nearest;

use super::schema;

/// Longest name in a fault, in characters.
const SHOWN: usize = 80;

/// Variables that are no keys of the configuration.
const OTHERS: &[&str] = &[
    "BIN",
    "CONFIG",
    "FIXTURE_BIN",
    "ID",
    "LOG",
    "RECORDS",
    "TOKEN",
];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, from 1.
    File(usize),
    /// A variable.
    Variable(String),
    /// `--set`.
    Flag,
}

/// What was read so far. Later layers win.
#[derive(Debug, Default)]
pub struct Reader<'a> {
    /// The file, for faults.
    file: Option<&'a Path>,
    /// All values that fit.
    pub table: Table,
    /// Where they come from, tables too.
    pub places: BTreeMap<Vec<String>, Place>,
    /// What does not fit.
    faults: Vec<(Option<Place>, String)>,
}

impl<'a> Reader<'a> {
    /// Takes the text of a file.
    pub fn file(&mut self, file: &'a Path, text: &str) {
        self.file = Some(file);
        let lines = Lines(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = error.span().map(|span| Place::File(lines.of(&span)));
            self.fault(place, error.message().trim().to_owned());
        }
        let table = self.fit_table(schema::schema(), &[], root.get_ref(), &lines);
        self.table = table;
    }

    /// Takes a value that a variable or a flag gives for a key.
    pub fn given(&mut self, path: &[String], text: &str, place: &Place) {
        let Some(node) = schema::node(path) else {
            self.unknown(path, place);
            return;
        };
        let key = path.join(".");
        match value_of(node, text) {
            Err(expected) => {
                self.fault(Some(place.clone()), format!("{key} must be {expected}"));
            }
            Ok(value) => {
                self.forget(path);
                self.places.insert(path.to_owned(), place.clone());
                put(&mut self.table, path, value);
            }
        }
    }

    /// What is wrong with a value that fits: `text` begins with its key.
    pub fn value_fault(&mut self, text: &str) {
        let place = self.place_of(text).cloned();
        self.fault(place, text.to_owned());
    }

    fn place_of(&self, text: &str) -> Option<&Place> {
        let key = text.split(' ').next()?.trim_end_matches(':');
        let mut path: Vec<String> = names_in(key)?;
        // A profile's or principal's name stands behind the colon.
        if let Some(name) = text.strip_prefix(&format!("{key}: ")).and_then(quoted) {
            path.push(name);
        }
        while !path.is_empty() {
            if let Some(place) = self.places.get(&path) {
                return Some(place);
            }
            path.pop();
        }
        None
    }

    /// Notes what is wrong with a place.
    pub fn fault(&mut self, place: Option<Place>, text: String) {
        self.faults.push((place, text));
    }

    /// Every fault with its place: first those of the file, line by line.
    pub fn faults(&self) -> Vec<String> {
        let file = self.file.map(|file| file.display().to_string());
        let file = file.unwrap_or_default();
        let mut faults: Vec<_> = self.faults.iter().collect();
        faults.sort_by_key(|(place, _)| (place.is_none(), place));
        let told = faults.into_iter().map(|(place, text)| match place {
            Some(Place::File(line)) => format!("{file}:{line}: {text}"),
            Some(Place::Variable(name)) => format!("{name}: {text}"),
            Some(Place::Flag) => format!("--set: {text}"),
            None => text.clone(),
        });
        told.collect()
    }

    fn unknown(&mut self, path: &[String], place: &Place) {
        let known = (0..path.len()).rev().find_map(|length| {
            let (above, rest) = path.split_at_checked(length)?;
            Some((schema::node(above)?, above, rest.first()?))
        });
        let Some((node, above, name)) = known else {
            return;
        };
        let text = unknown(node, above, name);
        self.fault(Some(place.clone()), text);
    }

    /// What of a table fits; the rest are faults.
    fn fit_table(
        &mut self,
        node: &Schema,
        path: &[String],
        table: &DeTable<'_>,
        lines: &Lines<'_>,
    ) -> Table {
        let mut fitting = Table::new();
        for (name, value) in table {
            let place = Place::File(lines.of(&name.span()));
            let inner_path = [path, &[name.get_ref().to_string()]].concat();
            match schema::child(node, name.get_ref()) {
                None => {
                    let text = unknown(node, path, name.get_ref());
                    self.fault(Some(place), text);
                }
                Some(inner) => {
                    let fits = self.fit(inner, &inner_path, value, lines, &place);
                    self.places.insert(inner_path, place);
                    if let Some(value) = fits {
                        fitting.insert(name.get_ref().to_string(), value);
                    }
                }
            }
        }
        fitting
    }

    fn fit(
        &mut self,
        node: &Schema,
        path: &[String],
        value: &Spanned<DeValue<'_>>,
        lines: &Lines<'_>,
        place: &Place,
    ) -> Option<Value> {
        match (node["type"].as_str(), value.get_ref()) {
            (Some("object"), DeValue::Table(table)) => {
                Some(Value::Table(self.fit_table(node, path, table, lines)))
            }
            (Some("array"), DeValue::Array(list)) => {
                let mut fitting = Vec::new();
                for (index, one) in list.iter().enumerate() {
                    let path = numbered(path, index);
                    let place = Place::File(lines.of(&one.span()));
                    fitting.extend(self.fit(&node["items"], &path, one, lines, &place));
                    self.places.insert(path, place);
                }
                Some(Value::Array(fitting))
            }
            _ => {
                let plain = Value::deserialize(ValueDeserializer::from(value.clone())).ok();
                let fits = plain.filter(|value| is_fitting(node, value));
                if fits.is_none() {
                    let text = format!("{} must be {}", key(path), expected(node));
                    self.fault(Some(place.clone()), text);
                }
                fits
            }
        }
    }

    /// What a layer below has there.
    fn forget(&mut self, path: &[String]) {
        self.places.retain(|other, _| !other.starts_with(path));
    }
}

/// Lines of a text by offsets.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line in which a span begins, from 1.
    fn of(&self, span: &Range<usize>) -> usize {
        let before = self.0.as_bytes().get(..span.start).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

fn unknown(node: &Schema, path: &[String], name: &str) -> String {
    let names: Vec<&str> = schema::names(node).map(|(name, _)| name).collect();
    let below = match path {
        [] => String::new(),
        path => format!(" below {}", key(path)),
    };
    let instead = match nearest(name, names.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("there are {}", names.join(", ")),
    };
    format!("there is no key {:?}{below}; {instead}", short(name, SHOWN))
}

/// `git.credentials[0]`: an element is known by the name of its list with a number behind it.
fn numbered(path: &[String], index: usize) -> Vec<String> {
    let mut path = path.to_owned();
    if let Some(last) = path.last_mut() {
        last.push_str(&format!("[{index}]"));
    }
    path
}

/// As faults call it.
fn key(path: &[String]) -> String {
    short(&path.join("."), SHOWN)
}

/// The names in a key of dots and quotes, as TOML reads it.
fn names_in(key: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = key;
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(inside) => inside.split_once('"')?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                rest.split_at_checked(end)?
            }
        };
        names.push(name.to_owned());
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None => return after.is_empty().then_some(names),
        }
    }
}

fn quoted(text: &str) -> Option<String> {
    let (name, _) = text.strip_prefix('"')?.split_once('"')?;
    Some(name.to_owned())
}

/// Variables that begin as those of this program do, and stand for no key and nothing else: told, not refused, since
/// others name variables after services, too.
pub fn strays(names: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<String> = (schema::leaves().iter())
        .map(|path| schema::variable(path))
        .collect();
    let is_other = |name: &str| {
        let rest = name.strip_prefix(schema::VARIABLES);
        rest.is_some_and(|rest| !OTHERS.contains(&rest) && !rest.starts_with("TEST_"))
    };
    let stray = names.filter(|name| is_other(name) && !known.contains(name));
    stray
        .map(|name| {
            let instead = nearest(&name, known.iter().map(String::as_str));
            let instead = instead.map(|instead| format!("; did you mean {instead}?"));
            format!(
                "the variable {name} sets nothing{}",
                instead.unwrap_or_default()
            )
        })
        .collect()
}

/// The path of `--set KEY=VALUE`.
pub fn assignment(text: &str) -> Result<(Vec<String>, &str), String> {
    let wrong = || {
        format!(
            "{:?} is not of the form KEY=VALUE, such as limits.memory_mb=2048",
            short(text, SHOWN)
        )
    };
    // A name in quotes may hold an equals sign.
    let mut inside = false;
    let end = text.find(|c| {
        inside ^= c == '"';
        c == '=' && !inside
    });
    let (key, value) = text
        .split_at_checked(end.ok_or_else(wrong)?)
        .ok_or_else(wrong)?;
    let names = names_in(key.trim()).filter(|names| names.iter().all(|name| !name.is_empty()));
    let value = value.strip_prefix('=').unwrap_or_default();
    Ok((names.ok_or_else(wrong)?, value.trim()))
}

/// A value as people write it outside of a file: words as they are, lists with commas, the rest as in TOML.
fn value_of(node: &Schema, text: &str) -> Result<Value, String> {
    let as_toml = || {
        let value = ValueDeserializer::parse(text).ok();
        value.and_then(|value| Value::deserialize(value).ok())
    };
    let value = match node["type"].as_str() {
        Some("string") => Some(Value::String(text.to_owned())),
        Some("array")
            if node
                .pointer("/items/type")
                .is_some_and(|kind| kind == "string")
                && !text.starts_with('[') =>
        {
            let words = text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty());
            Some(Value::Array(
                words.map(|word| Value::String(word.to_owned())).collect(),
            ))
        }
        _ => as_toml(),
    };
    value
        .filter(|value| is_fitting(node, value))
        .ok_or_else(|| expected(node))
}

/// Whether a value is of the kind that the schema wants, with all that is in it.
fn is_fitting(node: &Schema, value: &Value) -> bool {
    match (node["type"].as_str(), value) {
        (Some("string"), Value::String(text)) => node
            .get("enum")
            .and_then(Schema::as_array)
            .is_none_or(|words| words.iter().any(|word| word == text)),
        (Some("boolean"), Value::Boolean(_)) | (Some("number"), Value::Float(_)) => true,
        (Some("number"), Value::Integer(_)) => true,
        (Some("integer"), Value::Integer(number)) => in_range(node, *number),
        (Some("array"), Value::Array(list)) => {
            list.iter().all(|one| is_fitting(&node["items"], one))
        }
        (Some("object"), Value::Table(table)) => table.iter().all(|(name, value)| {
            schema::child(node, name).is_some_and(|inner| is_fitting(inner, value))
        }),
        _ => false,
    }
}

/// What the type alone can hold; the rest is checked where a value is used.
fn in_range(node: &Schema, number: i64) -> bool {
    let least = node.get("minimum").and_then(Schema::as_i64);
    let most = node.get("maximum").and_then(Schema::as_i64);
    least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most)
}

fn expected(node: &Schema) -> String {
    let words = node.get("enum").and_then(Schema::as_array);
    if let Some(words) = words {
        let words: Vec<&str> = words.iter().filter_map(Schema::as_str).collect();
        return format!("one of {}", words.join(", "));
    }
    match node["type"].as_str() {
        Some("string") => "text in quotes",
        Some("boolean") => "true or false",
        Some("integer") => "a whole number that is not negative or too big",
        Some("number") => "a number",
        Some("array") => "a list",
        _ => "a table",
    }
    .to_owned()
}

fn put(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            table.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = table
                .entry(name.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError, Given};
    use super::*;

    const FILE: &str = "\
# the state
state_dir = \"x\"
colour = 1

[local]
slots = \"many\"
keep_day = 3

[limits]
memory_mb = 1
cpus = 2

[profiles.large]
memory_mb = 4096
memry_mb = 1
network = \"everything\"

[[git.credentials]]
url = \"https://git.example.com/\"
password = \"geheim\"
";

    fn load(text: &str, env: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let given = Given {
            file: Some(file.clone()),
            set: set.iter().map(|&one| one.to_owned()).collect(),
        };
        let env = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::load_from(&given, env)
            .map(|(config, _)| config)
            .map_err(|ConfigError(mut faults)| {
                let path = format!("{}:", file.display());
                for fault in &mut faults {
                    *fault = fault.replace(&path, "FILE:");
                }
                ConfigError(faults)
            })
    }

    fn faults(text: &str, env: &[(&str, &str)], set: &[&str]) -> Vec<String> {
        load(text, env, set).map_or_else(|ConfigError(faults)| faults, |_| Vec::new())
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_line() {
        let env = [
            ("NOMAD_BUILD_HTTP_SESSIONS", "maybe"),
            ("NOMAD_BUILD_MCP_MAX_WAIT", "0"),
        ];
        let set = ["limits.memori_mb=1", "nomad.lost_after=0", "limits"];
        let wanted = [
            "FILE:2: state_dir must be an absolute path",
            "FILE:3: there is no key \"colour\"; there are state_dir, backend, log_dir, server, token_file, buildah, registry, git, local, nomad, limits, profiles, sandbox, secrets, mcp, http, principals, consul",
            "FILE:6: local.slots must be a whole number that is not negative or too big",
            "FILE:7: there is no key \"keep_day\" below local; did you mean keep_days?",
            "FILE:10: limits.memory_mb must be from 128 to 1073741824",
            "FILE:15: there is no key \"memry_mb\" below profiles.large; did you mean memory_mb?",
            "FILE:16: profiles.large.network must be one of egress, none, host",
            "FILE:18: git.credentials[0] needs password_file or ssh_key",
            "FILE:20: there is no key \"password\" below git.credentials[0]; did you mean password_file?",
            "NOMAD_BUILD_HTTP_SESSIONS: http.sessions must be true or false",
            "NOMAD_BUILD_MCP_MAX_WAIT: mcp.max_wait must be from 1 to 3600",
            "--set: there is no key \"memori_mb\" below limits; did you mean memory_mb?",
            "--set: \"limits\" is not of the form KEY=VALUE, such as limits.memory_mb=2048",
            "--set: nomad.lost_after must be from 1 to 86400",
        ];
        let said = faults(FILE, &env, &set);
        for (said, wanted) in said.iter().zip(wanted) {
            assert_eq!(said, wanted);
        }
        assert_eq!(said.len(), wanted.len(), "{said:#?}");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let said = faults("[limits]\nmemory_mb = \n\n[local\nslots = 2\n", &[], &[]);
        assert!(
            said.iter().any(|fault| fault.starts_with("FILE:2: ")),
            "{said:#?}"
        );
        assert!(
            said.iter().any(|fault| fault.starts_with("FILE:4: ")),
            "{said:#?}"
        );
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let text = "[limits]\nprocesses = 200\nfiles = 2000\ndisk_mb = 100\n[registry]\ninsecure = [\"a:1\"]\n";
        let env = [
            ("NOMAD_BUILD_LIMITS_FILES", "3000"),
            ("NOMAD_BUILD_LIMITS_DISK_MB", "200"),
            ("NOMAD_BUILD_LIMITS_CPUS", "2"),
            ("NOMAD_BUILD_REGISTRY_INSECURE", "b:2, c:3"),
            ("NOMAD_BUILD_REGISTRY_ALLOW", "[\"d/\"]"),
            (
                "NOMAD_BUILD_PRINCIPALS",
                "{\"token:ann\" = {operator = true}}",
            ),
            ("CONSUL_HTTP_ADDR", "consul:8500"),
            ("NOMAD_BUILD_CONSUL_DATACENTER", "dc2"),
        ];
        let set = [
            "limits.disk_mb=300",
            "sandbox.network = none",
            "principals.\"token:b=b\".builds=3",
        ];
        let config = load(text, &env, &set).unwrap();
        assert_eq!(
            (
                config.limits.processes,
                config.limits.files,
                config.limits.disk_mb
            ),
            (200, 3000, 300)
        );
        assert_eq!(config.limits.cpus, Some(2.0));
        assert_eq!(config.registry.insecure, ["b:2", "c:3"]);
        assert_eq!(config.registry.allow, ["d/"]);
        assert_eq!(config.consul.address, "http://consul:8500");
        assert_eq!(config.sandbox.network.as_str(), "none");
        assert!(config.principals["token:ann"].operator);
        assert_eq!(config.principals["token:b=b"].builds, 3);
        let over = [
            env.as_slice(),
            &[("NOMAD_BUILD_CONSUL_ADDRESS", "http://x:1")],
        ]
        .concat();
        assert_eq!(
            load(text, &over, &set).unwrap().consul.address,
            "http://x:1"
        );
    }

    #[test]
    fn variables_that_set_nothing_are_told() {
        let names = [
            "NOMAD_BUILD_LIMITS_MEMRY_MB",
            "NOMAD_BUILD_CONFIG",
            "NOMAD_BUILD_TEST_X",
            "NOMAD_ADDR",
            "NOMAD_BUILD_STATE_DIR",
        ];
        let told = strays(names.iter().map(|&name| name.to_owned()));
        assert_eq!(
            told,
            [
                "the variable NOMAD_BUILD_LIMITS_MEMRY_MB sets nothing; did you mean NOMAD_BUILD_LIMITS_MEMORY_MB?"
            ]
        );
    }

    #[test]
    fn no_value_is_repeated() {
        let text =
            "[git]\ncredentials = \"geheim\"\n[secrets]\na = 5\n[http]\nsessions = \"geheim\"\n";
        let said = faults(
            text,
            &[("NOMAD_BUILD_LIMITS_FILES", "geheim")],
            &["mcp.max_wait=geheim"],
        );
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(!said.concat().contains("geheim"), "{said:#?}");
    }
}

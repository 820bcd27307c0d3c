//! Every value of a configuration, and where it comes from, for people: secrets masked.
//!
//! Files of secrets are only named in a configuration, so what is masked is what somebody may have written into
//! a URL: its user and password, and its query.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::Serialize;
use serde_json::Value;

use super::Config;
use super::overlay::Overlay;
use super::read::Place;

/// Stands where a secret would be.
const MASK: &str = "***";

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Origin {
    Default,
    File,
    Environment,
    Flag,
    Consul,
}

impl Origin {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
            Self::Consul => "consul",
        }
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its key, as in TOML.
    pub key: String,
    /// The value, secrets masked; null: it is not set.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
    /// The line of the file, the variable, the flag or the key in Consul that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What a configuration was read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    places: BTreeMap<Vec<String>, Place>,
}

impl Sources {
    pub(super) fn new(file: Option<&Path>, places: BTreeMap<Vec<String>, Place>) -> Self {
        let file = file.map(Path::to_owned);
        Self { file, places }
    }

    /// Every value of a configuration that was read from here, with what lies over it.
    pub fn rows(&self, config: &Config, overlay: &Overlay, prefix: &str) -> Vec<Row> {
        // Whatever can be configured can be written.
        let all = serde_json::to_value(config).unwrap_or_default();
        let mut rows = Vec::new();
        unfold(Vec::new(), all, &mut |path, value| {
            let (origin, from) = self.origin(&path, overlay, prefix);
            rows.push(Row {
                key: key(&path),
                value: masked(value),
                origin,
                from,
            });
        });
        rows
    }

    fn origin(&self, path: &[String], overlay: &Overlay, prefix: &str) -> (Origin, Option<String>) {
        if let Some(key) = overlay.key_of(path) {
            return (Origin::Consul, Some(format!("{prefix}{key}")));
        }
        match (self.place(path), &self.file) {
            (Some(Place::Flag), _) => (Origin::Flag, Some("--set".into())),
            (Some(Place::Variable(name)), _) => (Origin::Environment, Some(name.clone())),
            (Some(Place::File(line)), Some(file)) => {
                (Origin::File, Some(format!("{}:{line}", file.display())))
            }
            _ => (Origin::Default, None),
        }
    }

    /// Where a value comes from. What a variable or a flag gives, it gives with all that is in it.
    fn place(&self, path: &[String]) -> Option<&Place> {
        let above = || {
            (1..path.len())
                .rev()
                .filter_map(|length| self.places.get(path.get(..length)?))
        };
        let whole = |place: &&Place| !matches!(place, Place::File(_));
        self.places.get(path).or_else(|| above().find(whole))
    }
}

/// Calls `take` with each value that is no table, or an empty one.
fn unfold(path: Vec<String>, value: Value, take: &mut impl FnMut(Vec<String>, Value)) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                unfold([path.as_slice(), &[name]].concat(), value, take);
            }
        }
        // What a profile or a principal does not set is as for all others.
        Value::Null
            if matches!(
                path.first().map(String::as_str),
                Some("profiles" | "principals")
            ) => {}
        value => take(path, value),
    }
}

/// As it is written in TOML.
pub(super) fn key(path: &[String]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name = |name: &String| match !name.is_empty() && name.chars().all(bare) {
        true => name.clone(),
        false => Value::from(name.as_str()).to_string(),
    };
    path.iter().map(name).collect::<Vec<_>>().join(".")
}

fn masked(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_secrets(&text)),
        Value::Array(list) => list.into_iter().map(masked).collect(),
        Value::Object(map) => {
            let masked = map.into_iter().map(|(name, value)| (name, masked(value)));
            Value::Object(masked.collect())
        }
        value => value,
    }
}

/// A URL without its password, and without what may stand for one: the user of HTTP, and the query.
fn without_secrets(text: &str) -> String {
    static URL: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?i)([a-z][a-z0-9+.-]*)://(?:([^/?#@\s]*)@)?([^?#\s]*)(\?[^#\s]*)?").ok()
    });
    let Some(url) = URL.as_ref() else {
        return MASK.to_owned();
    };
    let mask = |found: &Captures<'_>| {
        let part = |n: usize| found.get(n).map_or("", |part| part.as_str());
        let user = match (found.get(2).map(|user| user.as_str()), part(1)) {
            (None, _) => String::new(),
            // The user of SSH says where to, and nothing without a key.
            (Some(user), scheme) if scheme.eq_ignore_ascii_case("ssh") => {
                match user.split_once(':') {
                    Some((user, _)) => format!("{user}:{MASK}@"),
                    None => format!("{user}@"),
                }
            }
            (Some(_), _) => format!("{MASK}@"),
        };
        let query = found.get(4).map_or(String::new(), |_| format!("?{MASK}"));
        format!("{}://{user}{}{query}", part(1), part(3))
    };
    url.replace_all(text, mask).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::Given;
    use super::super::overlay::Pair;
    use super::*;

    #[test]
    fn every_value_has_its_origin() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "state_dir = \"/a\"\n[limits]\nmemory_mb = 256\ndisk_mb = 100\n[profiles.a]\nfiles = 5000\n\
            [git]\nallow = [\"https://somebody:geheim@git.example.com/?token=geheim\", \"ssh://git@git.example.com/\"]\n\
            [consul]\nprefix = \"p\"\n[principals.\"token:ann\"]\n";
        std::fs::write(file.path(), text).unwrap();
        let env = |name: &str| (name == "NOMAD_BUILD_STATE_DIR").then(|| "/b".to_owned());
        let given = Given {
            file: Some(file.path().to_owned()),
            set: vec![
                "limits.processes=200".into(),
                "http.issuers.nomad={jwks = \"/j\", audiences = [\"a\"]}".into(),
            ],
        };
        let (base, sources) = Config::load_from(&given, env).unwrap();
        let pair = |key: &str, value: &str| Pair {
            key: key.into(),
            value: value.into(),
        };
        let given = [
            pair("limits/memory_mb", "512"),
            pair("profiles/a", "{cpus = 2.0}"),
            pair("principals/token:ann/builds", "3"),
        ];
        let overlay = Overlay::read(&given).unwrap();
        let rows = sources.rows(&overlay.over(&base).unwrap(), &overlay, "p/");
        let told = |key: &str| {
            let row = rows.iter().find(|row| row.key == key);
            let row = row.unwrap_or_else(|| panic!("no {key}: {rows:#?}"));
            let from = row.from.clone().unwrap_or_default();
            format!("{} {} {from}", row.value, row.origin.as_str())
        };
        let path = file.path().display();
        assert_eq!(
            told("state_dir"),
            "\"/b\" environment NOMAD_BUILD_STATE_DIR"
        );
        assert_eq!(told("limits.memory_mb"), "512 consul p/limits/memory_mb");
        assert_eq!(told("limits.disk_mb"), format!("100 file {path}:4"));
        assert_eq!(told("limits.processes"), "200 flag --set");
        assert_eq!(told("http.issuers.nomad.claim"), "\"sub\" flag --set");
        assert_eq!(told("limits.cpus"), "null default ");
        assert_eq!(told("limits.files"), "2000000 default ");
        assert_eq!(told("profiles.a.files"), format!("5000 file {path}:6"));
        assert_eq!(told("profiles.a.cpus"), "2.0 consul p/profiles/a");
        assert_eq!(
            told("principals.\"token:ann\".builds"),
            "3 consul p/principals/token:ann/builds"
        );
        assert_eq!(told("principals.\"token:ann\".queued"), "500 default ");
        assert_eq!(told("secrets"), "{} default ");
        let said = serde_json::to_string(&rows).unwrap();
        assert!(
            !said.contains("geheim") && !said.contains("somebody"),
            "{said}"
        );
        assert!(said.contains("ssh://git@git.example.com/"), "{said}");
        assert!(!said.contains("profiles.a.log_mb"), "{said}");
    }

    #[test]
    fn passwords_of_urls_are_masked_wherever_they_stand() {
        for (text, wanted) in [
            ("https://a:b@c/d", "https://***@c/d"),
            ("HTTPS://token@c", "HTTPS://***@c"),
            ("ssh://git:b@c/d", "ssh://git:***@c/d"),
            ("https://c/d?key=1#f", "https://c/d?***#f"),
            ("https://c/a@b", "https://c/a@b"),
            (
                "registry.example.com/x@sha256:0",
                "registry.example.com/x@sha256:0",
            ),
            (
                "x https://a:b@c y http://d:e@f",
                "x https://***@c y http://***@f",
            ),
        ] {
            assert_eq!(without_secrets(text), wanted);
        }
    }
}

//! What each principal may, and how much of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a principal may. Lists narrow what is allowed to all; absent: no further.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rights {
    /// It sees and ends the builds of all.
    pub operator: bool,
    /// Beginnings of the tags it may push to.
    #[schemars(example = ["registry.example.com/team/"])]
    pub tags: Option<Vec<String>>,
    /// Beginnings of the URLs of the repositories it may build.
    #[schemars(example = ["https://git.example.com/team/"])]
    pub git: Option<Vec<String>>,
    /// Profiles it may use, the first of which holds when none is named.
    #[schemars(example = ["default"])]
    pub profiles: Option<Vec<String>>,
    /// Unfinished builds at the same time.
    pub builds: u32,
    /// Those of them that wait for capacity.
    pub queued: u32,
    /// Calls of tools a second over HTTP, on average; four times as many at once.
    pub calls_per_second: u32,
    /// MiB of uploads that are kept at the same time.
    pub upload_mb: u32,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            operator: false,
            tags: None,
            git: None,
            profiles: None,
            builds: 500,
            queued: 500,
            calls_per_second: 50,
            upload_mb: 8192,
        }
    }
}

/// The rights of principals by their names, `token:ann`, `local:root`, `nomad:SUBJECT`; with a `*` at its
/// end, one stands for all that begin so.
pub type Principals = BTreeMap<String, Rights>;

/// The rights of a principal: those of its name, else those of the longest beginning, else the default.
pub fn rights<'a>(all: &'a Principals, principal: &str) -> Option<&'a Rights> {
    let beginning = |name: &str| {
        let beginning = name.strip_suffix('*')?;
        principal.starts_with(beginning).then_some(beginning.len())
    };
    all.get(principal).or_else(|| {
        (all.iter())
            .filter_map(|(name, rights)| Some((beginning(name)?, rights)))
            .max_by_key(|(length, _)| *length)
            .map(|(_, rights)| rights)
    })
}

/// What is wrong, each with the key, and no value: it may come from Consul.
pub(super) fn faults(all: &Principals, profiles: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, rights) in all {
        if !(name.contains(':') || name.ends_with('*')) {
            faults.push(format!(
                "principals: {name:?} is no principal, such as token:NAME, local:USER, ISSUER:SUBJECT, or a beginning with * behind it"
            ));
        }
        for (index, profile) in rights.profiles.iter().flatten().enumerate() {
            if !profiles.contains(profile) {
                faults.push(format!(
                    "principals.{name:?}.profiles[{index}]: there is no such profile"
                ));
            }
        }
        if rights.profiles.as_ref().is_some_and(Vec::is_empty) {
            faults.push(format!(
                "principals.{name:?}.profiles is empty: it could build nothing"
            ));
        }
        for (key, value) in [
            ("builds", rights.builds),
            ("queued", rights.queued),
            ("calls_per_second", rights.calls_per_second),
            ("upload_mb", rights.upload_mb),
        ] {
            if !(1..=1_000_000).contains(&value) {
                faults.push(format!(
                    "principals.{name:?}.{key} must be from 1 to 1000000"
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_holds() {
        let all: Principals = toml::from_str(
            "\"*\" = {builds = 1}\n\"token:*\" = {builds = 2}\n\"token:ci-*\" = {builds = 3}\n\"token:ci-1\" = {builds = 4}\n",
        )
        .unwrap();
        let builds = |name: &str| rights(&all, name).map(|rights| rights.builds);
        for (name, wanted) in [
            ("local:root", 1),
            ("token:ann", 2),
            ("token:ci-2", 3),
            ("token:ci-1", 4),
            ("token:ci-10", 3),
        ] {
            assert_eq!(builds(name), Some(wanted), "{name}");
        }
        assert_eq!(rights(&Principals::new(), "token:ann"), None);
    }

    #[test]
    fn every_fault_is_named() {
        let all: Principals = toml::from_str(
            "ann = {}\n\"token:ann\" = {profiles = [\"x\"], builds = 0}\n\"token:bob\" = {profiles = []}\n",
        )
        .unwrap();
        let faults = faults(&all, &["default".into()]);
        assert_eq!(faults.len(), 4, "{faults:#?}");
        let text = faults.join("\n");
        for part in [
            "\"ann\" is no principal",
            "profiles[0]: there is no such profile",
            "builds must be",
            "is empty",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}

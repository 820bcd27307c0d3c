//! What may be asked for.

use std::collections::BTreeSet;

use crate::build::status::{Offers, ProfileOffer};
use crate::build::validate::Rules;
use crate::config::Profile;

use super::{Principal, Service};

/// Stands where a list of registries would be: an empty one means all.
const NO_REGISTRY: &str = "(none: pushes are not allowed)";

impl Service {
    /// What this principal may ask for.
    pub fn offers(&self, principal: &Principal) -> Offers {
        let rules = self.rules(principal);
        let profiles = (rules.profiles.iter()).filter_map(|name| self.config.profile(name));
        let secrets = secrets(&rules);
        Offers {
            profile_details: profiles.map(|profile| offer(&profile)).collect(),
            sources: sources(&rules),
            registries: match rules.tags {
                None => Vec::new(),
                Some(none) if none.is_empty() => vec![NO_REGISTRY.into()],
                Some(tags) => tags,
            },
            profiles: rules.profiles,
            secrets,
            limits: vec![
                self.backend.capacity(),
                format!("wait: {} s", self.config.mcp.max_wait),
            ],
        }
    }
}

/// Of all profiles together; each of them says its own.
fn secrets(rules: &Rules) -> Vec<String> {
    let all: BTreeSet<&String> = rules.secrets.values().flatten().collect();
    all.into_iter().cloned().collect()
}

fn sources(rules: &Rules) -> Vec<String> {
    let kinds = [
        ("git", true),
        ("path", rules.paths),
        ("context", rules.uploads),
        ("files", true),
    ];
    (kinds.into_iter())
        .filter(|(_, taken)| *taken)
        .map(|(kind, _)| kind.to_owned())
        .collect()
}

fn offer(profile: &Profile) -> ProfileOffer {
    let limits = &profile.limits;
    let memory = limits.memory_mb.map(|size| format!("memory {size} MiB"));
    let cpus = limits.cpus.map(|cpus| format!("{cpus} CPUs"));
    let always = [
        format!("{} processes", limits.processes),
        format!(
            "disk {} MiB in {} files of at most {} MiB",
            limits.disk_mb, limits.files, limits.file_mb
        ),
        format!(
            "sources {} MiB in {} files",
            limits.context_mb, limits.context_entries
        ),
        format!("log {} MiB", limits.log_mb),
        format!("outputs {} MiB", limits.outputs_mb),
        format!("network {}", profile.network.as_str()),
    ];
    ProfileOffer {
        name: profile.name.clone(),
        description: profile.description.clone(),
        secrets: profile.secrets.clone(),
        limits: memory.into_iter().chain(cpus).chain(always).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_profile_is_offered_with_all_its_limits() {
        let config: Config = toml::from_str(
            "[profiles.large]\ndescription = \"for C++\"\nmemory_mb = 8192\ncpus = 2.5\ndisk_mb = 100",
        )
        .unwrap();
        let large = offer(&config.profile("large").unwrap());
        assert_eq!(large.description.as_deref(), Some("for C++"));
        assert_eq!(
            large.limits,
            [
                "memory 8192 MiB",
                "2.5 CPUs",
                "4096 processes",
                "disk 100 MiB in 2000000 files of at most 8192 MiB",
                "sources 2048 MiB in 200000 files",
                "log 256 MiB",
                "outputs 2048 MiB",
                "network egress",
            ]
        );
        let default = offer(&config.profile("default").unwrap());
        assert_eq!((default.limits.len(), default.description), (6, None));
    }
}

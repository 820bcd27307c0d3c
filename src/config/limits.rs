//! Limits of one build, and the profiles that a request chooses from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sandbox::Network;

/// The profile of a request that names none.
pub const DEFAULT_PROFILE: &str = "default";
/// Longest description of a profile, in characters: it stands in every list of builds.
const MAX_DESCRIPTION: usize = 200;

/// One table of every limit: its default and its range, or that it need not be set.
macro_rules! limits {
    (always { $($(#[$meta:meta])* $key:ident = $default:literal, $range:expr;)* }
     optional { $($(#[$meta_o:meta])* $key_o:ident: $type_o:ty, $range_o:expr;)* }) => {
        /// Limits of one build.
        #[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[$meta])* pub $key: u64,)*
            $($(#[$meta_o])* pub $key_o: Option<$type_o>,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($key: $default,)* $($key_o: None,)* }
            }
        }

        /// What the operator sets for one profile; the rest is as in `[limits]` and `[sandbox]`.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct Overrides {
            /// What the profile is for, in a sentence for agents.
            #[schemars(example = "for large programs in C++")]
            pub description: Option<String>,
            /// Network of foreign code.
            pub network: Option<Network>,
            /// Names of the secrets that its builds may use. Absent: those of `[secrets]`. On a cluster these names are all that
            /// the server knows.
            #[schemars(example = ["npm"])]
            pub secrets: Option<Vec<String>>,
            $($(#[$meta])* #[schemars(example = $default)] pub $key: Option<u64>,)*
            $($(#[$meta_o])* pub $key_o: Option<$type_o>,)*
        }

        impl Limits {
            /// These limits, apart from what a profile sets.
            #[must_use]
            pub fn with(&self, over: &Overrides) -> Self {
                Self {
                    $($key: over.$key.unwrap_or(self.$key),)*
                    $($key_o: over.$key_o.or(self.$key_o),)*
                }
            }

            /// What is out of its range, each with the key and the range, and no value.
            pub fn faults(&self) -> Vec<String> {
                let given = Overrides {
                    $($key: Some(self.$key),)*
                    $($key_o: self.$key_o,)*
                    ..Overrides::default()
                };
                given.out_of_range("limits")
            }
        }

        impl Overrides {
            fn out_of_range(&self, section: &str) -> Vec<String> {
                let mut faults = Vec::new();
                $(faults.extend(fault(section, stringify!($key), self.$key, $range));)*
                $(faults.extend(fault(section, stringify!($key_o), self.$key_o, $range_o));)*
                faults
            }
        }
    };
}

limits! {
    always {
        /// Size of a log, in MiB, all phases together: the beginning and the end of each are kept.
        log_mb = 256, 1..=65_536;
        /// Size of the sources, in MiB.
        context_mb = 2048, 1..=1_048_576;
        /// Files and directories of the sources.
        context_entries = 200_000, 1..=100_000_000;
        /// Processes and threads at the same time, Buildah's own (dozens) among them.
        processes = 4096, 128..=4_194_304;
        /// What one build may write to the disk, in MiB.
        disk_mb = 20_480, 64..=1_073_741_824;
        /// Files and directories that one build may make.
        files = 2_000_000, 1000..=10_000_000_000;
        /// Size of one file that foreign code writes, in MiB.
        file_mb = 8192, 1..=1_073_741_824;
        /// What one build may hand over as outputs, in MiB; 0: nothing.
        outputs_mb = 2048, 0..=1_048_576;
    }
    optional {
        /// Memory of all processes of a build together, in MiB; absent: not limited. Needs a cgroup: as root, or a
        /// delegated one.
        #[schemars(example = 8192)]
        memory_mb: u64, 128..=1_073_741_824;
        /// Time of processors, in processors; absent: not limited. Needs a cgroup, too.
        #[schemars(example = 4.0)]
        cpus: f64, 0.1..=4096.0;
    }
}

fn fault<T: PartialOrd + std::fmt::Display>(
    section: &str,
    key: &str,
    value: Option<T>,
    range: std::ops::RangeInclusive<T>,
) -> Option<String> {
    value.filter(|value| !range.contains(value))?;
    let (least, most) = (range.start(), range.end());
    Some(format!("{section}.{key} must be from {least} to {most}"))
}

impl Overrides {
    /// What is wrong with the profile `name`, each with the key and what would be right, and no value: it may come
    /// from Consul.
    pub fn faults(&self, name: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if !crate::build::validate::is_name(name) {
            faults.push(format!(
                "profiles: {name:?} is no name (letters, digits, . _ -, at most 64)"
            ));
        }
        let fits = |text: &String| {
            text.chars().count() <= MAX_DESCRIPTION && !text.contains(char::is_control)
        };
        if !self.description.as_ref().is_none_or(fits) {
            faults.push(format!(
                "profiles.{name}.description must be one line of at most {MAX_DESCRIPTION} characters"
            ));
        }
        for (index, secret) in self.secrets.iter().flatten().enumerate() {
            if !crate::build::validate::is_secret(secret) {
                faults.push(format!(
                    "profiles.{name}.secrets[{index}] is no name (letters, digits, . _ -, at most 64, no . first)"
                ));
            }
        }
        faults.extend(self.out_of_range(&format!("profiles.{name}")));
        faults
    }
}

/// A profile with everything that holds for its builds.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Limits of one build.
    pub limits: Limits,
    /// Network of foreign code.
    pub network: Network,
    /// Names of the secrets that its builds may use.
    pub secrets: Vec<String>,
}

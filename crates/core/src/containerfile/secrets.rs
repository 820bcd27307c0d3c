//! The secrets a Containerfile asks for.

use super::{Containerfile, Keyword, Step};

/// A `RUN --mount=type=secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// The id of the secret, as written.
    pub id: String,
    /// Index of the stage.
    pub stage: usize,
    /// Line of the `RUN`, counted from 1.
    pub line: u32,
    /// Whether the step fails if the build is not given the secret.
    pub required: bool,
}

impl Containerfile {
    /// Every use of a secret, in the order of the file, in all stages.
    #[must_use]
    pub fn secret_ids(&self) -> Vec<SecretUse> {
        let mut uses = Vec::new();
        for stage in &self.stages {
            for step in &stage.steps {
                for mount in mounts(step).map(fields).filter(|m| m.kind() == "secret") {
                    if let Some(id) = mount.last("id").filter(|id| !id.is_empty()) {
                        uses.push(SecretUse {
                            id: id.to_owned(),
                            stage: stage.index,
                            line: step.line,
                            required: mount.is_on("required"),
                        });
                    }
                }
            }
        }
        uses
    }
}

/// The values of the `--mount` flags of a `RUN`.
pub(super) fn mounts(step: &Step) -> impl Iterator<Item = &str> {
    step.flags
        .iter()
        .filter(|_| step.keyword == Keyword::Run)
        .filter_map(|flag| flag.strip_prefix("--mount="))
}

/// The fields of a `--mount`, of which a later one overrides an earlier one.
pub(super) struct Mount<'a>(Vec<(&'a str, Option<&'a str>)>);

pub(super) fn fields(mount: &str) -> Mount<'_> {
    let fields = mount.split(',').map(|field| match field.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (field, None),
    });
    Mount(fields.collect())
}

impl<'a> Mount<'a> {
    /// The type of the mount.
    pub fn kind(&self) -> &'a str {
        self.last("type").unwrap_or("bind")
    }

    /// The value of the last `key=value`.
    pub fn last(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .rev()
            .filter(|(name, _)| *name == key)
            .find_map(|(_, value)| *value)
    }

    /// Whether a switch is on: named alone, or with a value Go reads as true.
    fn is_on(&self, key: &str) -> bool {
        let field = self.0.iter().rev().find(|(name, _)| *name == key);
        field.is_some_and(|(_, value)| {
            matches!(
                value,
                None | Some("1" | "t" | "T" | "true" | "TRUE" | "True")
            )
        })
    }
}

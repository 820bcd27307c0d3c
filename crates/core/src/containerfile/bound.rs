//! What steps bind into their container, as far as Buildah's cache of layers knows of it.

use std::collections::BTreeSet;

use super::Containerfile;
use super::secrets::{fields, mounts};

impl Containerfile {
    /// Whether a step of these stages binds something of which Buildah does not ask whether it is the same as when its
    /// layer was made. Before 1.39 that is all; since, what does not say `type=bind` or comes from a stage
    /// (imagebuildah/stage_executor.go, `getCreatedBy`): then `sees_typed` is set.
    #[must_use]
    pub fn binds_unseen(&self, stages: &BTreeSet<usize>, sees_typed: bool) -> bool {
        let stages = self
            .stages
            .iter()
            .filter(|stage| stages.contains(&stage.index));
        let mut mounts = stages
            .flat_map(|stage| &stage.steps)
            .flat_map(mounts)
            .map(fields);
        mounts.any(|mount| match mount.last("type") {
            None => true,
            // Of a stage it asks only whether its last step was taken from the cache.
            Some("bind") => !sees_typed || mount.last("from").is_some(),
            // A variable can make it anything.
            Some(kind) => kind.contains('$'),
        })
    }

    /// Whether a step of these stages binds something that may be a file of a context.
    #[must_use]
    pub fn binds_context(&self, stages: &BTreeSet<usize>) -> bool {
        self.binds_unseen(stages, false)
    }
}

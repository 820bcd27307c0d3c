//! Which files steps bind into their containers.

use std::collections::BTreeSet;

use super::Containerfile;
use super::secrets::{fields, mounts};

impl Containerfile {
    /// Whether a step of these stages binds something that may be a file of a context, and no step has a cache that is
    /// a part of one: what is written there would be seen by later steps.
    #[must_use]
    pub fn only_binds(&self, stages: &BTreeSet<usize>) -> bool {
        let wanted = |index: &usize| stages.contains(index);
        let stages = self.stages.iter().filter(|stage| wanted(&stage.index));
        let steps = stages.flat_map(|stage| &stage.steps);
        let (mut binds, mut caches) = (false, false);
        for mount in steps.flat_map(mounts).map(fields) {
            match mount.kind() {
                "bind" => binds = true,
                "cache" => caches |= mount.last("from").is_some(),
                kind => binds |= kind.contains('$'),
            }
        }
        binds && !caches
    }
}

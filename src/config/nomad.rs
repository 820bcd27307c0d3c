//! The backend on a Nomad cluster.
//!
//! Where Nomad is and how to talk to it, the customary variables say (`NOMAD_ADDR`, `NOMAD_TOKEN`,
//! `NOMAD_CACERT`, …); here is what is of this program alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::reference::Repository;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Nomad {
    /// Namespace of the build jobs and of the records. Default: `NOMAD_NAMESPACE`, else `default`.
    #[schemars(example = &"builds")]
    pub namespace: Option<String>,
    /// Beginning of the names of the parameterized jobs: the job of a profile is `JOB-PROFILE`.
    pub job: String,
    /// Repository for contexts and archived logs, such as `registry.example.com/nomad-build`. Without
    /// it a source must fit into a dispatch's payload, and a log is lost with its allocation.
    #[schemars(example = "registry.example.com/nomad-build")]
    pub repository: Option<String>,
    /// Seconds after which a build that no machine can ever run fails.
    pub unplaceable_after: u32,
    /// Seconds after which a build whose machine does not answer counts as lost.
    pub lost_after: u32,
    /// Seconds after which a build fails whose task gets no further than its templates: its secrets do not come.
    pub secrets_within: u32,
    /// Ended builds that are kept.
    pub keep_builds: u32,
    /// Days for which an ended build is kept.
    pub keep_days: u32,
    /// Seconds that a build has to end after it was told to; then its job is stopped.
    pub kill_grace: u32,
}

impl Default for Nomad {
    fn default() -> Self {
        Self {
            namespace: None,
            job: "nomad-build".into(),
            repository: None,
            unplaceable_after: 300,
            lost_after: 600,
            secrets_within: 120,
            kill_grace: 60,
            keep_builds: 1000,
            keep_days: 14,
        }
    }
}

impl Nomad {
    /// The parameterized job of a profile.
    pub fn job_of(&self, profile: &str) -> String {
        format!("{}-{profile}", self.job)
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.job.is_empty() || self.job.contains(['/', ' ']) || self.job.len() > 60 {
            faults.push("nomad.job must be the beginning of a job's name, without slashes".into());
        }
        if let Some(text) = &self.repository
            && let Err(error) = Repository::parse(text)
        {
            faults.push(format!("nomad.repository: {error}"));
        }
        for (name, seconds) in [
            ("unplaceable_after", self.unplaceable_after),
            ("lost_after", self.lost_after),
            ("secrets_within", self.secrets_within),
            ("kill_grace", self.kill_grace),
        ] {
            if !(1..=86_400).contains(&seconds) {
                faults.push(format!("nomad.{name} must be from 1 to 86400"));
            }
        }
        faults
    }
}

//! What builds need, and whether it is there. Everybody may ask: they are told in fixed words, and the reason
//! is for the operator's log alone.

use std::fmt;

/// Something that builds need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// Where builds of this machine are kept.
    StateDirectory,
    /// The program that builds images.
    Buildah,
    /// Whom builds of this machine run as.
    Users,
    /// The cluster.
    Nomad,
    /// The parameterized job of each profile.
    Jobs,
    /// Where contexts and archived logs of a cluster are.
    Repository,
    /// Whose keys lie over the configuration.
    Consul,
    /// What those keys say.
    Configuration,
}

impl Dependency {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StateDirectory => "state_directory",
            Self::Buildah => "buildah",
            Self::Users => "users",
            Self::Nomad => "nomad",
            Self::Jobs => "jobs",
            Self::Repository => "repository",
            Self::Consul => "consul",
            Self::Configuration => "configuration",
        }
    }

    /// What is wrong when it is missing.
    fn fault(self) -> &'static str {
        match self {
            Self::StateDirectory => "the state directory cannot be used",
            Self::Buildah => "Buildah is not where the configuration says",
            Self::Users => {
                "the accounts that builds run as are not there, or not apart from others"
            }
            Self::Nomad => "Nomad does not answer, has no leader, or refuses this server",
            Self::Jobs => "the job of a profile is not registered with Nomad",
            Self::Repository => "the repository of contexts and logs cannot be read",
            Self::Consul => {
                "Consul does not answer, or refuses this server; what was known of the configuration holds"
            }
            Self::Configuration => {
                "what Consul has is no valid configuration; the last valid one holds, if there was one"
            }
        }
    }

    /// Whether nothing is known of any build without it.
    fn keeps_builds(self) -> bool {
        matches!(self, Self::StateDirectory | Self::Nomad)
    }
}

/// Whether something is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Up,
    /// Not as it should be, for this reason; but some builds can do without.
    Impaired(String),
    /// It is not, for this reason, and no build can be accepted.
    Down(String),
}

impl Standing {
    /// Of what no build can do without.
    pub fn of<E: fmt::Display>(looked: Result<(), E>) -> Self {
        match looked {
            Ok(()) => Self::Up,
            Err(error) => Self::Down(error.to_string()),
        }
    }
}

/// What builds need, as far as it could be found out. Written out, it is what everybody may know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health(Vec<(Dependency, Standing)>);

impl Health {
    /// Of these.
    pub fn of(found: impl IntoIterator<Item = (Dependency, Standing)>) -> Self {
        Self(found.into_iter().collect())
    }

    /// The same and these.
    #[must_use]
    pub fn and(mut self, more: impl IntoIterator<Item = (Dependency, Standing)>) -> Self {
        self.0.extend(more);
        self
    }

    /// Whether builds can be accepted.
    pub fn is_ready(&self) -> bool {
        !(self.0.iter()).any(|(_, standing)| matches!(standing, Standing::Down(_)))
    }

    /// Whether builds can be looked at.
    pub fn knows_builds(&self) -> bool {
        !(self.0.iter()).any(|(dependency, standing)| {
            dependency.keeps_builds() && matches!(standing, Standing::Down(_))
        })
    }

    /// Everything that was looked at, and whether it is as it should be.
    pub fn all(&self) -> impl Iterator<Item = (Dependency, bool)> {
        (self.0.iter()).map(|(dependency, standing)| (*dependency, *standing == Standing::Up))
    }

    /// What is not as it should be, and why: for the operator.
    pub fn faults(&self) -> impl Iterator<Item = (Dependency, &str)> {
        (self.0.iter()).filter_map(|(dependency, standing)| match standing {
            Standing::Up => None,
            Standing::Impaired(why) | Standing::Down(why) => Some((*dependency, why.as_str())),
        })
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ready() {
            "ready\n"
        } else {
            "not ready; the server's log says why\n"
        })?;
        for (dependency, _) in self.faults() {
            writeln!(f, "{}: {}", dependency.as_str(), dependency.fault())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_told_what_is_missing_but_not_why() {
        let secret = || "10.1.2.3 refuses nbt_secret".to_owned();
        let up = Health::of([
            (Dependency::Nomad, Standing::Up),
            (Dependency::Jobs, Standing::Up),
        ]);
        assert_eq!(up.to_string(), "ready\n");
        let impaired = Health::of([
            (Dependency::Nomad, Standing::Up),
            (Dependency::Repository, Standing::Impaired(secret())),
        ]);
        assert!(impaired.is_ready() && impaired.knows_builds());
        assert_eq!(
            impaired.to_string(),
            "ready\nrepository: the repository of contexts and logs cannot be read\n"
        );
        let down = Health::of([(Dependency::Nomad, Standing::Down(secret()))]);
        assert!(!down.is_ready() && !down.knows_builds());
        assert_eq!(
            down.to_string(),
            "not ready; the server's log says why\nnomad: Nomad does not answer, has no leader, or refuses this server\n"
        );
        let reasons: Vec<_> = down.faults().map(|(_, why)| why.to_owned()).collect();
        assert_eq!(reasons, [secret()]);
        let jobs = Health::of([(Dependency::Jobs, Standing::Down(secret()))]);
        assert!(!jobs.is_ready() && jobs.knows_builds());
    }
}

//! What builds are held to on this machine, and what not, as lines for people. Does no I/O.

use crate::config::{DEFAULT_PROFILE, Network};
use crate::runner::trial::stopped;

use super::limits::Limited;
use super::lines::{Facts, Line, lack, line, unenforced, untried};
use super::sandbox::{Outcome, Trial};

/// The sandboxes, what the operator leaves open, and the limits.
pub fn lines(facts: &Facts) -> Vec<Line> {
    let mut lines: Vec<Line> = facts.sandboxes.iter().map(sandbox).collect();
    lines.extend(left_open(facts));
    lines.extend(limits(&facts.limits));
    lines
}

/// What was found, and what it stops.
fn sandbox(trial: &Trial) -> Line {
    let others = trial.profiles.join(", ");
    let item = match trial.profiles.iter().any(|name| name == DEFAULT_PROFILE) {
        true => "sandbox".to_owned(),
        false => format!("sandbox of {others}"),
    };
    let state = match &trial.outcome {
        Outcome::Holds {
            isolation,
            refused,
            user,
            now,
        } => Ok(format!(
            "{}; {} nothing in it reached this host's {}{}{}",
            isolation.join(" "),
            match now {
                true => format!("tried as {user} just now,"),
                false => format!("tried as {user} by an earlier build of this boot,"),
            },
            stopped(trial.network).join(", "),
            match trial.network {
                Network::Egress => "; it has a network of its own, out to the internet",
                Network::None => "; it has no network",
                Network::Host => "; this host's network is open to it",
            },
            match refused.is_empty() {
                true => String::new(),
                false => format!("; what is stronger does not work: {}", refused.join(" / ")),
            }
        )),
        Outcome::Refused(wrong, mend) => lack(
            format!("builds are refused: {}", wrong.trim_end_matches('.')),
            mend,
        ),
        Outcome::Untried(why) => untried(why),
    };
    line(&item, state)
}

/// What the operator has decided not to hold builds to.
fn left_open(facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut trials = facts.sandboxes.iter();
    if let Some(open) = trials.find(|trial| trial.network == Network::Host) {
        let what = format!(
            "RUN and tests of the profiles {} share this host's, and reach whatever listens on its loopback",
            open.profiles.join(", ")
        );
        lines.push(line(
            "network",
            unenforced(what, "sandbox.network = \"egress\", or that of the profile"),
        ));
    }
    if !facts.no_new_privileges {
        let what = "foreign code may gain privileges in its sandbox, and no filter is over its system calls";
        let mend = "sandbox.no_new_privileges = true";
        lines.push(line("no_new_privileges", unenforced(what, mend)));
    }
    lines
}

/// A line for memory, and one for processors.
fn limits(limited: &Limited) -> Vec<Line> {
    const KEYS: [(&str, &str); 2] = [("memory", "limits.memory_mb"), ("cpu", "limits.cpus")];
    let mend = "start the server where it may make cgroups: as a systemd service with Delegate=yes, as that of the package, \
        or as root; for a container, limit the container";
    let mut lines = Vec::new();
    for (index, (controller, key)) in KEYS.into_iter().enumerate() {
        let set = (limited.set.iter()).filter_map(|(profile, limits)| {
            Some(format!("{} of {profile}", limits.get(index)?.as_ref()?))
        });
        let set: Vec<String> = set.collect();
        let wanted = match set.is_empty() {
            true => "not set".to_owned(),
            false => set.join(", "),
        };
        let state = match &limited.unenforced {
            Err(error) => untried(error),
            Ok(words) if words.iter().any(|word| word == controller) => unenforced(
                format!(
                    "{wanted}; whoever starts a server as this was started can make no cgroup that limits it"
                ),
                mend,
            ),
            Ok(_) => Ok(format!("{wanted}; a cgroup can limit it")),
        };
        lines.push(line(key, state));
    }
    lines
}

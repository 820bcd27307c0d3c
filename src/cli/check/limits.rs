//! Which limits on memory and processors this host can enforce: a real attempt, by a process that begins as
//! the job of a build does and leaves nothing behind.

use std::io;
use std::process::{Command, Stdio};

use crate::backend::local::scope;
use crate::build::BuildId;
use crate::config::Config;
use crate::runner::cgroup::{Held, Places};
use crate::runner::settings::Limits;

/// What a host was asked for, and what it does not give.
#[derive(Debug, Clone)]
pub struct Limited {
    /// Profiles with the limits that each sets, in words.
    pub set: Vec<(String, [Option<String>; 2])>,
    /// The kernel's words for what cannot be limited, or why nobody can tell.
    pub unenforced: Result<Vec<String>, String>,
}

/// Asks the host.
pub fn look(config: &Config) -> Limited {
    limited(config, ask().map_err(|error| error.to_string()))
}

/// The same where nobody can ask.
pub fn untried(config: &Config, why: &str) -> Limited {
    limited(config, Err(why.to_owned()))
}

fn limited(config: &Config, unenforced: Result<Vec<String>, String>) -> Limited {
    let set = config.profiles().into_iter().map(|profile| {
        let limits = profile.limits;
        let memory = limits.memory_mb.map(|size| format!("{size} MiB"));
        (profile.name, [memory, limits.cpus.map(|n| n.to_string())])
    });
    Limited {
        set: set.collect(),
        unenforced,
    }
}

/// A process of its own asks, as it may have to leave its cgroup for that.
fn ask() -> io::Result<Vec<String>> {
    let output = Command::new(std::env::current_exe()?)
        .args(["runner", "unenforced"])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().to_owned()));
    }
    let words = String::from_utf8_lossy(&output.stdout);
    Ok(words.split_whitespace().map(str::to_owned).collect())
}

/// What a build that begins here could not be limited in. This process may be in another cgroup afterwards.
///
/// # Errors
/// When what was made cannot be removed.
pub fn unenforced() -> io::Result<Vec<&'static str>> {
    let id = BuildId::from_random(fastrand::u128(..).to_le_bytes());
    // Nothing runs under them.
    let limits = Limits {
        memory_bytes: Some(128 << 20),
        cpus: Some(1.0),
        ..Limits::default()
    };
    scope::enter(&id);
    let held = Held::make(&Places::of_this_process(), &id, &limits);
    let words = held.cgroup().unenforced(&limits);
    held.cgroup().remove()?;
    Ok(words)
}

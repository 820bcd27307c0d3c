//! The caches of the users that builds run as are kept in order, after a build and after a death.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::runner::cache::is_untidy;
use crate::runner::probe;
use crate::runner::sandbox::environment;

use super::layout::Layout;

/// How long a cache may grow before it is looked at again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sweeps each cache in which a dead build left containers, or that was not looked at for a while.
/// Blocks; what fails is logged, and left to the next time.
pub fn sweep(layout: &Layout, config: &Config, program: &Path) {
    for entry in fs::read_dir(layout.caches())
        .into_iter()
        .flatten()
        .flatten()
    {
        let user = entry.path();
        if !is_untidy(&user) && !is_due(&user.join("swept")) {
            continue;
        }
        if let Err(error) = sweep_one(&user, config, program) {
            tracing::warn!(%error, cache = %user.display(), "the cache could not be swept");
        }
    }
}

fn is_due(stamp: &Path) -> bool {
    let age = fs::metadata(stamp)
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_none_or(|age| age > INTERVAL)
}

fn sweep_one(user: &PathBuf, config: &Config, program: &Path) -> std::io::Result<()> {
    let buildah = probe::find(&config.buildah).unwrap_or_else(|| "buildah".into());
    let mut command = Command::new(buildah);
    command
        .args(["unshare", "--"])
        .arg(program)
        .args(["runner", "sweep", "--cache"])
        .arg(user)
        .args(["--limit", &(config.local.cache_mb << 20).to_string()])
        .env_clear()
        .envs(environment(user))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let owner = fs::metadata(user)?;
    if rustix::process::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(std::io::Error::other(format!(
            "runner sweep ended with {status}"
        )))
    }
}

//! The caches of the users that builds run as are kept in order, after a build and after a death.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::runner::cache::is_untidy;
use crate::runner::sandbox::environment;
use crate::runner::userns;

use super::layout::Layout;
use super::program::Program;
use super::user::{BuildUser, Users, Wanted};

/// How long a cache may grow before it is looked at again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sweeps the cache of a user that nobody else has now, when a build left containers in it or it was
/// not looked at for a while. Blocks; what fails is logged, and left to the next time.
pub fn sweep(cache: &Path, config: &Config, user: &BuildUser, program: &Path) {
    if !is_untidy(cache) && !is_due(&cache.join("swept")) {
        return;
    }
    if let Err(error) = run(cache, config, user, program) {
        tracing::warn!(%error, cache = %cache.display(), "the cache could not be swept");
    }
}

/// Sweeps every cache in which a build that died left containers and whose user is free.
pub fn sweep_idle(layout: &Layout, config: &Config, users: &Users, program: &Path) {
    for entry in fs::read_dir(layout.caches())
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !is_untidy(&entry.path()) {
            continue;
        }
        match users.take(&Wanted::rather([name.clone()]), 0) {
            Ok(Ok(lease)) if lease.user.name == name => {
                sweep(&entry.path(), config, &lease.user, program)
            }
            // Its next build tidies up.
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, user = name, "the cache could not be swept"),
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

fn run(cache: &Path, config: &Config, user: &BuildUser, program: &Path) -> io::Result<()> {
    let scratch = cache.join("sweep");
    for dir in ["", "home", "run", "tmp"] {
        user.make_dir(&scratch.join(dir))?;
    }
    let program = Program::for_user(program, user)?;
    let [own, words @ ..] = userns::wrapper(&program.path);
    let mut command = Command::new(own);
    command
        .args(words)
        .arg(&program.path)
        .args(["runner", "sweep", "--cache"])
        .arg(cache)
        .args(["--limit", &(config.local.cache_mb << 20).to_string()])
        .env_clear()
        .envs(environment(&scratch))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    user.apply(&mut command);
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "runner sweep ended with {status}"
        )))
    }
}

//! Nothing of a build remains: no process, no cgroup, no file.

use std::fs;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::build::BuildId;
use crate::config::Config;
use crate::runner::Cgroup;
use crate::runner::sandbox::remove_tree;
use crate::runner::workdir::read_json;

use super::layout::BuildDir;
use super::user::BuildUser;

/// The variable by which the processes of a build are known. Foreign code runs below a process that
/// has it, in a PID namespace that ends with that process.
pub use crate::runner::sandbox::BUILD_ID as MARK;

/// Kills whatever still runs for a build.
pub async fn reap(id: &BuildId) {
    let wanted = format!("{MARK}={id}");
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let found = processes_with(&wanted);
        if found.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            tracing::error!(build = %id, count = found.len(), "processes of an ended build do not end");
            return;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn processes_with(wanted: &str) -> Vec<Pid> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if u32::try_from(number) == Ok(own) {
            continue;
        }
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        if environment
            .split(|&b| b == 0)
            .any(|variable| variable == wanted.as_bytes())
        {
            found.extend(Pid::from_raw(number));
        }
    }
    found
}

/// Removes the cgroup with every process in it, the work directory and the snapshot. Blocks.
///
/// # Errors
/// When something remains.
pub fn remove_work(config: &Config, dir: &BuildDir, user: &BuildUser) -> io::Result<()> {
    let cgroup = remove_cgroup(dir);
    remove_files(config, dir, user)?;
    cgroup
}

fn remove_cgroup(dir: &BuildDir) -> io::Result<()> {
    let Ok(dirs) = read_json(&dir.cgroup()) else {
        return Ok(());
    };
    Cgroup::at(dirs).remove()?;
    fs::remove_file(dir.cgroup())
}

fn remove_files(config: &Config, dir: &BuildDir, user: &BuildUser) -> io::Result<()> {
    let _ = fs::remove_file(dir.context());
    let work = dir.work();
    if !work.exists() {
        return Ok(());
    }
    if user.is_other() {
        // Root can remove what belongs to subordinate users.
        return fs::remove_dir_all(work);
    }
    let buildah = crate::runner::probe::find(&config.buildah).unwrap_or_else(|| "buildah".into());
    let status = remove_tree(&buildah, &work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if work.exists() {
        return Err(io::Error::other(format!(
            "rm ended with {status}, and {} is still there",
            work.display()
        )));
    }
    Ok(())
}

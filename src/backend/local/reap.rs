//! Nothing of a build remains: no process, no cgroup, no file.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::build::BuildId;
use crate::runner::Cgroup;
use crate::runner::sandbox::remove_tree;
use crate::runner::workdir::read_json;

use super::layout::{BuildDir, Layout};
use super::private;
use super::user::{self, BuildUser};

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

/// Takes from a user what builds that died left of it here, until somebody removes that: the next
/// build of the same user must not read it.
///
/// # Errors
/// When the owner of something cannot be changed.
pub fn seal(layout: &Layout, user: &BuildUser) -> io::Result<()> {
    for entry in fs::read_dir(layout.builds())? {
        let work = BuildDir::new(entry?.path()).work();
        if fs::symlink_metadata(&work).is_ok_and(|metadata| user.has(&metadata)) {
            match lchown(&work, Some(0), Some(0)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Removes the cgroup with every process in it, credentials and secrets, the work directory and the
/// snapshot; `program` is this one. Blocks.
///
/// # Errors
/// When something remains.
pub fn remove_work(program: &Path, dir: &BuildDir, id: &BuildId) -> io::Result<()> {
    let cgroup = remove_cgroup(dir);
    let _ = fs::remove_file(dir.context());
    let private = private::remove(id, &|dir| remove_files(program, dir));
    remove_files(program, &dir.work())?;
    private.and(cgroup)
}

fn remove_cgroup(dir: &BuildDir) -> io::Result<()> {
    let Ok(dirs) = read_json(&dir.cgroup()) else {
        return Ok(());
    };
    Cgroup::at(dirs).remove()?;
    fs::remove_file(dir.cgroup())
}

/// Removes a directory of a build, if it is there. Blocks.
///
/// # Errors
/// When something remains.
pub fn remove_files(program: &Path, work: &Path) -> io::Result<()> {
    if !work.exists() {
        return Ok(());
    }
    // Root can remove what belongs to subordinate users; and often nothing does.
    let removed = fs::remove_dir_all(work);
    if removed.is_ok() || user::is_other() {
        return removed;
    }
    let status = remove_tree(program, work)
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

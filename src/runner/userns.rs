//! The user namespace of an unprivileged user: 0 is the user itself, from 1 on its subordinate ids,
//! as `buildah unshare` maps them (containers/storage, pkg/unshare/unshare_linux.go), which takes the
//! time of two starts of Buildah.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{User, getgid, getpid, getuid};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::set_parent_process_death_signal;

use super::sandbox::PATH;
use super::subid::{Owner, Range, SUBGID, SUBUID, Table};

/// The beginning of a command line that runs something in the user namespace of whoever starts it.
pub fn wrapper(own_binary: &Path) -> [OsString; 4] {
    let [runner, unshare, end] = ["runner", "unshare", "--"].map(OsString::from);
    [own_binary.into(), runner, unshare, end]
}

/// Becomes a command in a new user namespace. Must be called while this process has one thread.
///
/// # Errors
/// When there are no subordinate ids, or the kernel, newuidmap(1) or newgidmap(1) refuses.
pub fn become_in(command: &[OsString]) -> io::Result<Infallible> {
    enter()?;
    Err(split(command)?.exec())
}

/// Runs a command as the first process of a new PID namespace, in a new user namespace and with mounts of
/// its own: it, and everything below it, dies with this process, which dies with the one that started
/// it. Returns its exit status (128 + signal, as a shell tells it). Must be called while this process has one thread.
///
/// # Errors
/// When the namespaces cannot be made, or the command cannot be started.
pub fn run_first(command: &[OsString]) -> io::Result<u8> {
    die_with_parent()?;
    enter()?;
    // The kernel forgets it with each change of credentials (prctl(2)).
    die_with_parent()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let mut child = split(command)?.spawn()?;
    // Who is asked to end is the command: it decides how. It would inherit the mask.
    let requests: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    requests.thread_block()?;
    let status = child.wait()?;
    let killed = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(killed);
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX))
}

/// Has the kernel kill this process when its parent is gone.
///
/// # Errors
/// When the kernel refuses.
pub fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(
        rustix::process::Signal::KILL,
    ))?)
}

fn split(command: &[OsString]) -> io::Result<Command> {
    let (program, arguments) =
        (command.split_first()).ok_or_else(|| io::Error::other("no command"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Enters a new user namespace.
fn enter() -> io::Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let name = User::from_uid(getuid())?.map_or_else(String::new, |user| user.name);
    let owner = Owner {
        name: &name,
        uid: Some(uid),
    };
    // They belong to the namespace that this process leaves, so they are started before.
    let mut mappers = [
        mapper("newuidmap", uid, &ranges(SUBUID, owner)?)?,
        mapper("newgidmap", gid, &ranges(SUBGID, owner)?)?,
    ];
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        io::Error::other(format!("the kernel gives no user namespace: {error}"))
    })?;
    for mapper in &mut mappers {
        if let Some(mut stdin) = mapper.stdin.take() {
            stdin.write_all(b"go\n")?;
        }
    }
    mappers.into_iter().try_for_each(finish)
}

fn ranges(file: &'static str, owner: Owner<'_>) -> io::Result<Vec<Range>> {
    let text = fs::read_to_string(file)
        .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?;
    let ranges = Table::parse(file, &text, "").of(owner);
    if ranges.is_empty() {
        return Err(io::Error::other(format!(
            "{} has no ids in {file}",
            owner.name
        )));
    }
    Ok(ranges)
}

/// Starts the one who maps the ids of this process when it is told so.
fn mapper(tool: &str, own: u32, ranges: &[Range]) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", "read -r go && exec \"$@\"", "sh", tool])
        .arg(getpid().to_string())
        .args(mapping(own, ranges).map(|id| id.to_string()))
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// First id in the namespace, first one outside of it and count, for each range.
fn mapping(own: u32, ranges: &[Range]) -> impl Iterator<Item = u32> {
    let mut next = 1;
    let subordinate = ranges.iter().flat_map(move |range| {
        let line = [next, range.first(), range.count()];
        next += range.count();
        line
    });
    [0, own, 1].into_iter().chain(subordinate)
}

fn finish(mapper: Child) -> io::Result<()> {
    let said = mapper.wait_with_output()?;
    if said.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&said.stderr);
    Err(io::Error::other(format!(
        "the ids could not be mapped: {}, {}",
        said.status,
        words.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_the_namespace_follow_each_other() {
        let ranges = [(100_000, 65_536), (300_000, 10)]
            .map(|(first, count)| Range::new(first, count).unwrap());
        let mapped: Vec<u32> = mapping(1000, &ranges).collect();
        assert_eq!(
            mapped,
            [0, 1000, 1, 1, 100_000, 65_536, 65_537, 300_000, 10]
        );
    }
}

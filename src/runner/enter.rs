//! The way into the sandbox: PID 1 of fresh namespaces builds its own small world, then becomes
//! the command.
//!
//! It runs as root of a user namespace (under `runner enclose`), mounts only what the allow-list names into an empty root, pivots into it and drops the old
//! one. What is not named is not there: no home, no other build, no state, no credentials.

use std::ffi::CString;
use std::fs;
use std::io::{self, PipeWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_remount, unmount,
};
use rustix::process::{Resource, Rlimit, pivot_root, setrlimit};
use serde::{Deserialize, Serialize};

use super::core_dumps;

/// What the sandbox consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// An empty directory on which the new root is mounted.
    pub root: PathBuf,
    /// What is there, at its own path.
    pub binds: Vec<Bind>,
    /// Directories that must exist and are empty (the user's home).
    pub empty: Vec<PathBuf>,
    /// Directories that are in memory, and gone with the sandbox.
    pub memory: Vec<PathBuf>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Processes at most.
    pub processes: u64,
    /// Whether nothing may gain privileges by starting a program; the filter over system calls
    /// hangs on it (seccomp(2)).
    pub no_new_privileges: bool,
    /// Written before the last command starts: what fails before is not that command's fault.
    pub reached: PathBuf,
    /// Run in order until one fails; the last one's status is the sandbox's.
    pub commands: Vec<Vec<String>>,
}

/// One thing that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Its path inside.
    pub path: PathBuf,
    /// Its path outside, where that is another.
    pub source: Option<PathBuf>,
    /// Whether it may be written to.
    pub writable: bool,
    /// A directory for what is written to it, where that reaches nobody else: an overlay, or where there can be none,
    /// nothing may be written.
    pub over: Option<PathBuf>,
    /// Whether it may be missing.
    pub optional: bool,
}

/// Devices of the sandbox, beside `pts` and `shm`.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "fuse"];

/// Options of a directory in memory.
const IN_MEMORY: &std::ffi::CStr = c"mode=0700,size=64m";

/// Enters the sandbox and becomes the last command. Returns only when that fails.
///
/// # Errors
/// Names the step that failed.
pub fn enter(spec: &Spec) -> io::Result<std::convert::Infallible> {
    let root = &spec.root;
    step("mount the root", || {
        mount_tmpfs(root, c"mode=0755,size=64m")
    })?;
    for bind in &spec.binds {
        step(&format!("bind {}", bind.path.display()), || {
            bind_into(root, bind)
        })?;
    }
    for dir in &spec.empty {
        step(&format!("make {}", dir.display()), || {
            fs::create_dir_all(under(root, dir))
        })?;
    }
    for dir in &spec.memory {
        step(&format!("mount {}", dir.display()), || {
            let target = under(root, dir);
            fs::create_dir_all(&target)?;
            // A runtime that mounts something of it elsewhere knows of no flags that it would have to repeat.
            let flags = MountFlags::empty();
            Ok(mount("tmpfs", &target, "tmpfs", flags, Some(IN_MEMORY))?)
        })?;
    }
    for dir in ["tmp", "var/tmp", "run"] {
        fs::create_dir_all(root.join(dir))?;
    }
    step("make /dev", || make_dev(root))?;
    step("mount /proc", || {
        fs::create_dir_all(root.join("proc"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Ok(mount(
            "proc",
            root.join("proc"),
            "proc",
            flags,
            None::<&std::ffi::CStr>,
        )?)
    })?;
    step("change the root", || {
        let old = root.join("old");
        fs::create_dir(&old)?;
        std::env::set_current_dir(root)?;
        pivot_root(".", "old")?;
        std::env::set_current_dir("/")?;
        unmount("/old", UnmountFlags::DETACH)?;
        fs::remove_dir("/old")
    })?;
    step("set limits", || {
        core_dumps::forbid()?;
        limit(Resource::Nproc, spec.processes)
    })?;
    if spec.no_new_privileges {
        step("close system calls", super::seccomp::enforce)?;
    }
    std::env::set_current_dir(&spec.cwd)?;
    step("wait for the network", pass)?;
    let (last, first) = spec
        .commands
        .split_last()
        .ok_or_else(|| io::Error::other("the sandbox has no command"))?;
    for argv in first {
        // Only the last command's output is the caller's business; errors go to stderr.
        let status = step("start", || {
            command(spec, argv)?.stdout(Stdio::null()).status()
        })?;
        if !status.success() {
            std::process::exit(status.code().unwrap_or(125));
        }
    }
    step("begin", || fs::write(&spec.reached, b""))?;
    Err(step("start", || -> io::Result<io::Error> {
        Ok(command(spec, last)?.exec())
    })?)
}

/// Lets whoever waits in [`pass`] go on; its standard input is the other end of the pipe.
///
/// # Errors
/// When nobody waits there any more.
pub fn open(mut gate: PipeWriter) -> io::Result<()> {
    match gate.write_all(b"go") {
        // It has failed before: its exit status tells.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Waits for the word of [`open`] on standard input.
///
/// # Errors
/// When it will never come.
pub fn pass() -> io::Result<()> {
    io::stdin().read_exact(&mut [0; 2])
}

fn step<T>(what: &str, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    f().map_err(|error| io::Error::new(error.kind(), format!("sandbox: cannot {what}: {error}")))
}

fn command(spec: &Spec, argv: &[String]) -> io::Result<Command> {
    let (program, args) = argv
        .split_first()
        .ok_or_else(|| io::Error::other("an empty command"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .env_clear()
        .envs(spec.env.iter().map(|(k, v)| (k, v)));
    Ok(command)
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let value = Some(value);
    Ok(setrlimit(
        resource,
        Rlimit {
            current: value,
            maximum: value,
        },
    )?)
}

fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn mount_tmpfs(target: &Path, data: &std::ffi::CStr) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", target, "tmpfs", flags, Some(data))?)
}

fn bind_into(root: &Path, bind: &Bind) -> io::Result<()> {
    let outside = bind.source.as_ref().unwrap_or(&bind.path);
    let metadata = match fs::symlink_metadata(outside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && bind.optional => return Ok(()),
        other => other?,
    };
    let target = under(root, &bind.path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    // /bin and its kin are links into /usr on today's systems; anything else is followed.
    if metadata.is_symlink() && outside.parent() == Some(Path::new("/")) {
        return symlink(fs::read_link(outside)?, &target);
    }
    let source = match fs::canonicalize(outside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && bind.optional => return Ok(()),
        other => other?,
    };
    if source.is_dir() {
        fs::create_dir_all(&target)?;
    } else if !target.exists() {
        fs::File::create(&target)?;
    }
    if let Some(over) = &bind.over {
        match overlay(&source, over, &target) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!(
                "nothing can be laid over {}, so it is read-only: {error}",
                bind.path.display()
            ),
        }
    }
    mount_bind_recursive(&source, &target)?;
    if !bind.writable {
        read_only(&target)?;
    }
    Ok(())
}

/// Mounts `lower` with what is written to it in `over`, which is emptied before.
fn overlay(lower: &Path, over: &Path, target: &Path) -> io::Result<()> {
    if over.exists() {
        fs::remove_dir_all(over)?;
    }
    let mut options = b"userxattr".to_vec();
    let places = [
        ("lowerdir", lower.to_owned()),
        ("upperdir", over.join("upper")),
        ("workdir", over.join("work")),
    ];
    for (name, place) in places {
        fs::create_dir_all(&place)?;
        options.extend(format!(",{name}=").bytes());
        for byte in place.as_os_str().as_bytes() {
            // What separates options and layers (Documentation/filesystems/overlayfs.rst).
            if matches!(byte, b'\\' | b',' | b':') {
                options.push(b'\\');
            }
            options.push(*byte);
        }
    }
    let options = CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount(
        "overlay",
        target,
        "overlay",
        flags,
        Some(options.as_c_str()),
    )?)
}

/// Remounts read-only; the flags of the mount it came from are locked and must be repeated.
fn read_only(target: &Path) -> io::Result<()> {
    let now = rustix::fs::statvfs(target)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (have, want) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if now.contains(have) {
            flags |= want;
        }
    }
    Ok(mount_remount(target, flags, c"")?)
}

fn make_dev(root: &Path) -> io::Result<()> {
    let dev = root.join("dev");
    fs::create_dir_all(&dev)?;
    mount(
        "tmpfs",
        &dev,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"mode=0755,size=1m"),
    )?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        if source.exists() {
            let target = dev.join(name);
            fs::File::create(&target)?;
            mount_bind(&source, &target)?;
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(name))?;
    }
    let none = MountFlags::NOSUID | MountFlags::NOEXEC;
    for dir in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(dir))?;
    }
    mount(
        "devpts",
        dev.join("pts"),
        "devpts",
        none,
        Some(c"newinstance,ptmxmode=0666,mode=0620"),
    )?;
    mount_tmpfs(&dev.join("shm"), c"mode=1777,size=64m")?;
    // The runtime mounts its own; a kernel without message queues is no reason to fail.
    let _ = mount(
        "mqueue",
        dev.join("mqueue"),
        "mqueue",
        none | MountFlags::NODEV,
        None::<&std::ffi::CStr>,
    );
    Ok(())
}

//! A container around the runner: what it may take away from a sandbox within it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::probe::{TUN, find};

/// Where Docker and Podman tell that this is a container.
const SIGNS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// What the surroundings of this process are, as far as they decide whether a sandbox holds: the same
/// directory may serve builds in a container and outside of it.
pub fn surroundings() -> String {
    let privileges = lines("/proc/self/status", |line| {
        ["CapBnd:", "NoNewPrivs:", "Seccomp:"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    let ids = lines("/proc/self/uid_map", |_| true);
    format!("{privileges:?} {ids:?} {:?}", mounts_on_proc())
}

/// What a container should have been given if this process runs in one, as further words of a hint. It may
/// not be privileged, but its runtime must leave room for a sandbox in it. `state` is a directory for builds.
pub fn lacking(state: &Path) -> String {
    // Machines that were made of a container's image bear the sign, too.
    if !SIGNS.iter().any(|sign| Path::new(sign).exists()) {
        return String::new();
    }
    let needs = [
        (
            "--security-opt seccomp=unconfined",
            !lines("/proc/self/status", |line| line == "Seccomp:\t2").is_empty(),
        ),
        (
            "--security-opt systempaths=unconfined",
            !mounts_on_proc().is_empty(),
        ),
        ("--device /dev/net/tun", !Path::new(TUN).exists()),
        ("a volume for the state directory", is_overlay(state)),
        (
            "newuidmap and newgidmap with file capabilities instead of setuid (chmod u-s; setcap cap_setuid=ep and cap_setgid=ep)",
            ["newuidmap", "newgidmap"]
                .iter()
                .any(|tool| is_setuid(tool)),
        ),
    ];
    let lacks: Vec<&str> = (needs.iter())
        .filter(|(_, lacks)| *lacks)
        .map(|(need, _)| *need)
        .collect();
    if lacks.is_empty() {
        return String::new();
    }
    format!(" If this is a container, it lacks: {}.", lacks.join(", "))
}

/// The kernel lets a process map further ids only when it is the owner of the namespace, which a program
/// with setuid is not, or has CAP_SYS_ADMIN (user_namespaces(7)), which a container's root has not.
fn is_setuid(tool: &str) -> bool {
    find(tool)
        .and_then(|path| fs::metadata(path).ok())
        .is_some_and(|metadata| metadata.permissions().mode() & 0o4000 != 0)
}

/// An overlay cannot lie on another one.
fn is_overlay(dir: &Path) -> bool {
    // linux/magic.h, OVERLAYFS_SUPER_MAGIC.
    rustix::fs::statfs(dir).is_ok_and(|of| of.f_type == 0x794c_7630)
}

/// What is masked of /proc keeps the kernel from giving a new one (mount_namespaces(7)).
fn mounts_on_proc() -> Vec<String> {
    lines("/proc/self/mounts", |line| {
        line.split(' ')
            .nth(1)
            .is_some_and(|place| place.starts_with("/proc/"))
    })
}

fn lines(file: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter(|line| wanted(line))
        .map(str::to_owned)
        .collect()
}

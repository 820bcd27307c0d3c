//! A container around the runner: what it may take away from a sandbox within it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

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
    let mounts = mounts();
    format!(
        "{privileges:?} {ids:?} {:?} {}",
        masks_of_proc(&mounts),
        has_whole_proc(&mounts)
    )
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
            "--security-opt seccomp=unconfined (or the profile nomad/seccomp.json)",
            !lines("/proc/self/status", |line| line == "Seccomp:\t2").is_empty()
                && !may_make_namespaces(),
        ),
        (
            "--security-opt systempaths=unconfined (or a second /proc, as in nomad/build-docker.nomad.hcl)",
            !has_whole_proc(&mounts()),
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

/// Whether the filter over this process leaves room for namespaces.
fn may_make_namespaces() -> bool {
    // This process has threads, and such a one may not (unshare(2)).
    Command::new("unshare")
        .args(["--user", "--mount", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mount {
    /// What of the file system is there.
    root: String,
    place: String,
    kind: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, of) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(3).map(str::to_owned);
        Some(Self {
            root: words.next()?,
            place: words.next()?,
            kind: of.split(' ').next()?.to_owned(),
        })
    }

    fn is_below(&self, other: &Self) -> bool {
        (self.place.strip_prefix(&other.place)).is_some_and(|rest| rest.starts_with('/'))
    }
}

fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(Mount::parse).collect()
}

/// Where something is mounted over parts of /proc. It keeps the kernel from giving a new one (mount_namespaces(7)).
fn masks_of_proc(mounts: &[Mount]) -> Vec<&str> {
    (mounts.iter().map(|mount| mount.place.as_str()))
        .filter(|place| place.starts_with("/proc/"))
        .collect()
}

/// Whether there is a whole /proc, wherever: then the kernel gives a new one all the same.
fn has_whole_proc(mounts: &[Mount]) -> bool {
    mounts.iter().any(|one| {
        one.kind == "proc" && one.root == "/" && !mounts.iter().any(|other| other.is_below(one))
    })
}

fn lines(file: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter(|line| wanted(line))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_proc_beside_a_masked_one_is_enough() {
        let masked = [
            "24 1 0:31 / / rw,relatime - overlay overlay rw",
            "25 24 0:40 / /proc rw,nosuid - proc proc rw",
            "26 25 0:40 /bus /proc/bus ro,nosuid - proc proc rw",
            "27 25 0:41 / /proc/kcore rw - tmpfs tmpfs rw",
        ];
        let parse = |lines: &[&str]| -> Vec<Mount> {
            lines
                .iter()
                .map(|line| Mount::parse(line).unwrap())
                .collect()
        };
        let mounts = parse(&masked);
        assert_eq!(masks_of_proc(&mounts), ["/proc/bus", "/proc/kcore"]);
        assert!(!has_whole_proc(&mounts));
        let second = "28 24 0:21 / /run/proc rw - proc proc rw,hidepid=invisible";
        assert!(has_whole_proc(&parse(&[&masked[..], &[second]].concat())));
        assert!(has_whole_proc(&parse(&masked[..2])));
    }
}

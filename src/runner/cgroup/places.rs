//! Where this process may make cgroups: its own place in each hierarchy.
//!
//! From `/proc/self/cgroup` (cgroups(7)) and `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::fs;
use std::path::{Path, PathBuf};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// The number of processes and threads.
    Pids,
    /// Time of processors.
    Cpu,
}

impl Controller {
    /// Each of them.
    pub const ALL: [Controller; 3] = [Controller::Memory, Controller::Pids, Controller::Cpu];

    /// The kernel's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Cpu => "cpu",
        }
    }
}

/// The cgroups that this process is in, as directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// In the unified hierarchy (version 2).
    pub unified: Option<PathBuf>,
    /// In the hierarchies of version 1, each of which has controllers of its own.
    legacy: Vec<(Controller, PathBuf)>,
}

impl Places {
    /// Those of this process; empty where the kernel does not tell.
    pub fn of_this_process() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    /// The same from the texts of the two files.
    pub fn parse(cgroup: &str, mountinfo: &str) -> Self {
        let own = |is_it: &dyn Fn(&str) -> bool| {
            cgroup.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                is_it(controllers).then_some(path)
            })
        };
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let has = |list: &str, name: &str| list.split(',').any(|one| one == name);
        let directory = |kind: &str, option: Option<&str>, path: &str| {
            (mounts.iter())
                .filter(|mount| mount.kind == kind)
                .filter(|mount| option.is_none_or(|name| has(mount.options, name)))
                .find_map(|mount| mount.directory_of(path))
        };
        let legacy = |controller: Controller| {
            let path = own(&|list| has(list, controller.name()))?;
            let directory = directory("cgroup", Some(controller.name()), path)?;
            Some((controller, directory))
        };
        Self {
            unified: own(&str::is_empty).and_then(|path| directory("cgroup2", None, path)),
            legacy: Controller::ALL.into_iter().filter_map(legacy).collect(),
        }
    }

    /// The place in the hierarchy of version 1 that has this controller.
    pub fn legacy(&self, controller: Controller) -> Option<&Path> {
        let mut all = self.legacy.iter();
        all.find(|(one, _)| *one == controller)
            .map(|(_, path)| path.as_path())
    }

    /// Every directory, each once.
    pub fn all(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.unified.iter().map(PathBuf::as_path).collect();
        for (_, path) in &self.legacy {
            if !all.contains(&path.as_path()) {
                all.push(path);
            }
        }
        all
    }
}

/// A line of mountinfo.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `31 23 0:28 ROOT POINT rw,relatime … - KIND SOURCE OPTIONS`
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let mut back = back.split(' ');
        Some(Self {
            root: unescape(front.next()?),
            point: unescape(front.next()?),
            kind: back.next()?,
            options: back.nth(1).unwrap_or_default(),
        })
    }

    /// Where the cgroup `path` is seen through this mount; not every mount shows every cgroup.
    fn directory_of(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        // Outside of the cgroup namespace, the kernel writes "..".
        let leads_out = |part| part == std::path::Component::ParentDir;
        (!below.components().any(leads_out)).then(|| {
            let mut directory = self.point.clone();
            directory.extend(below);
            directory
        })
    }
}

/// Blanks and the like are written as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host() {
        let places = Places::parse(
            "9:name=systemd:/\n8:pids:/\n4:memory:/own/a b\n2:cpu,cpuacct:/x\n0::/u\n",
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/my\\040memory rw,relatime shared:3 - cgroup cgroup rw,memory\n\
             39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        let legacy = |controller| places.legacy(controller).map(|path| path.to_str().unwrap());
        assert_eq!(
            legacy(Controller::Memory),
            Some("/sys/fs/cgroup/my memory/own/a b")
        );
        assert_eq!(legacy(Controller::Pids), Some("/sys/fs/cgroup/pids"));
        assert_eq!(
            legacy(Controller::Cpu),
            Some("/sys/fs/cgroup/cpu,cpuacct/x")
        );
        assert_eq!(
            places.unified.as_deref(),
            Some(Path::new("/sys/fs/cgroup/unified/u"))
        );
        assert_eq!(places.all().len(), 4);
    }

    #[test]
    fn a_unified_host_and_one_where_part_is_shown() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let places = Places::parse("0::/user.slice/a.scope\n", mounts);
        assert_eq!(
            places.all(),
            [Path::new("/sys/fs/cgroup/user.slice/a.scope")]
        );
        let part = "30 23 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup ro\n";
        let places = Places::parse("0::/docker/1/x\n", part);
        assert_eq!(places.all(), [Path::new("/sys/fs/cgroup/x")]);
        for (own, mounts) in [
            ("0::/docker/2\n", part),
            ("0::/../..\n", mounts),
            ("", mounts),
            ("0::/\n", ""),
            ("rubbish\n4:memory:/\n", "rubbish\n1 2 - cgroup\n"),
        ] {
            assert_eq!(Places::parse(own, mounts), Places::default(), "{own}");
        }
    }
}

//! The cgroup as its maker has it: made, joined, removed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::build::BuildId;
use crate::runner::settings::Limits;

use super::{Cgroup, Controller, Places};

/// What the names of all cgroups of builds begin with.
const PREFIX: &str = "nomad-build-";
/// Where this process goes when it must leave its own cgroup to its children.
const ASIDE: &str = "nomad-build-job";
/// How long killed processes may take to vanish.
const VANISH: Duration = Duration::from_secs(15);
/// Microseconds within which a quota of CPU time is counted (the kernel's default).
const PERIOD: f64 = 100_000.0;

/// A cgroup with the locks that tell others that its maker lives.
#[derive(Debug, Default)]
pub struct Held {
    cgroup: Cgroup,
    _locks: Vec<File>,
}

impl Held {
    /// Makes the cgroup of the build `id`, with its limits, in every hierarchy that allows it.
    pub fn make(places: &Places, id: &BuildId, limits: &Limits) -> Self {
        let enabled = places.unified.as_deref().map(enable).unwrap_or_default();
        let mut held = Self::default();
        for controller in Controller::ALL {
            let unified = (places.unified.as_deref())
                .filter(|_| enabled.iter().any(|one| one == controller.name()));
            let Some(parent) = places.legacy(controller).or(unified) else {
                continue;
            };
            let dir = parent.join(format!("{PREFIX}{id}"));
            if let Err(error) = held
                .add(&dir)
                .and_then(|()| limit(&dir, controller, limits))
            {
                tracing::info!(%error, dir = %dir.display(), "{} is not limited", controller.name());
            }
        }
        held
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        if !self.cgroup.dirs.iter().any(|one| one == dir) {
            self._locks.push(make_locked(dir)?);
            self.cgroup.dirs.push(dir.to_owned());
        }
        Ok(())
    }

    /// The cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Puts a process in, with all its threads; what it starts afterwards is in, too.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self, pid: u32) -> io::Result<()> {
        for dir in &self.cgroup.dirs {
            put(dir, pid)?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// Kills what is still in it, and removes it. Blocks until all is gone.
    ///
    /// # Errors
    /// When something remains.
    pub fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + VANISH;
        for dir in &self.dirs {
            loop {
                match remove_dir(dir) {
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) => kill_all(dir),
                    Ok(()) => break,
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Places {
    /// Removes the cgroups of builds whose maker died, as long as no process is in them.
    pub fn sweep(&self) {
        for dir in self.all() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
                if id.is_some_and(|id| id.parse::<BuildId>().is_ok()) {
                    let _ = sweep_one(&entry.path());
                }
            }
        }
    }
}

fn sweep_one(dir: &Path) -> io::Result<()> {
    let _lock = lock(dir)?;
    remove_dir(dir)
}

/// Removes a cgroup and those below it; the kernel refuses where a process is in one.
fn remove_dir(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_dir(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn kill_all(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_all(&entry.path());
        }
    }
    let all = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in all.lines().filter_map(|line| line.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn lock(dir: &Path) -> io::Result<File> {
    let file = File::open(dir)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes a directory and locks it; a sweep may take it away in between.
fn make_locked(dir: &Path) -> io::Result<File> {
    for _ in 0..100 {
        make_dir(dir)?;
        match lock(dir) {
            Ok(file) if fs::metadata(dir).is_ok_and(|now| is_same(&now, &file)) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Err(io::Error::other(format!(
        "another process has {}",
        dir.display()
    )))
}

fn is_same(now: &fs::Metadata, file: &File) -> bool {
    file.metadata()
        .is_ok_and(|then| (then.dev(), then.ino()) == (now.dev(), now.ino()))
}

/// Lets the children of a cgroup of version 2 have controllers; returns those they have.
fn enable(dir: &Path) -> Vec<String> {
    let words = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let (available, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
    for name in Controller::ALL.map(Controller::name) {
        let missing = !enabled.iter().any(|one| one == name);
        if missing && available.iter().any(|one| one == name) {
            let add = || write(dir, "cgroup.subtree_control", &format!("+{name}"));
            let busy = add().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
            if busy && step_aside(dir).is_ok() {
                let _ = add();
            }
        }
    }
    words("cgroup.subtree_control")
}

/// A cgroup has processes, or children with controllers, but not both (cgroups(7), "no internal
/// processes"). When this process is alone in it, as in a scope of its own, it can make room.
fn step_aside(dir: &Path) -> io::Result<()> {
    let own = std::process::id();
    let inside = fs::read_to_string(dir.join("cgroup.procs"))?;
    if inside.trim() != own.to_string() {
        return Err(io::Error::other("other processes are in this cgroup"));
    }
    let aside = dir.join(ASIDE);
    make_dir(&aside)?;
    put(&aside, own)
}

fn put(dir: &Path, pid: u32) -> io::Result<()> {
    write(dir, "cgroup.procs", &pid.to_string())
}

fn limit(dir: &Path, controller: Controller, limits: &Limits) -> io::Result<()> {
    let has = |file: &str| dir.join(file).exists();
    match controller {
        Controller::Memory => {
            let Some(bytes) = limits.memory_bytes.map(|bytes| bytes.to_string()) else {
                return Ok(());
            };
            if has("memory.max") {
                write(dir, "memory.max", &bytes)?;
                // One process is killed, not all of them: the build can say what happened.
                for (file, value) in [("memory.swap.max", "0"), ("memory.oom.group", "0")] {
                    if has(file) {
                        write(dir, file, value)?;
                    }
                }
                return Ok(());
            }
            write(dir, "memory.limit_in_bytes", &bytes)?;
            // Memory and swap together; must not be below the limit of memory alone.
            if has("memory.memsw.limit_in_bytes") {
                write(dir, "memory.memsw.limit_in_bytes", &bytes)?;
            }
            Ok(())
        }
        Controller::Pids => write(dir, "pids.max", &limits.processes.to_string()),
        Controller::Cpu => {
            let Some(cpus) = limits.cpus else {
                return Ok(());
            };
            let quota = (cpus * PERIOD).round();
            if has("cpu.max") {
                return write(dir, "cpu.max", &format!("{quota} {PERIOD}"));
            }
            write(dir, "cpu.cfs_period_us", &PERIOD.to_string())?;
            write(dir, "cpu.cfs_quota_us", &quota.to_string())
        }
    }
}

/// Writes one of the kernel's files, which must be there.
fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    use io::Write;
    let path: PathBuf = dir.join(file);
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy as the kernel would show it, where nothing counts or limits.
    struct Fake {
        root: tempfile::TempDir,
        id: BuildId,
    }

    impl Fake {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
                id: BuildId::from_random([3; 16]),
            }
        }

        fn file(&self, path: &str, text: &str) -> &Self {
            let path = self.root.path().join(path.replace("ID", self.id.as_str()));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn text(&self, path: &str) -> String {
            let path = path.replace("ID", self.id.as_str());
            fs::read_to_string(self.root.path().join(path)).unwrap()
        }

        fn places(&self, cgroup: &str, mounts: &[(&str, &str, &str)]) -> Places {
            let root = self.root.path().display();
            let lines = mounts.iter().map(|(point, kind, options)| {
                format!("1 2 0:3 / {root}{point} rw - {kind} none {options}\n")
            });
            Places::parse(cgroup, &lines.collect::<String>())
        }
    }

    fn limits() -> Limits {
        Limits {
            memory_bytes: Some(1 << 30),
            cpus: Some(1.5),
            processes: 512,
            ..Limits::default()
        }
    }

    #[test]
    fn version_2() {
        let fake = Fake::new();
        fake.file("own/cgroup.controllers", "cpuset cpu io memory pids\n")
            .file("own/cgroup.subtree_control", "cpu memory pids\n");
        for file in [
            "memory.max",
            "memory.swap.max",
            "memory.oom.group",
            "pids.max",
            "cpu.max",
            "cgroup.procs",
        ] {
            fake.file(&format!("own/nomad-build-ID/{file}"), "");
        }
        let places = fake.places("0::/own\n", &[("", "cgroup2", "rw")]);
        let held = Held::make(&places, &fake.id, &limits());
        assert_eq!(held.cgroup().dirs().len(), 1);
        let text = |file: &str| fake.text(&format!("own/nomad-build-ID/{file}"));
        assert_eq!(text("memory.max"), "1073741824");
        assert_eq!(
            (text("memory.swap.max"), text("memory.oom.group")),
            ("0".into(), "0".into())
        );
        assert_eq!(
            (text("pids.max"), text("cpu.max")),
            ("512".into(), "150000 100000".into())
        );
        assert_eq!(held.cgroup().unenforced(&limits()), Vec::<&str>::new());
        held.join(7).unwrap();
        assert_eq!(text("cgroup.procs"), "7");
    }

    #[test]
    fn version_1() {
        let fake = Fake::new();
        let files = [
            "memory/own/nomad-build-ID/memory.limit_in_bytes",
            "memory/own/nomad-build-ID/memory.memsw.limit_in_bytes",
            "pids/nomad-build-ID/pids.max",
            "cpu/nomad-build-ID/cpu.cfs_period_us",
            "cpu/nomad-build-ID/cpu.cfs_quota_us",
        ];
        for file in files {
            fake.file(file, "");
        }
        let places = fake.places(
            "3:memory:/own\n2:pids:/\n1:cpu:/\n0::/\n",
            &[
                ("/memory", "cgroup", "rw,memory"),
                ("/pids", "cgroup", "rw,pids"),
                ("/cpu", "cgroup", "rw,cpu"),
            ],
        );
        let held = Held::make(&places, &fake.id, &limits());
        assert_eq!(held.cgroup().dirs().len(), 3);
        let bytes = "1073741824";
        assert_eq!(
            files.map(|file| fake.text(file)),
            [bytes, bytes, "512", "100000", "150000"]
        );
        assert_eq!(held.cgroup().unenforced(&limits()), Vec::<&str>::new());
    }

    #[test]
    fn what_is_not_allowed_is_not_enforced_and_no_error() {
        let fake = Fake::new();
        // Without delegation the children have no controllers; here one of three.
        fake.file("cgroup.controllers", "pids\n")
            .file("cgroup.subtree_control", "pids\n")
            .file("nomad-build-ID/pids.max", "");
        let places = fake.places("0::/\n", &[("", "cgroup2", "rw")]);
        let held = Held::make(&places, &fake.id, &limits());
        assert_eq!(held.cgroup().unenforced(&limits()), ["memory", "cpu"]);
        assert_eq!(fake.text("nomad-build-ID/pids.max"), "512");
        let nowhere = fake.places("0::/gone\n", &[("", "cgroup2", "rw")]);
        let held = Held::make(&nowhere, &fake.id, &limits());
        assert_eq!(held.cgroup(), &Cgroup::default());
        held.join(1).unwrap();
        held.cgroup().remove().unwrap();
    }

    #[test]
    fn only_who_is_alone_makes_room() {
        let fake = Fake::new();
        let own = std::process::id();
        fake.file("nomad-build-job/cgroup.procs", "")
            .file("cgroup.procs", &format!("1\n{own}\n"));
        step_aside(fake.root.path()).unwrap_err();
        assert_eq!(fake.text("nomad-build-job/cgroup.procs"), "");
        fake.file("cgroup.procs", &format!("{own}\n"));
        step_aside(fake.root.path()).unwrap();
        assert_eq!(fake.text("nomad-build-job/cgroup.procs"), own.to_string());
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds() {
        let fake = Fake::new();
        fake.file("cgroup.subtree_control", "memory pids cpu\n");
        let places = fake.places("0::/\n", &[("", "cgroup2", "rw")]);
        let [dead, other, busy] = [4u8, 5, 6].map(|n| BuildId::from_random([n; 16]));
        let path = |id: &BuildId| fake.root.path().join(format!("{PREFIX}{id}"));
        // Files that cannot be written: the directories are made all the same.
        let held = Held::make(&places, &fake.id, &limits());
        drop(Held::make(&places, &dead, &limits()));
        drop(Held::make(&places, &busy, &limits()));
        fs::write(path(&busy).join("holds-it"), "").unwrap();
        fs::create_dir(path(&dead).join("below")).unwrap();
        fs::create_dir(fake.root.path().join("nomad-build-job")).unwrap();
        fs::create_dir(fake.root.path().join(format!("x-{other}"))).unwrap();
        places.sweep();
        assert!(path(&fake.id).exists() && path(&busy).exists() && !path(&dead).exists());
        assert_eq!(fs::read_dir(fake.root.path()).unwrap().count(), 5);
        held.cgroup().remove().unwrap();
        assert!(!path(&fake.id).exists());
    }
}

//! The lab of the local backend: one state directory below /tmp.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use nomad_build::backend::local::LocalBackend;
use nomad_build::build::{BuildId, Plan};
use nomad_build::config::Config;

use crate::known::Known;
use crate::lab::{Knobs, Lab, PATIENCE, Victim, private_of};
use crate::processes::{self, Process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nomad-build");

static KNOWN: Known = Known::new();

/// See [`Lab`].
pub struct LocalLab {
    config: Config,
    dir: TempDir,
}

impl LocalLab {
    fn build_dir(&self, id: &BuildId) -> PathBuf {
        self.config.state_dir.join("b").join(id.as_str())
    }

    fn jobs(&self, id: &BuildId) -> Vec<Process> {
        let mut list = processes::all();
        list.retain(|process| self.is_job(id, process));
        list
    }

    fn is_job(&self, id: &BuildId, process: &Process) -> bool {
        let dir = self.build_dir(id).display().to_string();
        process.runs(&["runner", "job", "--dir", &dir])
    }

    fn victims(&self, id: &BuildId, victim: Victim) -> Vec<Process> {
        match victim {
            Victim::Job => self.jobs(id),
            Victim::Runner => {
                let work = self.build_dir(id).join("work").display().to_string();
                let mut list = processes::all();
                list.retain(|process| process.runs(&["--work", &work]));
                list
            }
            Victim::All => {
                let mut list = processes::all();
                list.retain(|process| process.mentions(id.as_str()));
                list
            }
        }
    }
}

impl Lab for LocalLab {
    type Server = LocalBackend;

    const BUSY: (&'static str, &'static str) = ("slots_busy", "slots");

    fn new(knobs: Knobs) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("nomad-build-contract-")
            .tempdir_in("/tmp")
            .unwrap();
        // The user that builds run as must pass through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut config = Config {
            state_dir: dir.path().join("state"),
            ..Config::default()
        };
        config.local.slots = knobs.slots;
        config.local.keep_builds = knobs.keep_builds;
        config.registry.insecure = knobs.insecure;
        config.git.allow_http = true;
        if let Some(log_mb) = knobs.log_mb {
            config.limits.log_mb = log_mb;
        }
        KNOWN.give(&config.state_dir);
        Self { config, dir }
    }

    fn server(&self) -> LocalBackend {
        LocalBackend::open(self.config.clone())
            .expect("scripts/setup.sh prepares this machine")
            .with_program(PROGRAM.into())
    }

    fn plan(&self, id: &BuildId) -> Plan {
        let bytes = fs::read(self.build_dir(id).join("plan.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn kill(&self, id: &BuildId, victim: Victim) {
        let victims = self.victims(id, victim);
        assert!(!victims.is_empty(), "there is no {victim:?}");
        for process in victims {
            process.signal(Signal::KILL);
        }
    }

    fn terminate(&self, id: &BuildId) {
        // Before it has its handler, SIGTERM would only be another SIGKILL.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.jobs(id).as_slice() {
                [job] if job.catches(Signal::TERM) => return job.signal(Signal::TERM),
                jobs => assert!(Instant::now() < deadline, "{jobs:?}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn freeze(&self, id: &BuildId) {
        for job in self.jobs(id) {
            job.signal(Signal::STOP);
        }
    }

    fn thaw(&self, id: &BuildId) {
        for job in self.jobs(id) {
            job.signal(Signal::CONT);
        }
    }

    async fn run_again(&self, id: &BuildId) {
        let run = tokio::process::Command::new(PROGRAM)
            .args(["runner", "job", "--dir"])
            .arg(self.build_dir(id))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status();
        let _ = tokio::time::timeout(PATIENCE, run)
            .await
            .expect("a second job does not end");
    }

    fn remains(&self, id: &BuildId) -> Vec<String> {
        // The job itself goes on to sweep the cache; there is nothing of the build in it, nor in the
        // copy of it that is about to become the sweep.
        let mut found: Vec<String> = processes::all()
            .iter()
            .filter(|process| process.mentions(id.as_str()) && !self.is_job(id, process))
            .map(|process| format!("{process:?}"))
            .collect();
        let dir = self.build_dir(id);
        for name in ["work", "context.tar"] {
            if dir.join(name).exists() {
                found.push(dir.join(name).display().to_string());
            }
        }
        for entry in fs::read_dir(self.config.state_dir.join("queue")).unwrap() {
            let ticket = entry.unwrap().path();
            if ticket.display().to_string().ends_with(id.as_str()) {
                found.push(ticket.display().to_string());
            }
        }
        found.extend(processes::mounts_below(&dir));
        found.extend(private_of(id));
        found
    }

    fn staged(&self) -> Vec<String> {
        fs::read_dir(self.config.state_dir.join("staging"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn explain(&self, id: &BuildId) -> String {
        ["log.ndjson", "runner.log"]
            .map(|name| {
                let text = fs::read_to_string(self.build_dir(id).join(name));
                format!("--- {name}\n{}", text.unwrap_or_default())
            })
            .concat()
    }
}

impl Drop for LocalLab {
    fn drop(&mut self) {
        KNOWN.keep(&self.config.state_dir);
        let state = self.config.state_dir.display().to_string();
        let ids: Vec<String> = fs::read_dir(self.config.state_dir.join("b"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let mut left = processes::all();
            left.retain(|one| one.mentions(&state) || ids.iter().any(|id| one.mentions(id)));
            if left.is_empty() {
                break;
            }
            for process in left {
                process.signal(Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if !rustix::process::geteuid().is_root() {
            // Files of subordinate users can be removed only within their user namespace.
            let _ = std::process::Command::new("buildah")
                .args(["unshare", "rm", "-rf", "--"])
                .arg(self.dir.path())
                .status();
        }
    }
}

//! The lab of the Nomad backend: an agent and a registry of its own, the job file that operators get.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use nomad_build::backend::nomad::NomadBackend;
use nomad_build::backend::nomad::payload::Payload;
use nomad_build::build::{BuildId, Plan};
use nomad_build::config::Config;
use nomad_build::nomad::Options;

use crate::agent::{self, Agent};
use crate::known::Known;
use crate::lab::{Knobs, Lab, PATIENCE, Victim, private_of};
use crate::processes::{self, Process};
use crate::registry::Registry;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_nomad-build");
const JOB: &str = include_str!("../../nomad/build-raw-exec.nomad.hcl");
const PARENT: &str = "nomad-build-default";
/// MiB of a build: so many fit into the node as the test wants slots.
const MEMORY: u64 = 1024;

/// Below the directory of the agent: what all builds of a client share.
const CLIENT: &str = "client";
static KNOWN: Known = Known::new();

/// See [`Lab`].
pub struct NomadLab {
    pub config: Config,
    pub agent: Agent,
    /// Namespace of the builds.
    namespace: &'static str,
    /// Token of servers.
    token: String,
    /// Configuration of the tasks.
    tasks: String,
    /// What [`Lab::freeze`] has stopped.
    frozen: Mutex<Vec<Pid>>,
    _registry: Registry,
    dir: TempDir,
}

impl NomadLab {
    /// A place with an agent of this kind.
    pub fn with(knobs: Knobs, agent: agent::Knobs) -> Self {
        let lab = Self::empty(knobs, agent, "default");
        lab.register(&[]);
        lab
    }

    /// A place with access control, where servers and tasks have the rights that operators are told
    /// to give them.
    pub fn with_access_control(knobs: Knobs) -> Self {
        let acl = agent::Knobs {
            acl: true,
            ..agent::Knobs::default()
        };
        let mut lab = Self::empty(knobs, acl, "builds");
        let namespace = json!({"Name": "builds"});
        lab.agent
            .must("POST", "/v1/namespace/builds", Some(&namespace));
        lab.register(&[]);
        let own = |task: &str| {
            Some(json!({"Namespace": "builds", "JobID": PARENT, "Group": "build", "Task": task}))
        };
        lab.policy("server", lab.server_rules(), None);
        lab.policy(
            "build",
            include_str!("../../nomad/policies/build.policy.hcl"),
            own("build"),
        );
        lab.policy(
            "publish",
            include_str!("../../nomad/policies/publish.policy.hcl"),
            own("publish"),
        );
        lab.policy(
            "archive",
            include_str!("../../nomad/policies/archive.policy.hcl"),
            own("archive"),
        );
        lab.token = lab.token_of("server");
        lab
    }

    fn server_rules(&self) -> &'static str {
        let agent = self.agent.must("GET", "/v1/agent/self", None);
        let version = agent["config"]["Version"]["Version"].as_str().unwrap();
        let numbers: Vec<u32> = version
            .split(['.', '-'])
            .take(3)
            .map(|n| n.parse().unwrap())
            .collect();
        if numbers < vec![1, 11, 2] {
            include_str!("../../nomad/policies/server-before-1.11.2.policy.hcl")
        } else {
            include_str!("../../nomad/policies/server.policy.hcl")
        }
    }

    fn policy(&self, name: &str, rules: &str, own: Option<Value>) {
        let body = json!({"Name": name, "Rules": rules, "JobACL": own});
        self.agent
            .must("POST", &format!("/v1/acl/policy/{name}"), Some(&body));
    }

    /// A token with the rights of a policy.
    pub fn token_of(&self, policy: &str) -> String {
        let body = json!({"Name": policy, "Type": "client", "Policies": [policy]});
        let token = self.agent.must("POST", "/v1/acl/token", Some(&body));
        token["SecretID"].as_str().unwrap().to_owned()
    }

    /// A place on a cluster that is there, without access control.
    pub fn on(agent: Agent, knobs: Knobs) -> Self {
        let lab = Self::around(agent, knobs, "default");
        lab.register(&[]);
        lab
    }

    fn empty(knobs: Knobs, agent: agent::Knobs, namespace: &'static str) -> Self {
        // Of what is left over no further build can be made.
        let memory = u64::from(knobs.slots) * MEMORY + MEMORY / 2;
        let agent = Agent::start(agent::Knobs {
            memory_mb: agent.memory_mb.or(Some(memory)),
            ..agent
        });
        Self::around(agent, knobs, namespace)
    }

    fn around(agent: Agent, knobs: Knobs, namespace: &'static str) -> Self {
        let registry = Registry::open();
        let dir = tempfile::Builder::new()
            .prefix("nomad-build-contract-")
            .tempdir_in("/tmp")
            .unwrap();
        let mut config = Config {
            state_dir: dir.path().join("state"),
            ..Config::default()
        };
        config.registry.insecure = knobs.insecure;
        config.registry.insecure.push(registry.host.to_string());
        config.git.allow_http = true;
        config.nomad.repository = Some(format!("{}/nomad-build", registry.host));
        config.nomad.keep_builds = knobs.keep_builds;
        config.nomad.namespace = Some(namespace.into());
        // What all builds of a client share is there, and nothing of one of them.
        let shared = agent.dir().join(CLIENT);
        KNOWN.give(&shared);
        let mut tasks = json!({
            "state_dir": shared.display().to_string(),
            "registry": {"insecure": config.registry.insecure},
            "git": {"allow_http": true},
            "nomad": {"repository": config.nomad.repository},
        });
        if let Some(log_mb) = knobs.log_mb {
            tasks["limits"] = json!({"log_mb": log_mb});
        }
        Self {
            config,
            namespace,
            token: String::new(),
            agent,
            tasks: toml::to_string(&tasks).unwrap(),
            frozen: Mutex::default(),
            _registry: registry,
            dir,
        }
    }

    /// A request about something in the namespace of the builds.
    pub fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}namespace={}", self.namespace);
        self.agent.must(method, &path, body)
    }

    /// Neither servers nor tasks have a repository.
    pub fn forget_repository(&mut self) {
        self.config.nomad.repository = None;
        let lines = self.tasks.lines();
        let kept = lines.filter(|line| !line.starts_with("repository"));
        self.tasks = kept.collect::<Vec<_>>().join("\n");
        self.register(&[]);
    }

    /// Registers the job file, with values for some of its variables.
    pub fn register(&self, variables: &[(&str, &str)]) {
        let user = if rustix::process::geteuid().is_root() {
            "root".to_owned()
        } else {
            std::env::var("USER").unwrap()
        };
        let own = [
            ("program", PROGRAM),
            ("config", self.tasks.as_str()),
            ("user", user.as_str()),
            ("namespace", self.namespace),
        ];
        let own = own.iter().filter(|(name, _)| {
            let given = variables.iter().find(|(other, _)| other == name);
            given.is_none()
        });
        let all: Vec<(&str, &str)> = own.chain(variables).copied().collect();
        self.agent.register(JOB, self.namespace, &all);
    }

    /// A server that finds its Nomad at an address.
    pub fn server_at(&self, address: String) -> NomadBackend {
        let options = Options::from_env(|name| match name {
            "NOMAD_ADDR" => Some(address.clone()),
            "NOMAD_TOKEN" => Some(self.token.clone()),
            _ => None,
        });
        NomadBackend::open(self.config.clone(), options.unwrap()).unwrap()
    }

    /// The child jobs of a build.
    pub fn children(&self, id: &BuildId) -> Vec<String> {
        let jobs = self.must("GET", "/v1/jobs?prefix=nomad-build-", None);
        let jobs = jobs.as_array().cloned().unwrap_or_default();
        let mark = format!("/dispatch-{id}-");
        jobs.iter()
            .map(|job| job["ID"].as_str().unwrap().to_owned())
            .filter(|job| job.contains(&mark))
            .collect()
    }

    fn job(&self, id: &str) -> Value {
        let path = format!("/v1/job/{}", id.replace('/', "%2F"));
        self.must("GET", &path, None)
    }

    /// The allocations of a job.
    pub fn allocations(&self, job: &str) -> Vec<Value> {
        let path = format!("/v1/job/{}/allocations", job.replace('/', "%2F"));
        let list = self.must("GET", &path, None);
        list.as_array().cloned().unwrap_or_default()
    }

    fn payload(&self, id: &BuildId) -> Vec<u8> {
        let child = self.children(id).remove(0);
        let text = self.job(&child)["Payload"].as_str().unwrap().to_owned();
        STANDARD.decode(text).unwrap()
    }

    /// The process of the task that runs, whatever it has started.
    fn tasks(&self, id: &BuildId) -> Vec<Process> {
        let mark = format!("NOMAD_JOB_ID={PARENT}/dispatch-{id}-");
        let mut list = processes::all();
        list.retain(|process| {
            process.mentions(&mark)
                && ["build", "publish"]
                    .iter()
                    .any(|task| process.runs(&["runner", "task", task]))
        });
        list
    }

    fn victims(&self, id: &BuildId, victim: Victim) -> Vec<Process> {
        match victim {
            Victim::Job => self.tasks(id),
            Victim::Runner => {
                let mut list = processes::all();
                list.retain(|one| one.mentions(id.as_str()) && one.runs(&["runner", "build"]));
                list
            }
            Victim::All => {
                let mut list = processes::all();
                list.retain(|one| {
                    one.mentions(id.as_str()) && !one.runs(&["runner", "task", "archive"])
                });
                list
            }
        }
    }
}

impl Drop for NomadLab {
    fn drop(&mut self) {
        KNOWN.keep(&self.agent.dir().join(CLIENT));
    }
}

impl Lab for NomadLab {
    type Server = NomadBackend;

    const BUSY: (&'static str, &'static str) = ("no_capacity", "MB of memory free");

    fn new(knobs: Knobs) -> Self {
        Self::with(knobs, agent::Knobs::default())
    }

    fn server(&self) -> NomadBackend {
        self.server_at(self.agent.address())
    }

    fn plan(&self, id: &BuildId) -> Plan {
        let payload = Payload::decode(&self.payload(id)).unwrap();
        payload.plan.expect("a small plan is in the payload")
    }

    fn kill(&self, id: &BuildId, victim: Victim) {
        let victims = self.victims(id, victim);
        assert!(!victims.is_empty(), "there is no {victim:?}");
        for process in victims {
            process.signal(Signal::KILL);
        }
    }

    fn terminate(&self, id: &BuildId) {
        let child = self.children(id).remove(0);
        if self.allocations(&child).is_empty() {
            // Nothing runs: a stranger can but stop the job.
            let path = format!("/v1/job/{}", child.replace('/', "%2F"));
            self.must("DELETE", &path, None);
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.tasks(id).as_slice() {
                [task] if task.catches(Signal::TERM) => return task.signal(Signal::TERM),
                tasks => assert!(Instant::now() < deadline, "{tasks:?}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops what hands signals to the tasks.
    fn freeze(&self, id: &BuildId) {
        for task in self.tasks(id) {
            let executor = Pid::from_raw(task.parent()).unwrap();
            kill_process(executor, Signal::STOP).unwrap();
            self.frozen.lock().unwrap().push(executor);
        }
    }

    fn thaw(&self, _: &BuildId) {
        // By now the tasks may be dead, and not be found any more.
        for executor in self.frozen.lock().unwrap().drain(..) {
            kill_process(executor, Signal::CONT).unwrap();
        }
    }

    async fn run_again(&self, id: &BuildId) {
        let body = json!({
            "Payload": STANDARD.encode(self.payload(id)),
            "IdPrefixTemplate": format!("{id}"),
        });
        let path = format!("/v1/job/{PARENT}/dispatch");
        let answer = self.must("POST", &path, Some(&body));
        let child = answer["DispatchedJobID"].as_str().unwrap().to_owned();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = self.allocations(&child);
            let over = |one: &Value| {
                let tasks = one["TaskStates"].as_object().cloned().unwrap_or_default();
                !tasks.is_empty() && tasks.values().all(|task| task["State"] == "dead")
            };
            if !list.is_empty() && list.iter().all(over) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "a second job does not end: {list:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn remains(&self, id: &BuildId) -> Vec<String> {
        // The task that writes the end still brings the log into the registry.
        let mut found: Vec<String> = processes::all()
            .iter()
            .filter(|one| one.mentions(id.as_str()) && !one.runs(&["runner", "task", "archive"]))
            .map(|process| format!("{process:?}"))
            .collect();
        for child in self.children(id) {
            for allocation in self.allocations(&child) {
                let dir = self.shared(allocation["ID"].as_str().unwrap());
                for name in ["build", "packed"] {
                    if dir.join(name).exists() {
                        found.push(dir.join(name).display().to_string());
                    }
                }
                found.extend(processes::mounts_below(&dir));
            }
        }
        found.extend(private_of(id));
        found
    }

    fn staged(&self) -> Vec<String> {
        fs::read_dir(self.dir.path().join("state/staging"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn explain(&self, id: &BuildId) -> String {
        let mut text = String::new();
        for child in self.children(id) {
            for allocation in self.allocations(&child) {
                text.push_str(&format!("--- {allocation:#}\n"));
                let logs = self
                    .shared(allocation["ID"].as_str().unwrap())
                    .join("../logs");
                for entry in fs::read_dir(logs).into_iter().flatten().flatten() {
                    // There are pipes, too, which nobody writes to any more.
                    if !entry.metadata().is_ok_and(|metadata| metadata.is_file()) {
                        continue;
                    }
                    let said = fs::read_to_string(entry.path()).unwrap_or_default();
                    text.push_str(&format!("--- {}\n{said}", entry.path().display()));
                }
            }
        }
        text
    }
}

impl NomadLab {
    /// What the tasks of an allocation share.
    fn shared(&self, allocation: &str) -> PathBuf {
        let allocations = self.agent.data().join("alloc");
        allocations.join(allocation).join("alloc/data")
    }
}

//! A real Nomad of a test's own: one agent in development mode, server and client at once.
//!
//! The program is what `scripts/setup.sh test` builds; `NOMAD_BUILD_TEST_NOMAD` names another one.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const VERSION: &str = "1.11.3";
/// Longest for an agent to become ready; several may start at once on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a test decides about its Nomad.
#[derive(Debug, Clone, Default)]
pub struct Knobs {
    /// Whether access is controlled; then [`Agent::token`] may do everything.
    pub acl: bool,
    /// Memory of the one node, in MiB; `None`: what the machine has.
    pub memory_mb: Option<u64>,
    /// Whether the cluster's state outlives the agent, as it does outside of tests.
    pub durable: bool,
    /// What it is of its cluster.
    pub part: Part,
    /// More for the agent's configuration, in HCL.
    pub more: String,
}

/// What an agent is of its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Part {
    /// The whole of it: server and client.
    #[default]
    Whole,
    /// A server and its client, or a server alone, of several servers with these ports for each other.
    Server { ports: Vec<u16>, client: bool },
    /// A client of the server with this port.
    Client { port: u16 },
}

/// See the module. Dropping it ends the agent and everything it runs.
pub struct Agent {
    knobs: Knobs,
    ports: [u16; 3],
    child: Option<Child>,
    dir: TempDir,
    /// The first token, which may do everything; empty without access control.
    pub token: String,
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("NOMAD_BUILD_TEST_NOMAD") {
        return path.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let tools = cache.unwrap_or_else(home).join("nomad-build/tools");
    tools.join(format!("nomad-{VERSION}/nomad"))
}

fn free_ports() -> [u16; 3] {
    // All at once, so that no port is given twice.
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

impl Agent {
    /// Starts an agent and waits until its node takes jobs.
    pub fn start(knobs: Knobs) -> Self {
        // Between the look for a free port and its use, somebody else may take it.
        (0..5)
            .find_map(|_| Self::try_start(knobs.clone()))
            .expect("Nomad does not start: scripts/setup.sh test builds it")
    }

    fn try_start(knobs: Knobs) -> Option<Self> {
        let mut agent = Self::new(knobs);
        agent.boot().then_some(agent)
    }

    fn new(knobs: Knobs) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("nomad-build-nomad-")
            .tempdir_in("/tmp")
            .unwrap();
        let agent = Self {
            knobs,
            ports: free_ports(),
            child: None,
            dir,
            token: String::new(),
        };
        // Tasks run as other users, who must pass through; Nomad itself makes it 0700.
        for path in [agent.dir.path().to_owned(), agent.data()] {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
        }
        agent
    }

    /// Starts an agent whose API speaks TLS and asks for the certificate of who calls; does not wait.
    pub fn start_behind_tls(ca: &Path, cert: &Path, key: &Path) -> Self {
        let more = format!(
            "tls {{\n  http = true\n  rpc = true\n  verify_https_client = true\n  ca_file = \"{}\"\n  \
             cert_file = \"{}\"\n  key_file = \"{}\"\n}}\n",
            ca.display(),
            cert.display(),
            key.display()
        );
        let mut agent = Self::new(Knobs {
            more,
            ..Knobs::default()
        });
        agent.spawn();
        agent
    }

    /// Where the agent keeps its allocations.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory that lives as long as the agent.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `host:port` of its HTTP API.
    pub fn host(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[0]))
    }

    /// `host:port` at which servers talk to it.
    pub fn rpc(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// As `NOMAD_ADDR` has it.
    pub fn address(&self) -> String {
        format!("http://{}", self.host())
    }

    /// A further node of this agent's cluster.
    pub fn client(&self) -> Self {
        Self::start(Knobs {
            durable: true,
            part: Part::Client {
                port: self.ports[1],
            },
            ..Knobs::default()
        })
    }

    /// The servers of one cluster; the first of them has a node, too.
    pub fn start_servers(count: usize, knobs: &Knobs) -> Vec<Self> {
        let mut agents: Vec<Self> = (0..count).map(|_| Self::new(knobs.clone())).collect();
        let ports: Vec<u16> = agents.iter().map(|agent| agent.ports[2]).collect();
        for (index, agent) in agents.iter_mut().enumerate() {
            agent.knobs.part = Part::Server {
                ports: ports.clone(),
                client: index == 0,
            };
            agent.spawn();
        }
        for agent in &mut agents {
            assert!(agent.wait(), "{}", agent.explain());
        }
        agents
    }

    /// Stops the agent for a while; what it runs goes on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// See [`Agent::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it does not run");
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn config(&self) -> String {
        let [http, rpc, serf] = self.ports;
        let (server, client) = match &self.knobs.part {
            Part::Whole => (true, true),
            Part::Server { client, .. } => (true, *client),
            Part::Client { .. } => (false, true),
        };
        let (expected, join) = match &self.knobs.part {
            Part::Server { ports, .. } => (ports.len(), ports.as_slice()),
            _ => (1, [].as_slice()),
        };
        let join: Vec<String> = join
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let servers: Vec<String> = match self.knobs.part {
            Part::Client { port } => vec![format!("127.0.0.1:{port}")],
            _ => Vec::new(),
        };
        let mut text = format!(
            r#"
data_dir = "{}"
bind_addr = "127.0.0.1"
name = "agent-{http}"
log_level = "DEBUG"
ports {{
  http = {http}
  rpc = {rpc}
  serf = {serf}
}}
advertise {{
  http = "127.0.0.1"
  rpc = "127.0.0.1"
  serf = "127.0.0.1"
}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
server {{
  enabled = {server}
  bootstrap_expect = {expected}
  server_join {{
    retry_join = {join:?}
    retry_interval = "1s"
  }}
  # How soon a node that does not answer is noticed.
  heartbeat_grace = "1s"
  min_heartbeat_ttl = "2s"
  # One at a time: so builds that wait are placed in the order in which they came.
  num_schedulers = 1
}}
acl {{
  enabled = {}
}}
client {{
  enabled = {client}
  servers = {servers:?}
  network_interface = "lo"
  # What has ended is there until a test has it collected; by default a client keeps 50 of them.
  gc_max_allocs = 5000
  # What the machine has free is no matter of these tests.
  disk_total_mb = 1000000
  options = {{
    # These look for a cloud, for seconds each.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
"#,
            self.data().display(),
            self.knobs.acl
        );
        if let Some(memory) = self.knobs.memory_mb {
            writeln!(text, "  memory_total_mb = {memory}").unwrap();
        }
        text.push_str("}\n");
        text.push_str(&self.knobs.more);
        text
    }

    fn spawn(&mut self) {
        let config = self.dir.path().join("agent.hcl");
        fs::write(&config, self.config()).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .unwrap();
        let child = Command::new(program())
            .arg("agent")
            .args((!self.knobs.durable).then_some("-dev"))
            .arg("-config")
            .arg(&config)
            .env_remove("NOMAD_ADDR")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("Nomad is not there: scripts/setup.sh test builds it");
        self.child = Some(child);
    }

    /// Starts the agent and waits until its node takes jobs; again after [`Agent::kill`], with what it
    /// has kept.
    pub fn boot(&mut self) -> bool {
        self.spawn();
        self.wait()
    }

    fn wait(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() {
                return false;
            }
            if self.knobs.acl && self.token.is_empty() {
                self.bootstrap();
            }
            if self.is_ready() {
                // It makes it 0700 at its start.
                fs::set_permissions(self.data(), fs::Permissions::from_mode(0o711)).unwrap();
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn bootstrap(&mut self) {
        if let Some((200, answer)) = self.call("POST", "/v1/acl/bootstrap", None) {
            self.token = answer["SecretID"].as_str().unwrap().to_owned();
        }
    }

    fn is_ready(&self) -> bool {
        match self.knobs.part {
            Part::Server { client: false, .. } => {
                let leader = self.call("GET", "/v1/status/leader", None);
                leader.is_some_and(|(status, leader)| status == 200 && leader != "")
            }
            _ => {
                let (Some((200, nodes)), Some(own)) =
                    (self.call("GET", "/v1/nodes", None), self.node())
                else {
                    return false;
                };
                let nodes = nodes.as_array().cloned().unwrap_or_default();
                (nodes.iter()).any(|node| node["ID"] == own.as_str() && node["Status"] == "ready")
            }
        }
    }

    /// The id of its node.
    pub fn node(&self) -> Option<String> {
        let (_, answer) = self.call("GET", "/v1/agent/self", None)?;
        Some(answer["stats"]["client"]["node_id"].as_str()?.to_owned())
    }

    /// A request with the first token; `None`: it does not answer.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(self.host()).ok()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: nomad\r\nX-Nomad-Token: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let text = &answer[end + 4..];
        let value = serde_json::from_slice(text)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(text).into_owned()));
        Some((status, value))
    }

    /// A request that must succeed.
    pub fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, value) = self
            .call(method, path, body)
            .expect("Nomad does not answer");
        assert_eq!(status, 200, "{method} {path}: {value}");
        value
    }

    /// Registers a job given in HCL, with values for its variables.
    pub fn register(&self, hcl: &str, namespace: &str, variables: &[(&str, &str)]) {
        let mut text = String::new();
        for (name, value) in variables {
            writeln!(text, "{name} = {}", json!(value)).unwrap();
        }
        let parse = json!({"JobHCL": hcl, "Variables": text, "Canonicalize": true});
        let path = format!("/v1/jobs/parse?namespace={namespace}");
        let mut job = self.must("POST", &path, Some(&parse));
        job["Namespace"] = namespace.into();
        let path = format!("/v1/jobs?namespace={namespace}");
        self.must("POST", &path, Some(&json!({ "Job": job })));
    }

    /// `kill -9`; what it runs goes on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The end of its log, for a test that fails.
    pub fn explain(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Kills every process that has something of this agent in its arguments, its environment or open.
    fn sweep(&self) -> usize {
        let mark = self.dir.path().display().to_string();
        let mut found = 0;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let read = |name: &str| {
                let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let command = read("cmdline");
            // What collects logs is known by them alone.
            let opened = || {
                let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten();
                files
                    .flatten()
                    .filter_map(|file| fs::read_link(file.path()).ok())
                    .any(|path| path.starts_with(&mark))
            };
            let mentions = command.contains(&mark)
                || read("environ").contains(&mark)
                || (command.starts_with(&program().display().to_string()) && opened());
            if mentions && pid != i32::try_from(std::process::id()).unwrap() {
                found += 1;
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
        found
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.sweep() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // A task's secrets are a mount of their own.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let prefix = format!("{}/", self.dir.path().display());
        for line in mounts.lines() {
            if let Some(at) = line.split(' ').nth(4).filter(|at| at.starts_with(&prefix)) {
                let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

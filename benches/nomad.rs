//! What a cluster costs a server, and a server a cluster: `make bench`.
//!
//! - requests to Nomad for a build, while 1, 100 and 1,000 agents ask for its status each second (goal: at most 1.5 times)
//! - from Nomad's event to the answer of a `status` that waits for it (goal: at most 100 ms)
//! - 1,000 builds at once: the memory of the server (goal: at most 60 MB), and whether one is lost
//! - a build on a cluster beside the same on one machine
//!
//! Nomad is real, with its `mock_driver` where nothing is to be built: its tasks say what a build says. Needs
//! `scripts/setup.sh test`, and for the last one root and the accounts of `nomad-build setup`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/support/nomad.rs"]
#[allow(dead_code, reason = "it serves tests, too")]
mod agent;
mod row;
mod serving;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use row::{Goal, row};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nomad-build");
const RAW_EXEC: &str = include_str!("../nomad/build-raw-exec.nomad.hcl");
/// Callers: each may have 500 unfinished builds.
const CALLERS: usize = 4;
/// More than what is allowed where nothing is said: a thousand callers of few names.
const MANY_CALLS: &str = "[principals.\"*\"]\ncalls_per_second = 100000\n";
const PATIENCE: Duration = Duration::from_secs(600);

/// What a task of `mock_driver` says: a build that has ended well.
const SAYS: &str = r#"{"v":1,"n":0,"t":1,"event":{"kind":"phase_started","phase":"build"}}
{"v":1,"n":1,"t":1,"phase":"build","stream":"output","text":"built"}
{"v":1,"n":1,"t":1,"event":{"kind":"phase_ended","phase":"build","seconds":0.1}}
{"v":1,"n":1,"t":1,"event":{"kind":"image","id":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}}
{"v":1,"n":1,"t":1,"event":{"kind":"result","outcome":"passed"}}
"#;

#[tokio::main]
async fn main() {
    // `cargo test` runs benchmarks, too, to see whether they can be compiled.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let wanted = |name: &str| {
        let named = words.iter().filter(|word| !word.starts_with('-'));
        named.clone().count() == 0 || named.clone().any(|word| word == name)
    };
    let agent = agent::Agent::start(agent::Knobs {
        memory_mb: Some(1_000_000),
        more: "plugin \"mock_driver\" {\n}\n".into(),
        ..agent::Knobs::default()
    });
    if wanted("requests") {
        requests(&agent).await;
    }
    if wanted("latency") {
        latency(&agent).await;
    }
    if wanted("flood") {
        for calls in [16, 1000] {
            flood(&agent, calls).await;
        }
    }
    drop(agent);
    if wanted("beside") {
        beside_local().await;
    }
}

/// Registers the job whose builds take `seconds`.
fn register(agent: &agent::Agent, seconds: u32) {
    let task = |name: &str, hook: Value, seconds: f64, says: &str| {
        json!({
            "Name": name, "Driver": "mock_driver", "Lifecycle": hook,
            "Config": {"run_for": format!("{seconds}s"), "stdout_string": says},
            "DispatchPayload": {"File": "payload"},
            "Resources": {"CPU": 1, "MemoryMB": 10},
            "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
        })
    };
    let once = json!({"Attempts": 0, "Mode": "fail"});
    let job = json!({
        "ID": "nomad-build-default", "Name": "nomad-build-default", "Type": "batch", "Datacenters": ["*"],
        "ParameterizedJob": {"Payload": "required"},
        "TaskGroups": [{
            "Name": "build", "RestartPolicy": once,
            "ReschedulePolicy": {"Attempts": 0, "Unlimited": false},
            "EphemeralDisk": {"SizeMB": 10},
            "Tasks": [
                task("build", json!({"Hook": "prestart"}), seconds.into(), SAYS),
                task("publish", Value::Null, 0.1, ""),
                task("archive", json!({"Hook": "poststop"}), 0.1, ""),
            ],
        }],
    });
    agent.must("POST", "/v1/jobs", Some(&json!({ "Job": job })));
}

/// A server over HTTP, as a process of its own.
struct Server {
    child: Child,
    url: String,
    tokens: Vec<String>,
    client: reqwest::Client,
    _dir: TempDir,
}

impl Server {
    fn start(backend: &str, nomad: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("nomad-build-bench-")
            .tempdir_in("/tmp")
            .unwrap();
        let config = dir.path().join("config.toml");
        let state = dir.path().join("state");
        fs::write(&config, format!("state_dir = {state:?}\n{MANY_CALLS}")).unwrap();
        let tokens = (0..CALLERS).map(|number| {
            let made = Command::new(PROGRAM)
                .args(["token", &format!("agent-{number}"), "--file"])
                .arg(dir.path().join("tokens"))
                .output()
                .unwrap();
            assert!(made.status.success());
            String::from_utf8(made.stdout).unwrap().trim().to_owned()
        });
        let tokens = tokens.collect();
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--backend", backend, "--http", "127.0.0.1:0"])
            .env("NOMAD_BUILD_CONFIG", &config)
            .env("NOMAD_BUILD_HTTP_TOKENS", dir.path().join("tokens"))
            .env("NOMAD_ADDR", nomad)
            // As the job files of the server have it.
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let address = serving::address(&mut child);
        Self {
            child,
            url: format!("http://{address}/mcp"),
            tokens,
            client: reqwest::Client::new(),
            _dir: dir,
        }
    }

    async fn call(&self, caller: usize, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let answer = self
            .client
            .post(&self.url)
            .bearer_auth(&self.tokens[caller % CALLERS])
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream")
            .body(
                json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
                    .to_string(),
            )
            .send()
            .await
            .unwrap();
        let text = answer.text().await.unwrap();
        // One message, or a stream whose last one is the answer.
        let last = text.lines().rev().find_map(|line| {
            let line = line.strip_prefix("data:").unwrap_or(line);
            let value: Value = serde_json::from_str(line).ok()?;
            value.get("result").cloned()
        });
        let result = last.unwrap_or_else(|| panic!("{text}"));
        assert_ne!(result["isError"], true, "{result}");
        result["structuredContent"].clone()
    }

    async fn submit(&self, caller: usize, nonce: &str) -> String {
        let text = format!("FROM scratch\nCOPY Containerfile /\n# {nonce}\n");
        let source = json!({"files": [{"path": "Containerfile", "text": text}]});
        let status = self.call(caller, "build", json!({"source": source})).await;
        status["build_id"].as_str().unwrap().to_owned()
    }

    async fn end(&self, caller: usize, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wanted = json!({"build_id": id, "wait": 45});
            let status = self.call(caller, "status", wanted).await["builds"][0].clone();
            let state = status["state"].as_str().unwrap();
            if !matches!(state, "queued" | "running") {
                return status;
            }
            assert!(Instant::now() < deadline, "{status}");
        }
    }

    /// The most memory it has had, in MiB.
    fn peak(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn assert_succeeded(end: &Value) {
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// Requests that Nomad has answered, by method and kind.
fn answered(agent: &agent::Agent) -> BTreeMap<String, usize> {
    let log = fs::read_to_string(agent.dir().join("agent.log")).unwrap();
    let mut kinds = BTreeMap::new();
    for line in log
        .lines()
        .filter(|line| line.contains("http: request complete"))
    {
        let word = |name: &str| {
            let rest = line
                .split_once(&format!("{name}="))?
                .1
                .trim_start_matches('"');
            rest.split([' ', '"', '?']).next()
        };
        let path = word("path").unwrap_or_default();
        let kind: Vec<&str> = path
            .split('/')
            .take(if path.contains("/client/") { 5 } else { 3 })
            .collect();
        let kind = format!("{} {}", word("method").unwrap_or_default(), kind.join("/"));
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

async fn requests(agent: &agent::Agent) {
    const BUILDS: usize = 20;
    register(agent, 5);
    println!(
        "requests to Nomad for each of {BUILDS} builds of 5 s, by agents that ask each second:"
    );
    let mut alone = None;
    for agents in [1, 100, 1000] {
        let server = Arc::new(Server::start("nomad", &agent.address()));
        // The first answer waits until everything there is has been read.
        server.call(0, "status", json!({})).await;
        let before = answered(agent);
        let begun = Instant::now();
        let mut ids = Vec::new();
        for number in 0..BUILDS {
            ids.push(server.submit(0, &format!("{agents}-{number}")).await);
        }
        let ids = Arc::new(ids);
        let (over, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut asking = JoinSet::new();
        for number in 0..agents {
            let (server, ids) = (Arc::clone(&server), Arc::clone(&ids));
            let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
            asking.spawn(async move {
                let mut tick = tokio::time::interval(Duration::from_secs(1));
                let mut build = number;
                while !over.load(Ordering::Relaxed) {
                    tick.tick().await;
                    // Each asks for another one each time, so that all are asked for.
                    build = (build + 1) % BUILDS;
                    let wanted = json!({"build_id": ids[build], "wait": 0});
                    server.call(0, "status", wanted).await;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for id in ids.iter() {
            assert_succeeded(&server.end(0, id).await);
        }
        let seconds = begun.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        asking.join_all().await;
        let after = answered(agent);
        let share = |count: usize| count as f64 / BUILDS as f64;
        let kinds: Vec<(&str, usize)> = (after.iter())
            .map(|(kind, count)| (kind.as_str(), count - before.get(kind).unwrap_or(&0)))
            .filter(|(_, count)| *count > BUILDS / 4)
            .collect();
        let each = share(after.values().sum::<usize>() - before.values().sum::<usize>());
        let first = *alone.get_or_insert(each);
        println!(
            "  {agents:>5} agents: {} calls in {seconds:.0} s",
            asked.load(Ordering::Relaxed)
        );
        row(
            &format!("requests to Nomad for a build, with {agents} agents that ask each second"),
            format!("{each:.1}"),
            format!("with one, {first:.1}"),
            each / first,
            Goal::AtMost(1.5),
        );
        for (kind, count) in kinds {
            println!("        {:>5.1} {kind}", share(count));
        }
    }
}

/// When an event of Nomad says that the task `build` of a build runs.
fn running(agent: &agent::Agent, id: &str) -> std::sync::mpsc::Receiver<Instant> {
    let (tell, told) = std::sync::mpsc::channel();
    let mark = format!("/dispatch-{id}-");
    let url = format!("{}/v1/event/stream?topic=Allocation", agent.address());
    tokio::spawn(async move {
        let mut stream = reqwest::get(url).await.unwrap();
        let mut rest = Vec::new();
        while let Some(chunk) = stream.chunk().await.unwrap() {
            let now = Instant::now();
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let frame: Value = serde_json::from_slice(&line).unwrap_or_default();
                let events = frame["Events"].as_array().cloned().unwrap_or_default();
                let found = events.iter().any(|event| {
                    let allocation = &event["Payload"]["Allocation"];
                    allocation["JobID"]
                        .as_str()
                        .is_some_and(|job| job.contains(&mark))
                        && allocation["TaskStates"]["build"]["State"] == "running"
                });
                if found {
                    let _ = tell.send(now);
                    return;
                }
            }
        }
    });
    told
}

async fn latency(agent: &agent::Agent) {
    const ROUNDS: usize = 15;
    register(agent, 2);
    let server = Server::start("nomad", &agent.address());
    server.call(0, "status", json!({})).await;
    let mut took = Vec::new();
    for number in 0..ROUNDS {
        let id = server.submit(0, &format!("latency-{number}")).await;
        let told = running(agent, &id);
        let wanted = json!({"build_id": id, "wait": 45, "until": "started"});
        let answer = server.call(0, "status", wanted).await;
        let now = Instant::now();
        assert_eq!(answer["builds"][0]["state"], "running");
        let event = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE).unwrap());
        took.push(
            now.saturating_duration_since(event.await.unwrap())
                .as_secs_f64()
                * 1000.0,
        );
        server.end(0, &id).await;
    }
    took.sort_by(f64::total_cmp);
    row(
        "from the event that a build runs to the answer of a waiting status",
        format!(
            "{:.1} ms, at most {:.1} ms",
            took[ROUNDS / 2],
            took[ROUNDS - 1]
        ),
        "100 ms",
        took[ROUNDS - 1] / 100.0,
        Goal::AtMost(1.0),
    );
}

/// `calls` at the same time, each over a connection of its own.
async fn flood(agent: &agent::Agent, calls: usize) {
    const BUILDS: usize = 1000;
    register(agent, 5);
    let server = Arc::new(Server::start("nomad", &agent.address()));
    server.call(0, "status", json!({})).await;
    let idle = server.peak();
    let begun = Instant::now();
    let turns = Arc::new(Semaphore::new(calls));
    let mut submitting = JoinSet::new();
    for number in 0..BUILDS {
        let (server, turns) = (Arc::clone(&server), Arc::clone(&turns));
        submitting.spawn(async move {
            let _turn = turns.acquire().await;
            let nonce = format!("flood-{calls}-{number}");
            (number, server.submit(number, &nonce).await)
        });
    }
    let ids = submitting.join_all().await;
    let accepted = begun.elapsed().as_secs_f64();
    let mut ending = JoinSet::new();
    for (number, id) in ids {
        let (server, turns) = (Arc::clone(&server), Arc::clone(&turns));
        ending.spawn(async move {
            let _turn = turns.acquire().await;
            server.end(number, &id).await
        });
    }
    let ends = ending.join_all().await;
    let lost: Vec<&Value> = ends
        .iter()
        .filter(|end| end["state"] != "succeeded")
        .collect();
    if let Some(one) = lost.first() {
        println!("one of them: {one}");
    }
    let lost = lost.len();
    println!(
        "{BUILDS} builds at once, {calls} calls at once: accepted in {accepted:.1} s, ended in {:.1} s, {lost} lost",
        begun.elapsed().as_secs_f64(),
    );
    let peak = server.peak() * 1.048_576;
    row(
        &format!("memory of the server with {BUILDS} builds, {calls} calls at once, {lost} lost"),
        format!("{peak:.0} MB, idle {:.0} MB", idle * 1.048_576),
        "60 MB",
        peak / 60.0,
        Goal::AtMost(1.0),
    );
}

async fn beside_local() {
    const ROUNDS: usize = 9;
    let agent = agent::Agent::start(agent::Knobs::default());
    let shared = agent.dir().join("client");
    let tasks = format!("state_dir = {shared:?}");
    agent.register(
        RAW_EXEC,
        "default",
        &[
            ("program", PROGRAM),
            ("config", &tasks),
            ("memory", "256"),
            ("disk", "500"),
        ],
    );
    let servers = [
        Server::start("local", ""),
        Server::start("nomad", &agent.address()),
    ];
    let mut took = [Vec::new(), Vec::new()];
    // The first one probes the sandbox.
    for round in 0..=ROUNDS {
        for (server, took) in servers.iter().zip(&mut took) {
            let begun = Instant::now();
            let id = server.submit(0, &format!("beside-{round}")).await;
            assert_succeeded(&server.end(0, &id).await);
            if round > 0 {
                took.push(begun.elapsed().as_secs_f64());
            }
        }
    }
    let [local, nomad] = took.map(|mut one| {
        one.sort_by(f64::total_cmp);
        one[ROUNDS / 2]
    });
    row(
        "a build of one COPY on a cluster",
        format!("{nomad:.2} s"),
        format!("on this machine, {local:.2} s"),
        nomad / local,
        Goal::None,
    );
}

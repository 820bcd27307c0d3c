//! What a server over HTTP costs: `make bench`.
//!
//! - `tools/call status` beside the echo of a bare server of rmcp, in turns (goal: at least 0.8 of its throughput)
//! - the time that 99 of 100 calls stay below, of 1,000 sessions, beside the same of the bare server
//! - memory: idle (goal: at most 25 MB), and what a session adds (goal: at most 50 KB), beside the bare server's
//!
//! Clients run on the same processors: what they cost stands on both sides of the ratio.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

mod echo;
mod row;
mod serving;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use echo::Echo;
use row::{Goal, row};

/// Turns of each server.
const ROUNDS: usize = 7;
/// How long a turn takes.
const TURN: Duration = Duration::from_secs(2);
/// Calls at the same time.
const CALLERS: usize = 16;
const SESSIONS: usize = 1000;
const VERSION: &str = "2025-11-25";

async fn echo(sessions: bool) {
    let config = StreamableHttpServerConfig::default();
    let app = if sessions {
        let manager = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(|| Ok(Echo), manager, config);
        axum::Router::new().nest_service("/mcp", service)
    } else {
        let config = config
            .with_legacy_session_mode(false)
            .with_json_response(true);
        let manager = Arc::new(NeverSessionManager::default());
        let service = StreamableHttpService::new(|| Ok(Echo), manager, config);
        axum::Router::new().nest_service("/mcp", service)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    eprintln!("address={} ", listener.local_addr().unwrap());
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    axum::serve(listener, app).await.unwrap();
}

struct Server {
    /// None: another owns it.
    child: Option<Child>,
    url: String,
    token: String,
    client: reqwest::Client,
}

impl Server {
    fn start(mut command: Command, token: &str) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let address = serving::address(&mut child);
        Self {
            child: Some(child),
            url: format!("http://{address}/mcp"),
            token: token.into(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn echo(sessions: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--echo", if sessions { "--sessions" } else { "" }])
            .env("MALLOC_ARENA_MAX", "1");
        Self::start(command, "")
    }

    fn ours(state: &std::path::Path, sessions: bool) -> Self {
        let config = state.join("config.toml");
        fs::write(
            &config,
            "[principals.\"*\"]\ncalls_per_second = 100000\n[http]\nconnections = 4096\n",
        )
        .unwrap();
        let tokens = state.join("tokens");
        let program = env!("CARGO_BIN_EXE_nomad-build");
        let made = (Command::new(program).args(["token", "bench", "--file"]))
            .arg(&tokens)
            .output()
            .unwrap();
        let mut command = Command::new(program);
        command
            .args(["serve", "--http", "127.0.0.1:0"])
            .env("NOMAD_BUILD_CONFIG", config)
            .env("NOMAD_BUILD_STATE_DIR", state.join("state"))
            .env("NOMAD_BUILD_HTTP_TOKENS", tokens)
            .env("NOMAD_BUILD_HTTP_SESSIONS", sessions.to_string())
            .env("NOMAD_BUILD_LOG", "warn,nomad_build::app=info")
            .env("MALLOC_ARENA_MAX", "1");
        let token = String::from_utf8(made.stdout).unwrap();
        Self::start(command, token.trim())
    }

    /// The same server for somebody else.
    fn as_another(&self, token: String) -> Self {
        Self {
            child: None,
            url: self.url.clone(),
            token,
            client: self.client.clone(),
        }
    }

    async fn post(&self, session: Option<&str>, message: &Value) -> reqwest::Response {
        let mut request = (self.client.post(&self.url))
            .bearer_auth(&self.token)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", VERSION)
            .body(message.to_string());
        if let Some(session) = session {
            request = request.header("Mcp-Session-Id", session);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        answer
    }

    async fn call(&self, session: Option<&str>, tool: &str) {
        let params = json!({"name": tool, "arguments": {"limit": 1}});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let answer = self.post(session, &call).await;
        let text = answer.text().await.unwrap();
        assert!(text.contains("\"content\""), "{text}");
    }

    async fn begin(&self) -> String {
        let client = json!({"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client});
        let answer = self.post(None, &hello).await;
        let session = answer.headers()["mcp-session-id"]
            .to_str()
            .unwrap()
            .to_owned();
        answer.text().await.unwrap();
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.post(Some(&session), &ready).await;
        session
    }

    /// Memory that it has now, in KiB.
    fn memory(&self) -> f64 {
        let id = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Calls a second over one turn.
async fn throughput(server: &Arc<Server>, tool: &'static str) -> f64 {
    let end = Instant::now() + TURN;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let server = Arc::clone(server);
        callers.spawn(async move {
            let mut calls = 0u32;
            while Instant::now() < end {
                server.call(None, tool).await;
                calls += 1;
            }
            calls
        });
    }
    let calls: u32 = callers.join_all().await.into_iter().sum();
    f64::from(calls) / TURN.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if words.iter().any(|word| word == "--echo") {
        return runtime.block_on(echo(words.iter().any(|word| word == "--sessions")));
    }
    // `cargo test` runs benchmarks, too, to see whether they can be compiled.
    if words.iter().any(|word| word == "--bench") {
        runtime.block_on(async {
            beside_echo().await;
            let bare = Arc::new(Server::echo(true));
            let bare = many_sessions(&bare, &[Arc::clone(&bare)], "echo").await;
            compare(&sessions_of_ours().await, &bare);
        });
    }
}

async fn beside_echo() {
    let dir = tempfile::tempdir().unwrap();
    let (echo, ours) = (
        Arc::new(Server::echo(false)),
        Arc::new(Server::ours(dir.path(), false)),
    );
    let idle = ours.memory() * 1024.0 / 1e6;
    row(
        "memory of an idle server over HTTP",
        format!("{idle:.1} MB"),
        "25 MB",
        idle / 25.0,
        Goal::AtMost(1.0),
    );
    let (mut ratios, mut bare, mut full) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let one = throughput(&echo, "echo").await;
        let other = throughput(&ours, "status").await;
        ratios.push(other / one);
        bare.push(one);
        full.push(other);
    }
    row(
        "calls of status over HTTP a second",
        format!("{:.0}", median(full)),
        format!("the echo of a bare server, {:.0}", median(bare)),
        median(ratios),
        Goal::AtLeast(0.8),
    );
}

async fn sessions_of_ours() -> Sessions {
    let dir = tempfile::tempdir().unwrap();
    // A principal has at most 256 sessions: four of them.
    let server = Arc::new(Server::ours(dir.path(), true));
    let program = env!("CARGO_BIN_EXE_nomad-build");
    let tokens: Vec<String> = (0..4)
        .map(|number| {
            let made =
                (Command::new(program).args(["token", &format!("agent-{number}"), "--file"]))
                    .arg(dir.path().join("tokens"))
                    .output()
                    .unwrap();
            String::from_utf8(made.stdout).unwrap().trim().to_owned()
        })
        .collect();
    let principals: Vec<Arc<Server>> = tokens
        .into_iter()
        .map(|token| Arc::new(server.as_another(token)))
        .collect();
    many_sessions(&server, &principals, "status").await
}

/// What a thousand sessions cost a server.
struct Sessions {
    /// Memory of one, in KB.
    each: f64,
    /// Calls a second.
    second: f64,
    /// What 99 of 100 calls stay below, in ms.
    nearly_all: f64,
}

fn compare(ours: &Sessions, bare: &Sessions) {
    let beside = |what: String| format!("a bare server's, {what}");
    row(
        "memory of a session",
        format!("{:.1} KB", ours.each),
        format!("50 KB (a bare server's {:.1} KB)", bare.each),
        ours.each / 50.0,
        Goal::AtMost(1.0),
    );
    row(
        &format!("calls a second of {SESSIONS} sessions at once"),
        format!("{:.0}", ours.second),
        beside(format!("{:.0}", bare.second)),
        ours.second / bare.second,
        Goal::None,
    );
    row(
        "99 of 100 of them take at most",
        format!("{:.0} ms", ours.nearly_all),
        beside(format!("{:.0} ms", bare.nearly_all)),
        ours.nearly_all / bare.nearly_all,
        Goal::None,
    );
}

async fn many_sessions(
    server: &Server,
    principals: &[Arc<Server>],
    tool: &'static str,
) -> Sessions {
    // What the first calls allocate is no session's.
    let first = principals[0].begin().await;
    principals[0].call(Some(&first), tool).await;
    let before = server.memory();
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let principal = Arc::clone(&principals[number % principals.len()]);
        let session = principal.begin().await;
        sessions.push((principal, session));
    }
    let each = (server.memory() - before) * 1.024 / SESSIONS as f64;
    let mut calls = JoinSet::new();
    for (principal, session) in sessions {
        calls.spawn(async move {
            let mut took = Vec::new();
            for _ in 0..5 {
                let begun = Instant::now();
                principal.call(Some(&session), tool).await;
                took.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            took
        });
    }
    let begun = Instant::now();
    let mut took: Vec<f64> = calls.join_all().await.into_iter().flatten().collect();
    let second = took.len() as f64 / begun.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    Sessions {
        each,
        second,
        nearly_all: took[took.len() * 99 / 100],
    }
}

//! What a server over stdio costs, as ratios measured side by side in one run: `make bench`.
//!
//! - from its start to the answer to `initialize` (goal: at most 10 ms), its memory then (at most 20 MB), and the size of
//!   the program (at most 15 MB)
//! - a `status` call beside the echo of a bare server of rmcp, in turns (goal: at most 1.5 times)
//! - the first state of a build (goal: under 100 ms for git and small files), against a bare status
//! - the end of a log, at 64 times the length (goal: at most 1.5 times)
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

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nomad_build::build::{Phase, request::Stream};
use nomad_build::log::{Line, LogReader, Query, RecordWriter, Start};
use rmcp::ServiceExt as _;
use serde_json::{Value, json};

use echo::Echo;
use row::{Goal, row};

/// Turns of each server, and calls in one.
const ROUNDS: usize = 15;
const CALLS: usize = 300;
const MB: f64 = 1e6;

#[tokio::main]
async fn echo() {
    let io = (tokio::io::stdin(), tokio::io::stdout());
    Echo.serve(io).await.unwrap().waiting().await.unwrap();
}

struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    id: u64,
}

impl Server {
    fn ours(state: &std::path::Path) -> (Self, Duration) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nomad-build"));
        command.arg("serve").env("NOMAD_BUILD_STATE_DIR", state);
        Self::start(command)
    }

    fn echo() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--echo");
        Self::start(command).0
    }

    fn start(mut command: Command) -> (Self, Duration) {
        let begun = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            id: 0,
        };
        let client = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}});
        server.request("initialize", client);
        let took = begun.elapsed();
        writeln!(
            server.input,
            r#"{{"jsonrpc":"2.0","method":"notifications/initialized"}}"#
        )
        .unwrap();
        (server, took)
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        writeln!(
            self.input,
            "{}",
            json!({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params})
        )
        .unwrap();
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "the server is gone"
            );
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == self.id {
                return answer["result"].clone();
            }
        }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> (Value, Duration) {
        let begun = Instant::now();
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments}));
        let took = begun.elapsed();
        assert_ne!(result["isError"], true, "{result}");
        (result["structuredContent"].clone(), took)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn state() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(state.path(), mode).unwrap();
    state
}

fn idle() {
    let state = state();
    let starts = (0..21).map(|_| Server::ours(state.path()).1).collect();
    let start = median(starts).as_secs_f64() * 1e3;
    row(
        "from its start to the answer to initialize",
        format!("{start:.1} ms"),
        "10 ms",
        start / 10.0,
        Goal::AtMost(1.0),
    );
    let (mut server, _) = Server::ours(state.path());
    // What it keeps of its first answers belongs to it.
    server.call("status", json!({}));
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let memory = kib * 1024.0 / MB;
    let program = std::fs::metadata(env!("CARGO_BIN_EXE_nomad-build"))
        .unwrap()
        .len() as f64
        / MB;
    row(
        "memory of an idle server over stdio",
        format!("{memory:.1} MB"),
        "20 MB",
        memory / 20.0,
        Goal::AtMost(1.0),
    );
    row(
        "size of the program",
        format!("{program:.1} MB"),
        "15 MB",
        program / 15.0,
        Goal::AtMost(1.0),
    );
}

fn calls() {
    let state = state();
    let (mut ours, mut bare) = (Server::ours(state.path()).0, Server::echo());
    // The whole status of a build that has ended.
    let source = json!({"files": [{"path": "Containerfile", "text": "FROM scratch\nLABEL a=b\n"}]});
    let (build, _) = ours.call("build", json!({"source": source, "wait": 50}));
    let asked = json!({"build_id": build["build_id"]});
    let mut ratios = Vec::new();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let turn = |server: &mut Server| {
            let begun = Instant::now();
            for _ in 0..CALLS {
                server.call("status", asked.clone());
            }
            begun.elapsed() / u32::try_from(CALLS).unwrap()
        };
        let (echoed, answered) = (turn(&mut bare), turn(&mut ours));
        ratios.push(answered.as_secs_f64() / echoed.as_secs_f64());
        times.push((answered, echoed));
    }
    ratios.sort_by(f64::total_cmp);
    let (ours, bare): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    row(
        "a call of status over stdio",
        format!("{:.0?}", median(ours)),
        format!("the echo of a bare server, {:.0?}", median(bare)),
        ratios[ratios.len() / 2],
        Goal::AtMost(1.5),
    );
}

fn first_state() {
    let state = state();
    let (mut server, _) = Server::ours(state.path());
    let mut bare = Vec::new();
    let (mut files, mut git) = (Vec::new(), Vec::new());
    for round in 0..20 {
        bare.push(server.call("status", json!({"limit": 1})).1);
        let text = format!("FROM scratch\nLABEL round={round}\n");
        let source = json!({"files": [{"path": "Containerfile", "text": text}]});
        let (status, took) = server.call("build", json!({"source": source}));
        files.push(took);
        server.call("kill", json!({"build_id": status["build_id"], "wait": 50}));
        let source = json!({"git": format!("https://git.invalid/{round}.git")});
        let (status, took) = server.call("build", json!({"source": source}));
        git.push(took);
        server.call("kill", json!({"build_id": status["build_id"], "wait": 50}));
    }
    let bare = median(bare);
    for (what, times) in [("files", files), ("git", git)] {
        let time = median(times);
        row(
            &format!("first state of a build from {what}"),
            format!("{time:.1?}, a status call {bare:.1?}"),
            "100 ms",
            time.as_secs_f64() / 0.1,
            Goal::AtMost(1.0),
        );
    }
}

fn log_of(lines: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = RecordWriter::new(file.reopen().unwrap(), 0, u64::MAX);
    for n in 0..lines {
        let line = Line {
            phase: Phase::Build,
            step: Some((3, 7)),
            test: None,
            stream: Stream::Output,
            text: format!("cc -O2 -c src/module_{n}.c -o build/module_{n}.o"),
        };
        writer.line(0, &line).unwrap();
    }
    writer.flush().unwrap();
    file
}

fn end_of_log() {
    let query = Query::new(Start::Before(None), 200, 16_000);
    let logs = [log_of(10_000), log_of(640_000)];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..50 {
        for (log, times) in logs.iter().zip(&mut times) {
            let begun = Instant::now();
            let selection = query
                .run(&LogReader::open(log.path()).unwrap().unwrap())
                .unwrap();
            times.push(begun.elapsed());
            assert_eq!(selection.rows.len(), 200);
        }
    }
    let [short, long] = times.map(median);
    let megabytes = |i: usize| std::fs::metadata(logs[i].path()).unwrap().len() >> 20;
    row(
        &format!("end of a log of {} MiB", megabytes(1)),
        format!("{long:.1?}"),
        format!("of {} MiB, {short:.1?}", megabytes(0)),
        long.as_secs_f64() / short.as_secs_f64(),
        Goal::AtMost(1.5),
    );
}

fn main() {
    if std::env::args().any(|argument| argument == "--echo") {
        return echo();
    }
    idle();
    calls();
    first_state();
    end_of_log();
}

//! What a collector gets of the program's requests and calls (with the feature `otel`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const QUIET: &str = "5bf92f3577b34da6a3ce929d0e0e4736";

/// `nomad-build serve --http`, without tokens.
struct Served {
    process: Child,
    address: String,
    dir: TempDir,
    http: Client,
}

impl Served {
    fn begin(config: &str, variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Builds may run as others, who must be able to pass.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        let log = dir.path().join("log");
        let file = dir.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_nomad-build"))
            .args(["serve", "--http", "127.0.0.1:0", "--no-auth"])
            .env_clear()
            .env("NOMAD_BUILD_STATE_DIR", dir.path().join("state"))
            .env("NOMAD_BUILD_CONFIG", file)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(variables.iter().copied())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let address = loop {
            let text = fs::read_to_string(&log).unwrap();
            if let Some((_, after)) = text.split_once("address=") {
                break after.split_whitespace().next().unwrap().to_owned();
            }
            assert!(Instant::now() < deadline, "{text}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let http = Client::builder().no_proxy().build().unwrap();
        Self {
            process,
            address,
            dir,
            http,
        }
    }

    /// Posts a message, within a session and a trace where there are.
    async fn post(
        &self,
        message: &Value,
        session: Option<&str>,
        traceparent: Option<&str>,
    ) -> Response {
        let mut request = (self
            .http
            .post(format!("http://{}/mcp?query-of-mine", self.address)))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .bearer_auth("token-of-mine")
        .body(message.to_string());
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer
    }

    /// Calls the tool `status` and says where it is in a trace; returns the id of the answer.
    async fn call(&self, session: Option<&str>, traceparent: Option<&str>) -> String {
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "status", "arguments": {"name": "argument-of-mine"}},
        });
        let answer = self.post(&call, session, traceparent).await;
        let id = id(&answer);
        let text = answer.text().await.unwrap();
        assert!(text.contains("\"builds\":[]"), "{text}");
        id
    }

    async fn get(&self, path: &str) -> Response {
        let url = format!("http://{}{path}", self.address);
        self.http.get(url).send().await.unwrap()
    }

    /// Tells the server to end; what its log said.
    async fn end(mut self) -> String {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = tokio::task::spawn_blocking(move || {
            let status = self.process.wait().unwrap();
            (status, log(self.dir.path()))
        });
        let (status, log) = ended.await.unwrap();
        assert!(status.success(), "{log}");
        log
    }
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap()
}

fn id(answer: &Response) -> String {
    answer.headers()["x-request-id"].to_str().unwrap().into()
}

/// Ids and strings stand in protobuf as they are.
fn holds(told: &[u8], bytes: &[u8]) -> bool {
    told.windows(bytes.len()).any(|window| window == bytes)
}

/// A collector, which keeps what it was told.
async fn collector() -> MockServer {
    let collector = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/traces"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&collector)
        .await;
    collector
}

/// In how many spans an id stands; the ids in a span are its own, its parent's and the trace's.
fn times(told: &[u8], id: &str) -> usize {
    let id = hex::decode(id).unwrap();
    told.windows(id.len()).filter(|one| *one == id).count()
}

async fn told(collector: &MockServer) -> Vec<u8> {
    let requests = collector.received_requests().await.unwrap();
    let bodies = requests.into_iter().flat_map(|request| request.body);
    bodies.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_calls_arrive_within_the_trace_of_the_caller() {
    let collector = collector().await;
    let uri = collector.uri();
    let served = Served::begin(
        "",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &uri),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tenant-of-mine"),
            ("OTEL_SERVICE_NAME", "builds-of-mine"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ],
    );
    let parent = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(served.call(None, Some(&parent)).await, TRACE);
    let fresh = served.call(None, None).await;
    // Whose caller does not export is not exported either.
    let quiet = format!("00-{QUIET}-{SPAN}-00");
    assert_eq!(served.call(None, Some(&quiet)).await, QUIET);
    let check = id(&served.get("/healthz").await);
    let refused = served.get("/nowhere").await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    let refused = id(&refused);
    // What has not been sent is sent at the end.
    let log = served.end().await;

    let requests = collector.received_requests().await.unwrap();
    assert!(!requests.is_empty(), "{log}");
    for request in &requests {
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
        assert_eq!(request.headers["x-tenant"], "tenant-of-mine");
    }
    let told = told(&collector).await;
    assert_eq!(times(&told, &refused), 1);
    for id in [QUIET, check.as_str()] {
        assert_eq!(times(&told, id), 0, "{id} was exported");
    }
    for word in [
        "builds-of-mine",
        "deployment.environment",
        "POST",
        "/mcp",
        "http.response.status_code",
        "tools/call status",
        "nomad_build.outcome",
    ] {
        assert!(holds(&told, word.as_bytes()), "{word} was not exported");
    }
    for word in [
        "token-of-mine",
        "argument-of-mine",
        "query-of-mine",
        "tenant-of-mine",
    ] {
        assert!(!holds(&told, word.as_bytes()), "{word} was exported");
    }
    // A request and its call.
    assert_eq!((times(&told, TRACE), times(&told, &fresh)), (2, 2));
    assert_eq!(times(&told, SPAN), 1);
    assert!(log.contains(&format!("trace_id={TRACE}")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_within_a_session_is_of_its_own_trace() {
    let collector = collector().await;
    let endpoint = format!("{}/v1/traces", collector.uri());
    let served = Served::begin(
        "http.sessions = true",
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint)],
    );
    let hello = json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    });
    let first = format!("00-{QUIET}-{SPAN}-01");
    let answer = served.post(&hello, None, Some(&first)).await;
    let session = answer.headers()["mcp-session-id"].to_str().unwrap();
    let session = Some(session);
    let thanks = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    served.post(&thanks, session, None).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(served.call(session, Some(&parent)).await, TRACE);
    let log = served.end().await;
    let told = told(&collector).await;
    assert_eq!((times(&told, QUIET), times(&told, TRACE)), (1, 2), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_keeps_nothing_from_going_on() {
    // Nobody listens there.
    let nobody = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://user:pass@127.0.0.1:9",
    );
    let served = Served::begin("", &[nobody, ("OTEL_BSP_SCHEDULE_DELAY", "100")]);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(served.call(None, Some(&parent)).await, TRACE);
    let deadline = Instant::now() + PATIENCE;
    while !log(served.dir.path()).contains("traces cannot be exported") {
        assert!(Instant::now() < deadline, "{}", log(served.dir.path()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let begun = Instant::now();
    let log = served.end().await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!log.contains("pass"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_where_nobody_says_to() {
    let served = Served::begin("", &[("OTEL_SERVICE_NAME", "builds-of-mine")]);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(served.call(None, Some(&parent)).await, TRACE);
    assert_eq!(served.call(None, None).await.len(), 32);
    // It would say that nobody listens where collectors usually do.
    let log = served.end().await;
    assert!(!log.contains("exported"), "{log}");
    assert!(log.contains(&format!("trace_id={TRACE}")), "{log}");
}

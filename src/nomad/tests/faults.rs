//! What a real Nomad does not do on demand.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::options_at;
use crate::nomad::{
    Client, Dispatch, Follower, Items, NomadError, Options, Position, Stream, Topic, Written,
};

fn client(address: &str) -> Client {
    Client::new(Options {
        timeout: Duration::from_millis(500),
        ..options_at(address)
    })
    .unwrap()
}

/// A server that answers everything so, `times` times; then as `then` says.
async fn first(times: u64, answer: ResponseTemplate, then: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(wiremock::matchers::any())
        .respond_with(answer)
        .up_to_n_times(times)
        .with_priority(1)
        .mount(&server)
        .await;
    Mock::given(wiremock::matchers::any())
        .respond_with(then)
        .mount(&server)
        .await;
    server
}

fn text(status: u16, body: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_string(body)
}

fn leader() -> ResponseTemplate {
    text(200, "\"10.0.0.1:4647\"")
}

async fn requests(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

#[tokio::test]
async fn reads_are_repeated_after_what_passes() {
    for (answer, count) in [
        (text(429, "").insert_header("Retry-After", "1"), 2),
        (text(500, "No cluster leader"), 3),
        (text(500, "rpc error: eventually failed"), 3),
        (text(502, "bad gateway"), 3),
    ] {
        let times = count - 1;
        let server = first(times, answer, leader()).await;
        let begun = Instant::now();
        assert_eq!(
            client(&server.uri()).leader().await.unwrap(),
            "10.0.0.1:4647"
        );
        assert_eq!(requests(&server).await as u64, count);
        if times == 1 {
            assert!(
                begun.elapsed() >= Duration::from_millis(900),
                "it came back too early"
            );
        }
    }
    // It gives up, and says what was said.
    let server = first(99, text(503, "down\u{1b}[31m"), leader()).await;
    let error = client(&server.uri()).leader().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Nomad could not ask for the leader: down (503)"
    );
    assert_eq!(requests(&server).await, 5);
}

#[tokio::test]
async fn nomads_own_refusals_are_not_repeated() {
    for (status, body) in [
        (500, "Enforcing job modify index 0: job already exists"),
        (500, "parameterized job not found"),
        (400, "missing parameter"),
        (403, "Permission denied"),
        (404, "job not found"),
        (500, "Permission denied"),
    ] {
        let server = first(1, text(status, body), leader()).await;
        let error = client(&server.uri()).job("x").await.unwrap_err();
        assert!(error.to_string().contains(body), "{error}");
        assert_eq!(error.is_denied(), body == "Permission denied");
        assert_eq!(error.is_not_found(), status == 404);
        assert_eq!(requests(&server).await, 1, "{body}");
    }
}

#[tokio::test]
async fn a_write_is_repeated_only_when_it_had_no_effect() {
    let written = || {
        text(
            200,
            r#"{"Path": "x", "ModifyIndex": 7, "Items": {"a": "b"}}"#,
        )
    };
    let items = Items::from([("a".to_owned(), "b".to_owned())]);
    for (answer, again) in [
        (text(429, ""), true),
        (text(500, "No cluster leader"), true),
        (text(500, "rpc error: EOF"), false),
        (text(502, ""), false),
    ] {
        let server = first(1, answer, written()).await;
        let done = client(&server.uri()).write_variable("x", &items, 3).await;
        assert_eq!(done.is_ok(), again);
        if let Ok(done) = done {
            assert_eq!(done, Written::Done(7));
        }
        assert_eq!(requests(&server).await, if again { 2 } else { 1 });
    }
    // Nobody listens: it did not arrive.
    let error = client("http://127.0.0.1:1")
        .write_variable("x", &items, 0)
        .await;
    assert!(error.unwrap_err().is_undone());
}

#[tokio::test]
async fn a_dispatch_is_repeated_with_its_token() {
    let done = text(
        200,
        r#"{"DispatchedJobID": "p/dispatch-x-1", "EvalID": ""}"#,
    );
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/job/p/dispatch"))
        .and(query_param("idempotency_token", "x"))
        .and(query_param("namespace", "default"))
        .respond_with(text(500, "rpc error: EOF"))
        .up_to_n_times(1)
        .with_priority(1)
        .mount(&server)
        .await;
    Mock::given(query_param("idempotency_token", "x"))
        .respond_with(done)
        .mount(&server)
        .await;
    let dispatch = Dispatch {
        parent: "p",
        token: "x",
        ..Dispatch::default()
    };
    let answer = client(&server.uri()).dispatch(&dispatch).await.unwrap();
    assert_eq!(answer.job_id, "p/dispatch-x-1");
    assert_eq!(requests(&server).await, 2);
}

#[tokio::test]
async fn a_slash_in_an_id_stays_in_its_segment() {
    let server = MockServer::start().await;
    Mock::given(path("/v1/job/p%2Fdispatch-1%3Fx"))
        .and(header("X-Nomad-Token", "t0ken"))
        .respond_with(text(200, r#"{"ID": "p/dispatch-1?x", "Meta": null}"#))
        .mount(&server)
        .await;
    let client = Client::new(Options {
        token: crate::nomad::Token::Fixed("t0ken".into()),
        ..options_at(&server.uri())
    })
    .unwrap();
    assert_eq!(
        client.job("p/dispatch-1?x").await.unwrap().id,
        "p/dispatch-1?x"
    );
    assert!(!format!("{client:?}").contains("t0ken"));
}

#[tokio::test]
async fn what_is_no_json_is_a_fault_of_the_answer() {
    for body in ["", "{", "[1, 2]", "<html>"] {
        let server = first(9, text(200, body), leader()).await;
        let error = client(&server.uri()).job("x").await.unwrap_err();
        assert!(
            matches!(error, NomadError::Protocol { .. }),
            "{body}: {error:?}"
        );
        assert_eq!(requests(&server).await, 1);
    }
}

/// Answers each connection with these bytes, then holds it or closes it.
async fn raw(answer: Vec<u8>, hold: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(&answer).await.unwrap();
            if hold {
                held.push(stream);
            }
        }
    });
    format!("http://{host}")
}

fn chunked(chunks: &[&str], end: bool) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in chunks {
        bytes.extend(format!("{:x}\r\n{chunk}\r\n", chunk.len()).into_bytes());
    }
    if end {
        bytes.extend(b"0\r\n\r\n");
    }
    bytes
}

#[tokio::test]
async fn slow_and_endless_answers_end() {
    let silent = raw(Vec::new(), true).await;
    let error = client(&silent).leader().await.unwrap_err();
    assert!(matches!(error, NomadError::Timeout { .. }), "{error:?}");
    let unfinished = raw(chunked(&["\"10."], false), true).await;
    let error = client(&unfinished).leader().await.unwrap_err();
    assert!(matches!(error, NomadError::Timeout { .. }), "{error:?}");
    let broken = raw(chunked(&["\"10."], false), false).await;
    let error = client(&broken).leader().await.unwrap_err();
    assert!(matches!(error, NomadError::Unreachable { .. }), "{error:?}");
    // An error whose body never ends is still that error.
    let refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\nno".to_vec();
    let error = client(&raw(refused, true).await)
        .leader()
        .await
        .unwrap_err();
    assert!(error.is_denied(), "{error:?}");
}

#[tokio::test]
async fn a_stream_without_its_heartbeat_is_a_missing_right() {
    let empty = raw(chunked(&[], true), false).await;
    let error = client(&empty).events(&[Topic::Job], 0).await.unwrap_err();
    assert!(error.is_denied(), "{error:?}");
    assert!(error.to_string().contains("read-job"), "{error}");
}

#[tokio::test]
async fn torn_frames_are_put_together_and_broken_ones_told() {
    let job = r#"{"Index": 5, "Events": [{"Topic": "Job", "Key": "j", "Index": 5, "Payload": {"Job": {"ID": "j"}}}, {"Topic": "New", "Index": "x"}]}"#;
    let (head, tail) = job.split_at(40);
    let torn = chunked(&["{}\n", head, tail, "\n", job, "\n{\"Index\": "], true);
    let address = raw(torn, false).await;
    let mut stream = client(&address).events(&[Topic::Job], 0).await.unwrap();
    // Twice the same: who reads merges by the index. What cannot be read is left out.
    for _ in 0..2 {
        let frame = stream.next_frame().await.unwrap().unwrap();
        assert_eq!((frame.index, frame.events.len()), (5, 1));
        assert_eq!(frame.events[0].payload.job.as_ref().unwrap().id, "j");
    }
    let error = stream.next_frame().await.unwrap_err();
    assert!(matches!(error, NomadError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn log_frames_without_anything_between_them() {
    let frames = r#"{}{"Offset":3,"Data":"aGVsbG8=","File":"alloc/logs/t.stdout.2"}{}{"Data":"IQ==","File":"alloc/logs/t.stdout.3"}"#;
    let (head, tail) = frames.split_at(30);
    let address = raw(chunked(&[head, tail], true), false).await;
    let (_tell, dead) = watch::channel(true);
    let mut follower = Follower::new(client(&address), "a", "t", Stream::Stdout, 0, dead);
    assert_eq!(follower.next_chunk().await.unwrap().unwrap(), b"hello");
    assert!(follower.is_headless(), "files 0 and 1 are gone");
    assert_eq!(follower.next_chunk().await.unwrap().unwrap(), b"!");
    assert_eq!(follower.next_chunk().await.unwrap(), None);
    assert_eq!(follower.offset(), 6);

    // An error in words behind the frames.
    let frames = r#"{"Data":"IQ=="}no such file or directory"#;
    let address = raw(chunked(&[frames], true), false).await;
    let position = Position {
        offset: 0,
        follow: false,
    };
    let opened = client(&address)
        .logs("a", "t", Stream::Stdout, position)
        .await;
    let mut stream = opened.unwrap();
    assert_eq!(stream.next_chunk().await.unwrap().unwrap().data, b"!");
    let error = stream.next_chunk().await.unwrap_err().to_string();
    assert!(error.contains("no such file or directory"), "{error}");
}

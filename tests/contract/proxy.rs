//! Between a server and its Nomad: an event stream that says some things twice, and some never.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::StreamExt;
use tokio::net::TcpListener;

/// What becomes of an event, by its number.
pub type Fault = fn(usize) -> usize;

#[derive(Clone)]
struct Proxy {
    to: String,
    /// How often a line of the stream is passed on.
    times: Fault,
    client: reqwest::Client,
}

/// Passes everything on to `to`, the lines of the event stream as often as `times` says; `host:port` of it.
pub async fn open(to: String, times: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = reqwest::Client::new();
    let app = Router::new()
        .fallback(pass)
        .with_state(Proxy { to, times, client });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut headers = parts.headers;
    headers.remove("host");
    let answer = proxy
        .client
        .request(parts.method, format!("{}{path}", proxy.to))
        .headers(headers)
        .body(body)
        .send()
        .await;
    // The server repeats what it can.
    let Ok(answer) = answer else {
        return Response::builder().status(502).body(Body::empty()).unwrap();
    };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if !matches!(name.as_str(), "transfer-encoding" | "content-length") {
            response = response.header(name, value);
        }
    }
    let stream = answer.bytes_stream();
    let body = if path.starts_with("/v1/event/stream") {
        let (times, mut number, mut rest) = (proxy.times, 0, Vec::new());
        Body::from_stream(stream.map(move |chunk| {
            chunk.map(|chunk| {
                rest.extend_from_slice(&chunk);
                let mut passed = Vec::new();
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    // Heartbeats are no events.
                    let repeat = if line == b"{}\n" { 1 } else { times(number) };
                    number += usize::from(line != b"{}\n");
                    (0..repeat).for_each(|_| passed.extend_from_slice(&line));
                }
                passed
            })
        }))
    } else {
        Body::from_stream(stream)
    };
    response.body(body).unwrap()
}

//! `/v1/builds/{id}/log`: a whole log as plain text, for people and their tools.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::backend::View;
use crate::build::request::{LogFrom, LogsRequest};
use crate::mcp::Meter;
use crate::service::{Patience, Principal, Service, ToolError, Waiting};

use super::plain;

/// Of one reading: the most that the tool gives.
const LINES: u32 = 2000;
const BYTES: u32 = 30_720;
/// Seconds that one reading waits for more, when it follows.
const WAIT: u32 = 20;

#[derive(Clone)]
struct Logs {
    service: Service,
    meter: Arc<dyn Meter>,
    ending: CancellationToken,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    /// Go on until the build has ended.
    follow: bool,
}

/// The route; whoever asks is known by then.
pub fn router(service: Arc<Service>, meter: Arc<dyn Meter>, ending: CancellationToken) -> Router {
    Router::new()
        .route("/v1/builds/{id}/log", get(log))
        .with_state(Logs {
            service: service.as_ref().clone(),
            meter,
            ending,
        })
}

/// Where a stream of a log is.
struct Reading {
    logs: Logs,
    principal: Principal,
    request: LogsRequest,
    follow: bool,
    /// What was read and not sent yet.
    ready: Option<Bytes>,
    /// Nothing comes any more.
    over: bool,
    /// The server ends before the build does.
    cut: bool,
}

impl Reading {
    /// Reads on.
    async fn advance(&mut self) -> Result<(), ToolError> {
        let mut tell = |_: &View| {};
        let mut waiting = Waiting {
            gone: Patience {
                caller: CancellationToken::new(),
                server: self.logs.ending.clone(),
            },
            tell: &mut tell,
        };
        let (service, principal) = (&self.logs.service, &self.principal);
        let answer = service.whole_logs(principal, &self.request, &mut waiting);
        let answer = answer.await?;
        if !answer.text.is_empty() {
            self.logs.meter.gave_log(answer.text.len());
            self.ready = Some(Bytes::from(format!("{}\n", answer.text)));
        }
        let ending = self.logs.ending.is_cancelled();
        self.over = !answer.more_after && (answer.complete || !self.follow);
        self.cut = ending && !self.over && !answer.more_after;
        if answer.cursor.is_some() {
            self.request.cursor = answer.cursor;
        }
        Ok(())
    }
}

async fn log(
    State(mut logs): State<Logs>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Query(wish): Query<Wish>,
) -> Response {
    logs.service = logs.service.now();
    let mut reading = Reading {
        logs,
        principal,
        request: LogsRequest {
            build_id: id,
            from: Some(LogFrom::Start),
            lines: Some(LINES),
            max_bytes: Some(BYTES),
            wait: None,
            ..LogsRequest::default()
        },
        follow: wish.follow,
        ready: None,
        over: false,
        cut: false,
    };
    if let Err(error) = reading.logs.service.count_call(&reading.principal) {
        return plain::refused(&error);
    }
    // The first part is read before the answer begins: there may be no such build.
    if let Err(error) = reading.advance().await {
        return plain::refused(&error);
    }
    reading.request.wait = reading.follow.then_some(WAIT);
    let parts = stream::unfold(reading, |mut reading| async move {
        loop {
            if let Some(part) = reading.ready.take() {
                return Some((Ok(part), reading));
            }
            if reading.over {
                return None;
            }
            // Whoever reads sees that this is not the end.
            if reading.cut {
                let text = "the server ends; the build goes on";
                reading.over = true;
                return Some((Err(io::Error::other(text)), reading));
            }
            if let Err(error) = reading.advance().await {
                reading.over = true;
                return Some((Err(io::Error::other(error.to_string())), reading));
            }
        }
    });
    // A browser must not take what a build has printed for a page.
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(parts)).into_response()
}

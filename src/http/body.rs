//! Bodies of requests, bounded in size and in time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// Bytes of a message at most: the files of a build with all their escapes, and more.
pub const MOST: usize = 4 * 1024 * 1024;
/// How long a message may take to arrive.
const IN_TIME: Duration = Duration::from_secs(30);

/// Reads the whole message before anybody works on it.
pub async fn whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(IN_TIME, Limited::new(body, MOST).collect()).await {
        Ok(Ok(body)) => {
            let body = Body::from(body.to_bytes());
            next.run(Request::from_parts(parts, body)).await
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("a message has at most {} MiB\n", MOST >> 20);
            (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a message cannot be read");
            (StatusCode::BAD_REQUEST, "the message cannot be read\n").into_response()
        }
        Err(_) => {
            let text = format!("the message was not there within {} s\n", IN_TIME.as_secs());
            (StatusCode::REQUEST_TIMEOUT, text).into_response()
        }
    }
}

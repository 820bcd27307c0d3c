//! Refusals of what is no MCP: text for people, a status for their tools.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};

use crate::schema::error_code::ErrorCode;
use crate::service::ToolError;

/// What a caller is told of a fault that is this server's.
const OURS: &str = "error[internal] server: this server cannot do it now; its log says why\n";

/// The answer to a request that cannot be carried out.
pub fn refused(error: &ToolError) -> Response {
    let code = error.code();
    let status = match code {
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::NotAllowed => StatusCode::FORBIDDEN,
        ErrorCode::LimitReached => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::BackendUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let text = if code == ErrorCode::Internal {
        tracing::error!(%error, "a request cannot be carried out");
        OURS.to_owned()
    } else {
        format!("{error}\n")
    };
    let mut response = (status, text).into_response();
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn nobody_is_told_of_this_machine() {
        let response = refused(&ToolError::internal("/var/lib/x: No space left on device"));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, OURS);
    }
}

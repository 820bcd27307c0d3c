//! `/v1/builds/{id}/outputs/{name}`: what a build has handed over, as it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio_util::io::ReaderStream;

use crate::service::{Principal, Service};

use super::plain;

/// The route; whoever asks is known by then.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/builds/{id}/outputs/{name}", get(output))
        .with_state(service)
}

async fn output(
    State(service): State<Arc<Service>>,
    Extension(principal): Extension<Principal>,
    Path((id, name)): Path<(String, String)>,
) -> Response {
    let service = service.now();
    if let Err(error) = service.count_call(&principal) {
        return plain::refused(&error);
    }
    let opened = match service.output(&principal, &id, &name).await {
        Ok(opened) => opened,
        Err(error) => return plain::refused(&error),
    };
    let file = match tokio::fs::File::open(&opened.path).await {
        Ok(file) => file,
        Err(error) => {
            tracing::error!(%error, "an output cannot be read");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let output = opened.output;
    let digest = output.digest.unwrap_or_default();
    // A browser must not take what a build has made for a page of this server.
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CONTENT_LENGTH, output.size_bytes.unwrap_or(0).to_string()),
        // Names of outputs are of plain characters only.
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}\"", output.name),
        ),
        (ETAG, format!("\"{digest}\"")),
    ];
    (headers, Body::from_stream(ReaderStream::new(file))).into_response()
}

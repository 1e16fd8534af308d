//! An id for each request: in its log lines, its audit rows, its answer.

use std::time::Instant;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;
use uuid::Uuid;

tokio::task_local! {
    static REQUEST_ID: String;
}

pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request that is being handled.
pub(super) fn request_id() -> Option<String> {
    REQUEST_ID.try_with(Clone::clone).ok()
}

/// The same work for a task of its own: with the id and the log's span of the request.
pub(super) fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    REQUEST_ID.scope(request_id().unwrap_or_default(), work).in_current_span()
}

pub(super) async fn request(request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let started = Instant::now();
    // The query may hold a cursor, never a secret; it is left out all the same.
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    let header = HeaderValue::from_str(&id);
    let mut response = REQUEST_ID.scope(id, next.run(request)).instrument(span.clone()).await;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), elapsed = ?started.elapsed(), "answered"));
    if let Ok(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    response
}

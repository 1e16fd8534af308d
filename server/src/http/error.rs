//! One envelope for all errors.

use axum::{
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use berth_api::{PROBLEM_JSON, Problem as Body};

use super::middleware::request_id;
use crate::{
    chain,
    domain::{InvalidEgress, Problem, Refusal},
    service,
};

/// A problem; its `code` says which.
#[derive(utoipa::IntoResponses)]
#[response(status = "default", content_type = "application/problem+json")]
#[expect(dead_code, reason = "it stands in the document, answers are made by Error")]
pub(super) struct Failure(Body);

/// An error on its way to the client.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    problem: Problem,
    /// Seconds, for the header `Retry-After`.
    retry_after: Option<u64>,
}

impl Error {
    pub(super) fn new(status: StatusCode, refusal: Refusal, code: &str, detail: impl Into<String>) -> Self {
        Self { status, problem: Problem::new(refusal, code, detail), retry_after: None }
    }

    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.problem.hint = Some(hint.to_owned());
        self
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Refusal::Failed, "internal", "the server failed; its log says why")
            .hint("look for the request id in the log of berth-server")
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { status: status(problem.refusal), problem, retry_after: None }
    }
}

impl From<InvalidEgress> for Error {
    fn from(error: InvalidEgress) -> Self {
        Problem::new(Refusal::Limit, "invalid_policy", error.to_string()).hint(error.hint()).into()
    }
}

impl From<service::Error> for Error {
    fn from(error: service::Error) -> Self {
        if error.is_fault() {
            tracing::warn!(error = chain(&error), "a request could not be done");
        }
        let retry_after = match &error {
            service::Error::Throttled { seconds } => Some(*seconds),
            _ => None,
        };
        Self { retry_after, ..error.problem().map_or_else(Self::internal, Self::from) }
    }
}

fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::Invalid => StatusCode::BAD_REQUEST,
        Refusal::NotAuthenticated => StatusCode::UNAUTHORIZED,
        Refusal::NotPermitted => StatusCode::FORBIDDEN,
        Refusal::NotFound => StatusCode::NOT_FOUND,
        Refusal::Conflict => StatusCode::CONFLICT,
        Refusal::Outdated => StatusCode::PRECONDITION_FAILED,
        Refusal::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Limit => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Refusal::Failed => StatusCode::BAD_GATEWAY,
    }
}

/// A problem as the client sees it.
pub(super) fn body(status: StatusCode, problem: Problem, request_id: Option<String>) -> Body {
    Body { status: status.as_u16(), code: problem.code, detail: problem.detail, hint: problem.hint, request_id }
}

/// The problem of a stored operation.
pub(super) fn stored(problem: Problem) -> Body {
    body(status(problem.refusal), problem, None)
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = body(self.status, self.problem, request_id());
        let text = serde_json::to_string(&body).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, PROBLEM_JSON)], text).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Error {
    let path: String = uri.path().chars().take(200).collect();
    Error::new(StatusCode::NOT_FOUND, Refusal::NotFound, "no_such_path", format!("there is nothing at {path}"))
        .hint("GET /openapi.json lists all paths")
}

pub(super) async fn no_such_method(method: Method) -> Error {
    Error::new(StatusCode::METHOD_NOT_ALLOWED, Refusal::Invalid, "method_not_allowed", format!("this path does not take {method}"))
        .hint("GET /openapi.json lists what each path takes")
}

pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    Error::internal().into_response()
}

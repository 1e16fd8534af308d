//! Extractors whose refusals are problems, not plain text.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::error::Error;
use crate::{domain::Refusal, service::Page};

/// Largest JSON body; the largest that makes sense is a command with its arguments.
pub(super) const MAX_JSON: usize = 256 * 1024;
/// A JSON body that takes longer is given up.
const SLOW: Duration = Duration::from_secs(20);

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

/// A JSON body that may list many things.
pub(super) struct LargeJson<T>(pub(super) T);

/// A thousand entries with all of their limits.
const MAX_LARGE_JSON: usize = 1 << 20;

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        json(request, MAX_JSON).await.map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for LargeJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        json(request, MAX_LARGE_JSON).await.map(Self)
    }
}

async fn json<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Error> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body must be application/json")
            .hint("send the header Content-Type: application/json"));
    }
    let bytes = up_to(request.into_body(), most).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let code = if error.is_data() { "invalid_body" } else { "malformed_json" };
        invalid(StatusCode::BAD_REQUEST, code, &shorten(&error.to_string()))
    })
}

/// The whole of a JSON body, as far as any may go and within [`SLOW`].
pub(super) async fn whole(body: Body) -> Result<Bytes, Error> {
    up_to(body, MAX_LARGE_JSON).await
}

async fn up_to(body: Body, most: usize) -> Result<Bytes, Error> {
    match tokio::time::timeout(SLOW, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body passes {most} bytes");
            Err(invalid(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &detail))
        }
        Ok(Err(_)) => Err(invalid(StatusCode::BAD_REQUEST, "broken_body", "the body broke off")),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", SLOW.as_secs());
            Err(invalid(StatusCode::REQUEST_TIMEOUT, "slow_body", &detail))
        }
    }
}

/// The parts of the path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|error| invalid(StatusCode::BAD_REQUEST, "invalid_path", &shorten(&error.body_text())))
    }
}

/// The query string.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| invalid(StatusCode::BAD_REQUEST, "invalid_query", &shorten(&error.body_text())))
    }
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Rows of a page: 1 to 500, 100 unless set.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl PageQuery {
    pub(super) fn page(self) -> Result<(Page, u32), Error> {
        page(self.limit, self.cursor)
    }
}

/// The page with one row more than is shown, which tells whether there is a next one.
pub(super) fn page(limit: Option<u32>, cursor: Option<String>) -> Result<(Page, u32), Error> {
    const DEFAULT: u32 = 100;
    const MOST: u32 = 500;
    const LONGEST: usize = 256;
    let limit = limit.unwrap_or(DEFAULT);
    if !(1..=MOST).contains(&limit) {
        return Err(invalid(StatusCode::BAD_REQUEST, "invalid_limit", &format!("limit is {limit}, it must lie between 1 and {MOST}")));
    }
    if cursor.as_ref().is_some_and(|cursor| cursor.len() > LONGEST || cursor.contains('\0')) {
        return Err(invalid(StatusCode::BAD_REQUEST, "invalid_cursor", "the cursor is not one that a page of this list gave"));
    }
    Ok((Page { cursor, limit: limit + 1 }, limit))
}

fn invalid(status: StatusCode, code: &str, detail: &str) -> Error {
    Error::new(status, Refusal::Invalid, code, detail)
}

/// What a parser says may repeat megabytes of input.
fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}

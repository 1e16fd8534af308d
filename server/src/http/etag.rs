//! `ETag` and `If-Match` of things that can be changed, and weak tags of lists.

use axum::{
    Json as Answer,
    body::Body,
    extract::{FromRequestParts, Request},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use serde::Serialize;
use std::hash::{DefaultHasher, Hasher};

use super::error::Error;
use crate::domain::{Expected, Refusal};

/// Bytes of the header, entries in it.
const LONGEST: usize = 4_096;
const MOST: usize = 32;

/// An answer with the revision of what it shows.
pub(super) struct Tagged<T>(pub(super) String, pub(super) T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Answer(self.1).into_response();
        if let Ok(value) = HeaderValue::try_from(format!("\"{}\"", self.0)) {
            response.headers_mut().insert(header::ETAG, value);
        }
        response
    }
}

/// `If-Match`; `*` is whatever there is.
pub(super) struct IfMatch(pub(super) Expected);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let mut revisions = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            let text = value.to_str().ok().filter(|text| text.len() <= LONGEST).ok_or_else(invalid)?.trim();
            if text == "*" {
                return Ok(Self(Expected::Whatever));
            }
            for tag in text.split(',').map(str::trim) {
                // A weak tag matches nothing here (RFC 9110, 13.1.1).
                let tag = tag.strip_prefix("W/").map_or(tag, |_| "\"\"");
                revisions.push(tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(invalid)?.to_owned());
            }
        }
        match revisions.len() {
            0 => Ok(Self(Expected::Whatever)),
            1..=MOST => Ok(Self(Expected::OneOf(revisions))),
            _ => Err(invalid()),
        }
    }
}

fn invalid() -> Error {
    let detail = "If-Match holds ETags in double quotes, or *";
    Error::new(StatusCode::BAD_REQUEST, Refusal::Invalid, "invalid_if_match", detail).hint("send the ETag of the answer that you saw")
}

/// Gives JSON answers to GET a weak tag of their bytes, and answers 304 when the client has them. What has a tag of its own keeps it.
pub(super) async fn weak(request: Request, next: Next) -> Response {
    let get = request.method() == Method::GET;
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let tagged = [header::ETAG, header::CACHE_CONTROL].iter().any(|name| response.headers().contains_key(name));
    if !get || response.status() != StatusCode::OK || !json || tagged {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else { return Error::internal().into_response() };
    let bytes = body.to_bytes();
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    let tag = format!("W/\"{:016x}\"", hasher.finish());
    let Ok(value) = HeaderValue::try_from(&tag) else { return Response::from_parts(parts, Body::from(bytes)) };
    parts.headers.insert(header::ETAG, value);
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    let same = known.is_some_and(|known| known.to_str().is_ok_and(|text| text.split(',').any(|one| one.trim() == tag)));
    if !same {
        return Response::from_parts(parts, Body::from(bytes));
    }
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.status = StatusCode::NOT_MODIFIED;
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(values: &[&str]) -> Result<Expected, ()> {
        let mut request = Request::builder();
        for value in values {
            request = request.header(header::IF_MATCH, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        IfMatch::from_request_parts(&mut parts, &()).await.map(|IfMatch(expected)| expected).map_err(drop)
    }

    #[tokio::test]
    async fn if_match_names_revisions() {
        assert_eq!(parsed(&[]).await, Ok(Expected::Whatever));
        assert_eq!(parsed(&["*"]).await, Ok(Expected::Whatever));
        assert_eq!(parsed(&["\"a\", \"b\"", "\"c\""]).await, Ok(Expected::OneOf(["a", "b", "c"].map(str::to_owned).to_vec())));
        assert_eq!(parsed(&["W/\"a\""]).await, Ok(Expected::OneOf(vec![String::new()])));
        for bad in ["a", "\"a", "\"a\" \"b\"x", ""] {
            assert_eq!(parsed(&[bad]).await, Err(()), "{bad:?}");
        }
    }
}

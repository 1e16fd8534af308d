//! `Idempotency-Key` on POST, PATCH and DELETE: the answer of a request that was done is kept and given again. The request goes on when its
//! client goes away, so that a key never stands for half a request.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Limited};
use sha2::{Digest, Sha256};

use super::{Api, error::Error, extract, middleware};
use crate::{
    chain,
    domain::{Caller, KeptAnswer, Refusal},
};

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on an answer that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of a key.
const LONGEST: usize = 255;
/// Longer answers are not kept.
const MAX_KEPT: usize = 64 * 1024;
/// What is kept of an answer's head.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];

pub(super) async fn keyed(State(api): State<Api>, request: Request, next: Next) -> Response {
    let writes = matches!(*request.method(), Method::POST | Method::PATCH | Method::DELETE);
    // Who asks is what these find out; a key is a caller's.
    let proves = ["/sessions", "/tokens/exchange"].iter().any(|path| request.uri().path().ends_with(path));
    let proves = proves && *request.method() == Method::POST;
    match request.headers().get(KEY).cloned() {
        Some(key) if writes && !proves => handle(api, key, request, next).await.unwrap_or_else(IntoResponse::into_response),
        _ => next.run(request).await,
    }
}

async fn handle(api: Api, key: HeaderValue, request: Request, next: Next) -> Result<Response, Error> {
    let key = valid(&key)?;
    if request.headers().contains_key(header::UPGRADE) {
        return Err(invalid("idempotency_not_possible", "a connection that is upgraded cannot be had a second time"));
    }
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &api).await?;
    let bytes = extract::whole(body).await?;
    let hash = hash(&parts.method, parts.uri.path_and_query().map_or("", |path| path.as_str()), &bytes);
    if let Some(answer) = api.service.begin_keyed(&caller, &key, &hash).await? {
        return Ok(again(answer));
    }
    let request = Request::from_parts(parts, Body::from(bytes));
    let tasks = api.tasks.clone();
    let work = middleware::carried(async move {
        let response = next.run(request).await;
        keep(&api, &caller, &key, response).await
    });
    tasks.spawn(work).await.map_err(|_| Error::internal())
}

/// Keeps a success, forgets anything else. What cannot be kept is answered all the same: its key then says that it was interrupted.
async fn keep(api: &Api, caller: &Caller, key: &str, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let Ok(body) = Limited::new(body, usize::MAX).collect().await else { return Error::internal().into_response() };
    let bytes = body.to_bytes();
    let answer = parts.status.is_success().then(|| {
        let secret = parts.headers.get(header::CACHE_CONTROL).is_some_and(|value| value.as_bytes() == b"no-store")
            || parts.headers.contains_key(header::SET_COOKIE);
        let body = (!secret && bytes.len() <= MAX_KEPT).then(|| String::from_utf8(bytes.to_vec()).ok()).flatten();
        KeptAnswer { status: parts.status.as_u16(), headers: kept(&parts.headers), body }
    });
    if let Err(error) = api.service.end_keyed(caller, key, answer.as_ref()).await {
        tracing::warn!(error = chain(&error), "the answer of a request with a key is not kept");
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |name: &HeaderName| Some((name.to_string(), headers.get(name)?.to_str().ok()?.to_owned()));
    KEPT.iter().filter_map(text).collect()
}

fn again(answer: KeptAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body.unwrap_or_default()).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn valid(key: &HeaderValue) -> Result<String, Error> {
    match key.to_str() {
        Ok(key) if (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(key.to_owned()),
        _ => Err(invalid("invalid_idempotency_key", "an Idempotency-Key has 1 to 255 visible ASCII characters")),
    }
}

fn hash(method: &Method, path: &str, body: &Bytes) -> String {
    use std::fmt::Write;
    let mut digest = Sha256::new();
    for part in [method.as_str().as_bytes(), b"\n", path.as_bytes(), b"\n"] {
        digest.update(part);
    }
    digest.update(body);
    digest.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn invalid(code: &str, detail: &str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, Refusal::Invalid, code, detail)
}

//! Who asks: the kernel's peer credential on the unix socket, a bearer's token, or the cookie of a session.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};

use super::{
    Api,
    error::Error,
    identity::Identified,
    listener::{PeerUid, Remote},
    middleware::request_id,
};
use crate::{
    domain::{Caller, Owner, Refusal, Scope, Source, Via},
    service::{Browser, Proven},
};

/// Only this host sets it, only over what is safe, and for no other path: `__Host-` makes browsers insist. Chromium and Firefox take
/// http://localhost and http://127.0.0.1 for safe too.
pub(super) const COOKIE: &str = "__Host-berth";

impl FromRequestParts<Api> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let mut caller = found(parts, api).await?;
        caller.request_id = request_id().unwrap_or_default();
        Ok(caller)
    }
}

async fn found(parts: &Parts, api: &Api) -> Result<Caller, Error> {
    let proven = match (bearer(&parts.headers)?, parts.extensions.get::<PeerUid>(), cookie(&parts.headers)) {
        (Some(token), _, _) => api.service.proven_by_bearer(token).await?,
        // On the socket a cookie has no meaning.
        (None, Some(PeerUid(uid)), _) => return of_peer(*uid, api).await,
        (None, None, Some(secret)) => api.service.proven_by_session(secret, source(parts)?, agent(&parts.headers)).await?,
        (None, None, None) => return Err(nobody()),
    };
    let Proven { owner, via, scope } = proven;
    match owner {
        Owner::Administrator(id) => Ok(api.service.administrator_caller(id, via, scope).await?),
        Owner::Host { uid, name } => match api.identity.of(uid).await {
            // Somebody else may have the uid by now, or the name.
            Identified::Account { name: now } if now == name => Ok(api.service.host_caller(&name, uid, via, scope).await?),
            Identified::Unknown(reason) => Err(unknown(uid, &reason)),
            Identified::Account { .. } | Identified::Nobody => {
                let detail = format!("the account {name} (uid {uid}) is gone from this host");
                Err(Error::new(StatusCode::UNAUTHORIZED, Refusal::NotAuthenticated, "account_gone", detail))
            }
        },
    }
}

async fn of_peer(uid: u32, api: &Api) -> Result<Caller, Error> {
    match api.identity.of(uid).await {
        Identified::Account { name } => Ok(api.service.host_caller(&name, uid, Via::Socket, Scope::Admin).await?),
        Identified::Nobody => {
            let detail = format!("uid {uid} is no account of this host");
            Err(Error::new(StatusCode::FORBIDDEN, Refusal::NotPermitted, "unknown_account", detail))
        }
        Identified::Unknown(reason) => Err(unknown(uid, &reason)),
    }
}

fn unknown(uid: u32, reason: &str) -> Error {
    let detail = format!("the account of uid {uid} cannot be looked up: {reason}");
    Error::new(StatusCode::SERVICE_UNAVAILABLE, Refusal::Unavailable, "accounts_unavailable", detail)
        .hint("see whether the host's directory service answers: getent passwd")
}

fn nobody() -> Error {
    Error::new(StatusCode::UNAUTHORIZED, Refusal::NotAuthenticated, "unauthenticated", "it is not known who asks")
        .hint("sign in (POST /api/v1/sessions), or send a token: Authorization: Bearer …")
}

/// Where the request comes from, for those that have no caller yet.
impl FromRequestParts<Api> for Browser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let request_id = request_id().unwrap_or_default();
        Ok(Self { source: source(parts)?, agent: agent(&parts.headers).to_owned(), request_id })
    }
}

/// The secret of an `Authorization: Bearer` header.
pub(super) struct Bearer(pub(super) String);

impl FromRequestParts<Api> for Bearer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        bearer(&parts.headers)?.map(|token| Self(token.to_owned())).ok_or_else(|| {
            Error::new(StatusCode::UNAUTHORIZED, Refusal::NotAuthenticated, "unauthenticated", "an API token is needed")
                .hint("Authorization: Bearer berth_…")
        })
    }
}

fn source(parts: &Parts) -> Result<Source, Error> {
    if let Some(PeerUid(uid)) = parts.extensions.get() {
        return Ok(Source::Uid(*uid));
    }
    parts.extensions.get().map(|remote: &Remote| remote.source()).ok_or_else(nobody)
}

fn agent(headers: &HeaderMap) -> &str {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| Some(token.trim())).ok_or_else(|| {
        let detail = "the header Authorization is not: Bearer and a token";
        Error::new(StatusCode::UNAUTHORIZED, Refusal::NotAuthenticated, "unauthenticated", detail)
    })
}

/// The secret of our cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn our_cookie_is_found_among_others_and_nothing_like_it() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; __host-berth=no; x__Host-berth=no"));
        assert_eq!(cookie(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("c=d;__Host-berth=abc-_1"));
        assert_eq!(cookie(&headers), Some("abc-_1"));
    }

    #[test]
    fn a_bearer_is_a_bearer_or_refused() {
        let mut headers = HeaderMap::new();
        assert!(matches!(bearer(&headers), Ok(None)));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("bearer berth_x"));
        assert!(matches!(bearer(&headers), Ok(Some("berth_x"))));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
        assert!(bearer(&headers).is_err());
    }
}

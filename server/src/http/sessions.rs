//! Signing in, who one is, and sessions.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderName, StatusCode, header},
};
use berth_api::{Me, Session, SessionList, SessionsEnded, SignIn, SignInLink};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    Api,
    caller::COOKIE,
    convert::sign_in as convert,
    error::{Error, Failure},
    extract::{Json, Path, Query, page},
    paged,
};
use crate::{
    domain::{Caller, SessionId, Via},
    service::Browser,
};

/// Which page, and of whom.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnedQuery {
    /// Rows of a page: 1 to 500, 100 unless set.
    #[param(minimum = 1, maximum = 500)]
    pub(super) limit: Option<u32>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
    /// Everybody's, where the caller may; else his own.
    #[serde(default)]
    pub(super) all: bool,
}

/// The answer holds a secret: nobody keeps it, our own memory of requests with a key neither.
pub(super) type Secretly = [(HeaderName, &'static str); 1];
pub(super) const SECRETLY: Secretly = [(header::CACHE_CONTROL, "no-store")];

/// Says who asks, with which role, and what he may do.
#[utoipa::path(get, path = "/me", tag = "accounts", responses((status = 200, body = Me), Failure))]
pub(super) async fn show_me(State(api): State<Api>, caller: Caller) -> Result<Answer<Me>, Error> {
    Ok(Answer(convert::me(&api.service.me(&caller).await?)))
}

/// Signs a browser in; the answer sets the cookie `__Host-berth`.
#[utoipa::path(post, path = "/sessions", tag = "accounts", request_body = SignIn,
    responses((status = 201, body = Session, headers(("Set-Cookie" = String, description = "__Host-berth; Secure; HttpOnly; SameSite=Strict"))), Failure), security(()))]
pub(super) async fn create_session(
    State(api): State<Api>,
    browser: Browser,
    Json(request): Json<SignIn>,
) -> Result<(StatusCode, [(HeaderName, String); 2], Answer<Session>), Error> {
    let (session, secret) = match request {
        SignIn::Password { name, password } => api.service.sign_in(&name, &password.0, &browser).await?,
        SignIn::Link { link } => api.service.follow_link(&link.0, &browser).await?,
    };
    let cookie = format!("{COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict");
    let current = session.id;
    let headers = [(header::SET_COOKIE, cookie), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Answer(convert::session(session, Some(current)))))
}

/// Lists sessions, newest first.
#[utoipa::path(get, path = "/sessions", tag = "accounts", params(OwnedQuery), responses((status = 200, body = SessionList), Failure))]
pub(super) async fn list_sessions(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<OwnedQuery>,
) -> Result<Answer<SessionList>, Error> {
    let (page, limit) = page(query.limit, query.cursor)?;
    let current = current(&caller);
    let sessions = api.service.sessions(&caller, query.all, &page).await?;
    let (items, next) = paged(sessions, limit, |session| session.id.to_string(), |session| convert::session(session, current));
    Ok(Answer(SessionList { items, next }))
}

/// Signs out: ends a session, `current` being the one that asks.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "accounts", params(("id" = String, Path, description = "Its id, or `current`")),
    responses((status = 204), Failure))]
pub(super) async fn revoke_session(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Error> {
    let session = match (id.as_str(), current(&caller)) {
        ("current", Some(current)) => current,
        (id, _) => SessionId(id.parse().unwrap_or(Uuid::nil())),
    };
    api.service.revoke_session(&caller, session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all sessions of the caller but the one that asks.
#[utoipa::path(delete, path = "/sessions", tag = "accounts", responses((status = 200, body = SessionsEnded), Failure))]
pub(super) async fn revoke_sessions(State(api): State<Api>, caller: Caller) -> Result<Answer<SessionsEnded>, Error> {
    Ok(Answer(SessionsEnded { ended: api.service.revoke_sessions(&caller).await? }))
}

/// Makes a one-time link that opens the dashboard as the host account that asks, on the unix socket.
#[utoipa::path(post, path = "/sessions/links", tag = "accounts", responses((status = 201, body = SignInLink), Failure))]
pub(super) async fn create_link(State(api): State<Api>, caller: Caller) -> Result<(StatusCode, Secretly, Answer<SignInLink>), Error> {
    let link = api.service.create_link(&caller).await?;
    Ok((StatusCode::CREATED, SECRETLY, Answer(SignInLink { url: link.url, expires_at: link.expires_at })))
}

fn current(caller: &Caller) -> Option<SessionId> {
    match caller.via {
        Via::Session(id) => Some(id),
        _ => None,
    }
}

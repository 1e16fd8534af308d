//! API tokens, and what is got with them.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api::{AccessToken, NewToken, Secret, SigningKeys, TokenCreated, TokenList};
use uuid::Uuid;

use super::{
    Api,
    caller::Bearer,
    convert::sign_in as convert,
    error::{Error, Failure},
    extract::{Json, Path, Query, page},
    paged,
    sessions::{OwnedQuery, SECRETLY, Secretly},
};
use crate::{
    domain::{Caller, TokenId},
    service::{Browser, NewApiToken},
};

/// Lists API tokens, newest first; their secrets are not kept.
#[utoipa::path(get, path = "/tokens", tag = "accounts", params(OwnedQuery), responses((status = 200, body = TokenList), Failure))]
pub(super) async fn list_tokens(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<OwnedQuery>,
) -> Result<Answer<TokenList>, Error> {
    let (page, limit) = page(query.limit, query.cursor)?;
    let tokens = api.service.tokens(&caller, query.all, &page).await?;
    let (items, next) = paged(tokens, limit, |token| token.id.to_string(), convert::token);
    Ok(Answer(TokenList { items, next }))
}

/// Makes an API token of the caller.
#[utoipa::path(post, path = "/tokens", tag = "accounts", request_body = NewToken, responses((status = 201, body = TokenCreated), Failure))]
pub(super) async fn create_token(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Secretly, Answer<TokenCreated>), Error> {
    let request = NewApiToken { name: new.name, scope: convert::scope_asked(new.scope), life: new.expires_in };
    let (token, secret) = api.service.create_token(&caller, request).await?;
    Ok((StatusCode::CREATED, SECRETLY, Answer(TokenCreated { token: convert::token(token), secret: Secret(secret) })))
}

/// Revokes an API token, and with it what was got with it.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "accounts", params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 204), Failure))]
pub(super) async fn revoke_token(State(api): State<Api>, caller: Caller, Path(id): Path<Uuid>) -> Result<StatusCode, Error> {
    api.service.revoke_token(&caller, TokenId(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives an access token for the API token of the header `Authorization`.
#[utoipa::path(post, path = "/tokens/exchange", tag = "accounts", responses((status = 200, body = AccessToken), Failure),
    security(("token" = [])))]
pub(super) async fn exchange_token(
    State(api): State<Api>,
    browser: Browser,
    Bearer(secret): Bearer,
) -> Result<(Secretly, Answer<AccessToken>), Error> {
    let (access_token, expires_at, expires_in) = api.service.exchange_token(&secret, browser.source).await?;
    let access = AccessToken { access_token: Secret(access_token), token_type: "Bearer".to_owned(), expires_in, expires_at };
    Ok((SECRETLY, Answer(access)))
}

/// Makes a new key for access tokens; the one before it counts on, older ones do not.
#[utoipa::path(post, path = "/tokens/keys/rotate", tag = "accounts", responses((status = 200, body = SigningKeys), Failure))]
pub(super) async fn rotate_keys(State(api): State<Api>, caller: Caller) -> Result<Answer<SigningKeys>, Error> {
    let keys = api.service.rotate_keys(&caller).await?;
    Ok(Answer(SigningKeys { keys: keys.into_iter().map(convert::key).collect() }))
}

//! Rules: which profile the members of a host group get.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api as api;

use super::{
    Api,
    error::{Error, Failure},
    extract::{Json, Path},
    many,
};
use crate::{
    domain::{Caller, Rule},
    service::{ChangeRule, Mode, NewRule},
};

/// Lists the rules in their order.
#[utoipa::path(get, path = "/rules", tag = "rules", responses((status = 200, body = api::RuleList), Failure))]
pub(super) async fn list_rules(State(api): State<Api>, caller: Caller) -> Result<Answer<api::RuleList>, Error> {
    let rules = api.service.rules(&caller).await?;
    Ok(Answer(api::RuleList { items: rules.into_iter().map(rule).collect() }))
}

/// Makes a rule; no berth changes by it until the rules are applied.
#[utoipa::path(post, path = "/rules", tag = "rules", request_body = api::NewRule, responses((status = 201, body = api::Rule), Failure))]
pub(super) async fn create_rule(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<api::NewRule>,
) -> Result<(StatusCode, Answer<api::Rule>), Error> {
    let api::NewRule { group, profile, auto, most, position } = new;
    let made = api.service.create_rule(&caller, NewRule { group, profile, auto, most, position }).await?;
    Ok((StatusCode::CREATED, Answer(rule(made))))
}

/// Changes a rule, or moves it to another place.
#[utoipa::path(patch, path = "/rules/{group}", tag = "rules", params(("group" = String, Path, description = "Name of the host group")),
    request_body = api::RuleChange, responses((status = 200, body = api::Rule), Failure))]
pub(super) async fn change_rule(
    State(api): State<Api>,
    caller: Caller,
    Path(group): Path<String>,
    Json(change): Json<api::RuleChange>,
) -> Result<Answer<api::Rule>, Error> {
    let api::RuleChange { profile, auto, most, position } = change;
    Ok(Answer(rule(api.service.change_rule(&caller, &group, ChangeRule { profile, auto, most, position }).await?)))
}

/// Removes a rule; berths that it gave stay as they are.
#[utoipa::path(delete, path = "/rules/{group}", tag = "rules", params(("group" = String, Path, description = "Name of the host group")),
    responses((status = 204), Failure))]
pub(super) async fn delete_rule(State(api): State<Api>, caller: Caller, Path(group): Path<String>) -> Result<StatusCode, Error> {
    api.service.delete_rule(&caller, &group).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives every berth the profile that the rules now give its user, but for those whose profile a person named.
#[utoipa::path(post, path = "/rules:apply", tag = "rules", request_body = api::ApplyRules,
    responses((status = 200, body = api::EntryReport), Failure))]
pub(super) async fn apply_rules(
    State(api): State<Api>,
    caller: Caller,
    Json(asked): Json<api::ApplyRules>,
) -> Result<Answer<api::EntryReport>, Error> {
    let mode = Mode { all_or_none: asked.all_or_none, dry_run: asked.dry_run };
    Ok(Answer(many::report(api.service.apply_rules(&caller, mode).await?)))
}

fn rule(rule: Rule) -> api::Rule {
    let Rule { group, position, profile, auto, most, given, created_at, updated_at, .. } = rule;
    api::Rule { group, position, profile, auto, most, given, created_at, updated_at }
}

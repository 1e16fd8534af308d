//! Many berths in one request, and a berth that a user takes himself. Both lie beside `/berths`: a user may be called "batch".

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api as api;

use super::{
    Api, convert,
    error::{Error, Failure, stored},
    extract::LargeJson,
    limits::{self, new_berth},
};
use crate::{
    domain::{Caller, Problem, Refusal},
    service::{Done, Headroom, Mode, Outcome, Report, Whose},
};

/// Assigns up to 1,000 berths in one transaction. What is refused of them is told entry by entry and does not keep the others, unless all or
/// none is asked for.
#[utoipa::path(post, path = "/berths:batch", tag = "berths", request_body = api::NewBerths,
    responses((status = 200, body = api::EntryReport), Failure))]
pub(super) async fn create_berths(
    State(api): State<Api>,
    caller: Caller,
    LargeJson(new): LargeJson<api::NewBerths>,
) -> Result<Answer<api::EntryReport>, Error> {
    let mode = Mode { all_or_none: new.all_or_none, dry_run: new.dry_run };
    let requests = new.berths.into_iter().map(new_berth).collect::<Result<_, _>>()?;
    Ok(Answer(report(api.service.assign_berths(&caller, requests, mode).await?)))
}

/// Changes up to 1,000 berths alike, or all of a profile, in one transaction.
#[utoipa::path(post, path = "/berths:change", tag = "berths", request_body = api::BerthsChange,
    responses((status = 200, body = api::EntryReport), Failure))]
pub(super) async fn change_berths(
    State(api): State<Api>,
    caller: Caller,
    LargeJson(asked): LargeJson<api::BerthsChange>,
) -> Result<Answer<api::EntryReport>, Error> {
    let mode = Mode { all_or_none: asked.all_or_none, dry_run: asked.dry_run };
    let whose = match (asked.users, asked.of_profile) {
        (users, None) => Whose::Named(users),
        (users, Some(profile)) if users.is_empty() => Whose::OfProfile(profile),
        _ => return Err(Problem::new(Refusal::Invalid, "invalid_body", "users and of_profile exclude each other").into()),
    };
    let change = limits::changed(asked.change)?;
    Ok(Answer(report(api.service.change_berths(&caller, whose, change, mode).await?)))
}

/// Gives the caller a berth, if a rule of the host says so; harmless when he has one. 202 while it is being made.
#[utoipa::path(post, path = "/berths:claim", tag = "berths",
    responses((status = 200, body = api::BerthClaim), (status = 202, body = api::BerthClaim), Failure))]
pub(super) async fn claim_berth(State(api): State<Api>, caller: Caller) -> Result<(StatusCode, Answer<api::BerthClaim>), Error> {
    let claimed = api.service.claim_berth(&caller).await?;
    let status = if claimed.operation.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Answer(api::BerthClaim { user: claimed.user, operation: claimed.operation.map(convert::operation) })))
}

pub(super) fn report(report: Report) -> api::EntryReport {
    let count = |done| report.outcomes.iter().filter(|outcome| outcome.done == done).count() as u64;
    api::EntryReport {
        accepted: count(Done::Accepted),
        refused: count(Done::Refused),
        headroom: headroom(report.headroom),
        warnings: convert::warnings(report.warnings),
        entries: report.outcomes.into_iter().map(entry).collect(),
    }
}

pub(super) fn headroom(all: Vec<Headroom>) -> Vec<api::Headroom> {
    let each = all.into_iter().map(|Headroom { resource, capacity, allowed, promised, after }| api::Headroom {
        resource: resource.to_owned(),
        capacity,
        allowed,
        promised,
        after,
    });
    each.collect()
}

fn entry(outcome: Outcome) -> api::Entry {
    api::Entry {
        user: outcome.user,
        state: match outcome.done {
            Done::Accepted => api::EntryState::Accepted,
            Done::Checked => api::EntryState::Checked,
            Done::Refused => api::EntryState::Refused,
            Done::HeldBack => api::EntryState::HeldBack,
            Done::Kept => api::EntryState::Kept,
        },
        profile_before: outcome.before,
        profile: outcome.profile,
        operation_id: outcome.operation.map(|operation| operation.id.0),
        problem: outcome.problem.map(stored),
    }
}

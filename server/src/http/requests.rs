//! Requests: more for a while.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api as api;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    Api, convert,
    error::{Error, Failure, stored},
    extract::{Json, Path, Query, page},
    paged,
};
use crate::{
    domain::{Amount, Caller, Figures, Grant, Request, RequestId, RequestState},
    service::{Decision, NewRequest},
};

/// Which requests.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestQuery {
    /// Rows of a page: 1 to 500, 100 unless set.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only this user's.
    user: Option<String>,
    /// Only those that stand there.
    state: Option<api::RequestState>,
}

/// Lists requests, newest first; a user without a role sees his own.
#[utoipa::path(get, path = "/requests", tag = "requests", params(RequestQuery),
    responses((status = 200, body = api::RequestList), Failure))]
pub(super) async fn list_requests(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<RequestQuery>,
) -> Result<Answer<api::RequestList>, Error> {
    let (page, limit) = page(query.limit, query.cursor)?;
    let requests = api.service.requests(&caller, query.user.as_deref(), query.state.map(asked_state), &page).await?;
    let (items, next) = paged(requests, limit, |request| request.id.to_string(), request);
    Ok(Answer(api::RequestList { items, next }))
}

/// Asks for more, for a while: for the caller's own berth, or another's.
#[utoipa::path(post, path = "/requests", tag = "requests", request_body = api::NewRequest,
    responses((status = 201, body = api::Request), Failure))]
pub(super) async fn create_request(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<api::NewRequest>,
) -> Result<(StatusCode, Answer<api::Request>), Error> {
    let new = NewRequest { user: new.user, figures: figures(new.amounts), until: new.until, reason: new.reason };
    Ok((StatusCode::CREATED, Answer(request(api.service.create_request(&caller, new).await?))))
}

/// Shows a request.
#[utoipa::path(get, path = "/requests/{id}", tag = "requests", params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, body = api::Request), Failure))]
pub(super) async fn show_request(State(api): State<Api>, caller: Caller, Path(id): Path<Uuid>) -> Result<Answer<api::Request>, Error> {
    Ok(Answer(request(api.service.request(&caller, RequestId(id)).await?)))
}

/// Approves an open request, as asked or changed; it applies at once. What the policy or the node refuses leaves it open, with the reason.
#[utoipa::path(post, path = "/requests/{id}/approve", tag = "requests", params(("id" = Uuid, Path, description = "Its id")), request_body = api::ApproveRequest,
    responses((status = 202, body = api::ApprovedRequest), Failure))]
pub(super) async fn approve_request(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(approval): Json<api::ApproveRequest>,
) -> Result<(StatusCode, Answer<api::ApprovedRequest>), Error> {
    let decision = Decision { figures: figures(approval.amounts), until: approval.until, word: approval.word };
    let (approved, operation, warnings) = api.service.approve_request(&caller, RequestId(id), decision).await?;
    let (operation, warnings) = (convert::operation(operation), convert::warnings(warnings));
    Ok((StatusCode::ACCEPTED, Answer(api::ApprovedRequest { request: request(approved), operation, warnings })))
}

/// Denies an open request with a word.
#[utoipa::path(post, path = "/requests/{id}/deny", tag = "requests", params(("id" = Uuid, Path, description = "Its id")), request_body = api::DenyRequest,
    responses((status = 200, body = api::Request), Failure))]
pub(super) async fn deny_request(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(denial): Json<api::DenyRequest>,
) -> Result<Answer<api::Request>, Error> {
    Ok(Answer(request(api.service.deny_request(&caller, RequestId(id), &denial.word).await?)))
}

/// Withdraws an open request, or ends before its time what was granted.
#[utoipa::path(post, path = "/requests/{id}/cancel", tag = "requests", params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, body = api::Request), Failure))]
pub(super) async fn cancel_request(State(api): State<Api>, caller: Caller, Path(id): Path<Uuid>) -> Result<Answer<api::Request>, Error> {
    Ok(Answer(request(api.service.cancel_request(&caller, RequestId(id)).await?)))
}

fn request(request: Request) -> api::Request {
    api::Request {
        id: request.id.0,
        user: request.user.to_string(),
        state: shown_state(request.state),
        asked: amounts(request.asked),
        asked_until: request.asked_until,
        reason: request.reason,
        granted: request.granted.map(amounts),
        until: request.until,
        decided_by: request.decided_by,
        decided_at: request.decided_at,
        word: request.word,
        problem: request.problem.map(|(problem, _)| stored(problem)),
        created_at: request.created_at,
        updated_at: request.updated_at,
    }
}

pub(super) fn grant(grant: &Grant) -> api::Grant {
    api::Grant { request: grant.request.0, amounts: amounts(grant.figures), until: grant.until, overdue: grant.overdue.is_some() }
}

fn figures(from: api::Amounts) -> Figures {
    let of = |amount: Option<api::Amount>| {
        amount.map(|amount| match amount {
            api::Amount::Add(value) => Amount::Add(value),
            api::Amount::To(value) => Amount::To(value),
        })
    };
    Figures { cpu_millis: of(from.cpu_millis), memory_bytes: of(from.memory_bytes), pids: of(from.pids), disk_bytes: of(from.disk_bytes) }
}

fn amounts(from: Figures) -> api::Amounts {
    let of = |amount: Option<Amount>| {
        amount.map(|amount| match amount {
            Amount::Add(value) => api::Amount::Add(value),
            Amount::To(value) => api::Amount::To(value),
        })
    };
    api::Amounts {
        cpu_millis: of(from.cpu_millis),
        memory_bytes: of(from.memory_bytes),
        pids: of(from.pids),
        disk_bytes: of(from.disk_bytes),
    }
}

/// Both name the same states.
macro_rules! states {
    ($($name:ident),*) => {
        fn shown_state(state: RequestState) -> api::RequestState {
            match state {
                $(RequestState::$name => api::RequestState::$name,)*
            }
        }

        fn asked_state(state: api::RequestState) -> RequestState {
            match state {
                $(api::RequestState::$name => RequestState::$name,)*
            }
        }
    };
}

states!(Open, Denied, Cancelled, Lapsed, Approved, Active, Ending, Overdue, Ended);

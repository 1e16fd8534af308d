//! Berths.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api::{Accepted, Berth, BerthChange, BerthList, ChangePreview, NewBerth, RebuildBerth};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    AcceptedResponse, Api, convert,
    error::{Error, Failure},
    etag::{IfMatch, Tagged},
    extract::{Json, Path, Query},
    limits,
    listing::BerthsQuery,
    paged,
};
use crate::{domain::Caller, service::ChangeBerth};

/// Lists berths, by the names of their users unless `sort` says otherwise; a user without a role sees his own. What is given narrows together.
#[utoipa::path(get, path = "/berths", tag = "berths", params(BerthsQuery), responses((status = 200, body = BerthList), Failure))]
pub(super) async fn list_berths(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<BerthsQuery>,
) -> Result<Answer<BerthList>, Error> {
    let (filter, page, limit) = query.read()?;
    let (sort, down) = (filter.sort, api.service.node_down_since());
    let berths = api.service.berths(&caller, filter, &page).await?;
    let (items, next) = paged(berths, limit, |berth| sort.place(berth), |berth| convert::berth(berth, down));
    Ok(Answer(BerthList { items, next }))
}

/// Assigns a berth to a host user.
#[utoipa::path(post, path = "/berths", tag = "berths", request_body = NewBerth, responses((status = 202, body = Accepted), Failure))]
pub(super) async fn create_berth(State(api): State<Api>, caller: Caller, Json(new): Json<NewBerth>) -> Result<AcceptedResponse, Error> {
    let accepted = api.service.assign_berth(&caller, limits::new_berth(new)?).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Shows a berth.
#[utoipa::path(get, path = "/berths/{user}", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    responses((status = 200, body = Berth), Failure))]
pub(super) async fn show_berth(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<Tagged<Berth>, Error> {
    let berth = api.service.berth(&caller, &user).await?;
    Ok(Tagged(berth.revision(), convert::berth(berth, api.service.node_down_since())))
}

/// Changes a berth's limits, egress or profile; a running berth takes them on at once. What the node refuses goes back to what was before,
/// and the operation says why.
#[utoipa::path(patch, path = "/berths/{user}", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    request_body = BerthChange, responses((status = 202, body = Accepted), Failure))]
pub(super) async fn change_berth(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    IfMatch(expected): IfMatch,
    Json(change): Json<BerthChange>,
) -> Result<AcceptedResponse, Error> {
    let change = ChangeBerth { expected, ..limits::changed(change)? };
    let accepted = api.service.change_berth(&caller, &user, change).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Shows what a change would do, and what of it a running berth would take on only when it starts anew; refused as the change would be.
#[utoipa::path(post, path = "/berths/{user}/preview", tag = "berths", request_body = BerthChange,
    params(("user" = String, Path, description = "Name of the host account")), responses((status = 200, body = ChangePreview), Failure))]
pub(super) async fn preview_change(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    Json(change): Json<BerthChange>,
) -> Result<Answer<ChangePreview>, Error> {
    let preview = api.service.preview_change(&caller, &user, limits::changed(change)?).await?;
    Ok(Answer(convert::preview(preview)))
}

/// What is kept of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteQuery {
    /// Name of an archive that is written first; empty: after the user and the time. If it cannot be written, nothing is deleted.
    archive: Option<String>,
}

/// Deletes a berth with everything in it.
#[utoipa::path(delete, path = "/berths/{user}", tag = "berths", params(("user" = String, Path, description = "Name of the host account"), DeleteQuery),
    responses((status = 202, body = Accepted), Failure))]
pub(super) async fn delete_berth(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    IfMatch(expected): IfMatch,
    Query(DeleteQuery { archive }): Query<DeleteQuery>,
) -> Result<AcceptedResponse, Error> {
    let accepted = match archive {
        Some(archive) => api.service.archive_berth(&caller, &user, Some(&archive), &expected).await?,
        None => api.service.delete_berth(&caller, &user, &expected).await?,
    };
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Starts a berth.
#[utoipa::path(post, path = "/berths/{user}/start", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    responses((status = 202, body = Accepted), Failure))]
pub(super) async fn start_berth(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<AcceptedResponse, Error> {
    let accepted = api.service.start_berth(&caller, &user).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Stops a berth; it starts again on its user's next connection.
#[utoipa::path(post, path = "/berths/{user}/stop", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    responses((status = 202, body = Accepted), Failure))]
pub(super) async fn stop_berth(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<AcceptedResponse, Error> {
    let accepted = api.service.stop_berth(&caller, &user).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Stops a berth and starts it again.
#[utoipa::path(post, path = "/berths/{user}/restart", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    responses((status = 202, body = Accepted), Failure))]
pub(super) async fn restart_berth(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<AcceptedResponse, Error> {
    let accepted = api.service.restart_berth(&caller, &user).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Gives a berth a fresh root file system, with Docker's data kept unless `wipe` is set, and starts it. Limits, address, ids and home stay.
#[utoipa::path(post, path = "/berths/{user}/rebuild", tag = "berths", request_body = RebuildBerth,
    params(("user" = String, Path, description = "Name of the host account")), responses((status = 202, body = Accepted), Failure))]
pub(super) async fn rebuild_berth(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    Json(request): Json<RebuildBerth>,
) -> Result<AcceptedResponse, Error> {
    let accepted = api.service.rebuild_berth(&caller, &user, request.wipe).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

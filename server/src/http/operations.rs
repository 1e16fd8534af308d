//! Operations.

use std::time::Duration;

use axum::{Json as Answer, extract::State};
use berth_api::{Operation, OperationList};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    Api, convert,
    error::{Error, Failure},
    extract::{Path, Query},
    listing::OperationsQuery,
    paged,
};
use crate::domain::{Caller, OperationId};

/// Lists operations, newest first.
#[utoipa::path(get, path = "/operations", tag = "operations", params(OperationsQuery), responses((status = 200, body = OperationList), Failure))]
pub(super) async fn list_operations(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<OperationsQuery>,
) -> Result<Answer<OperationList>, Error> {
    let (subject, filter, page, limit) = query.read()?;
    let operations = api.service.operations(&caller, subject.as_deref(), filter, &page).await?;
    let (items, next) = paged(operations, limit, |operation| operation.id.to_string(), convert::operation);
    Ok(Answer(OperationList { items, next }))
}

/// Shows an operation.
#[utoipa::path(get, path = "/operations/{id}", tag = "operations", params(("id" = Uuid, Path, description = "Id of the operation")),
    responses((status = 200, body = Operation), Failure))]
pub(super) async fn show_operation(State(api): State<Api>, caller: Caller, Path(id): Path<Uuid>) -> Result<Answer<Operation>, Error> {
    Ok(Answer(convert::operation(api.service.operation(&caller, OperationId(id)).await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    /// Seconds to wait at most: 30 unless set, never more than 50.
    timeout: Option<u64>,
    /// Answer as soon as the operation's revision is not this one.
    revision: Option<u64>,
}

const MOST: u64 = 50;
const DEFAULT: u64 = 30;

/// Waits until an operation has finished, its revision has changed, or the time is up; shows it as it is then.
#[utoipa::path(get, path = "/operations/{id}/wait", tag = "operations",
    params(("id" = Uuid, Path, description = "Id of the operation"), WaitQuery), responses((status = 200, body = Operation), Failure))]
pub(super) async fn wait_operation(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Query(query): Query<WaitQuery>,
) -> Result<Answer<Operation>, Error> {
    let timeout = Duration::from_secs(query.timeout.unwrap_or(DEFAULT).min(MOST));
    let wait = api.service.wait(&caller, OperationId(id), timeout, query.revision);
    let operation = match api.soft.run_until_cancelled(wait).await {
        Some(operation) => operation?,
        // The server is about to end: whoever waits asks its successor.
        None => api.service.operation(&caller, OperationId(id)).await?,
    };
    Ok(Answer(convert::operation(operation)))
}

/// Cancels an operation that nobody has begun, one that waits for the node, and builds and imports of images at any time; what it had asked for
/// is taken back. Who may ask for such an operation may cancel it.
#[utoipa::path(post, path = "/operations/{id}/cancel", tag = "operations", params(("id" = Uuid, Path, description = "Id of the operation")),
    responses((status = 200, body = Operation), Failure))]
pub(super) async fn cancel_operation(State(api): State<Api>, caller: Caller, Path(id): Path<Uuid>) -> Result<Answer<Operation>, Error> {
    Ok(Answer(convert::operation(api.service.cancel_operation(&caller, OperationId(id)).await?)))
}

//! Barring berths and letting them go. What is about all of them lies beside `/berths`, not below it: a user may be called "suspend".

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api::{Accepted, AllAccepted, SuspendBerth};

use super::{
    AcceptedResponse, Api, convert,
    error::{Error, Failure},
    extract::{Json, Path},
};
use crate::domain::Caller;

/// Bars a berth: nothing in it runs on, nothing wakes it. One that is barred already takes on the new reason.
#[utoipa::path(post, path = "/berths/{user}/suspend", tag = "berths", request_body = SuspendBerth,
    params(("user" = String, Path, description = "Name of the host account")), responses((status = 202, body = Accepted), Failure))]
pub(super) async fn suspend_berth(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    Json(request): Json<SuspendBerth>,
) -> Result<AcceptedResponse, Error> {
    let accepted = api.service.suspend_berth(&caller, &user, &request.reason).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Lets a barred berth go; it is again as it was.
#[utoipa::path(post, path = "/berths/{user}/resume", tag = "berths", params(("user" = String, Path, description = "Name of the host account")),
    responses((status = 202, body = Accepted), Failure))]
pub(super) async fn resume_berth(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<AcceptedResponse, Error> {
    let accepted = api.service.resume_berth(&caller, &user).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::accepted(accepted))))
}

/// Bars every berth that is not barred yet; those that are keep their reason.
#[utoipa::path(post, path = "/berths:suspend", tag = "berths", request_body = SuspendBerth,
    responses((status = 202, body = AllAccepted), Failure))]
pub(super) async fn suspend_berths(
    State(api): State<Api>,
    caller: Caller,
    Json(request): Json<SuspendBerth>,
) -> Result<(StatusCode, Answer<AllAccepted>), Error> {
    let accepted = api.service.suspend_berths(&caller, &request.reason).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::all_accepted(accepted))))
}

/// Lets every barred berth go.
#[utoipa::path(post, path = "/berths:resume", tag = "berths", responses((status = 202, body = AllAccepted), Failure))]
pub(super) async fn resume_berths(State(api): State<Api>, caller: Caller) -> Result<(StatusCode, Answer<AllAccepted>), Error> {
    let accepted = api.service.resume_berths(&caller).await?;
    Ok((StatusCode::ACCEPTED, Answer(convert::all_accepted(accepted))))
}

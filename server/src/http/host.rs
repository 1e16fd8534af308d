//! The host, its accounts, and whether all is well.

use axum::{Json as Answer, extract::State};
use berth_api::{Doctor, Health, Node, User};

use super::{
    Api, convert,
    error::{Error, Failure},
    extract::Path,
};
use crate::domain::Caller;

/// Shows the host and what berths were promised of it.
#[utoipa::path(get, path = "/node", tag = "host", responses((status = 200, body = Node), Failure))]
pub(super) async fn show_node(State(api): State<Api>, caller: Caller) -> Result<Answer<Node>, Error> {
    Ok(Answer(convert::node(api.service.node(&caller).await?)))
}

/// Checks the host, the node and the server; names a fix for each line that is not well.
#[utoipa::path(get, path = "/doctor", tag = "host", responses((status = 200, body = Doctor), Failure))]
pub(super) async fn run_doctor(State(api): State<Api>, caller: Caller) -> Result<Answer<Doctor>, Error> {
    Ok(Answer(convert::doctor(api.service.doctor(&caller).await?)))
}

/// Checks the same, and runs a container in a throw-away berth of the default image; answers when that is taken away again.
#[utoipa::path(post, path = "/doctor/deep", tag = "host", responses((status = 200, body = Doctor), Failure))]
pub(super) async fn run_deep_doctor(State(api): State<Api>, caller: Caller) -> Result<Answer<Doctor>, Error> {
    Ok(Answer(convert::doctor(api.service.deep_doctor(&caller).await?)))
}

/// Shows a host account.
#[utoipa::path(get, path = "/users/{name}", tag = "users", params(("name" = String, Path, description = "Name of the host account")),
    responses((status = 200, body = User), Failure))]
pub(super) async fn show_user(State(api): State<Api>, caller: Caller, Path(name): Path<String>) -> Result<Answer<User>, Error> {
    Ok(Answer(convert::user(api.service.user(&caller, &name).await?)))
}

/// 200 while the server runs.
#[utoipa::path(get, path = "/healthz", tag = "host", responses((status = 200, body = Health)))]
pub(super) async fn healthz() -> Answer<Health> {
    Answer(Health { status: "ok".to_owned() })
}

/// 200 while the database can be written and the node answers.
#[utoipa::path(get, path = "/readyz", tag = "host", responses((status = 200, body = Health), Failure))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<Answer<Health>, Error> {
    api.service.ready().await?;
    Ok(Answer(Health { status: "ready".to_owned() }))
}

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use berth_protocol::{Archive, ArchiveRequest, RestoreRequest};

use super::{blocking, extract, json_lines};
use crate::daemon::{archives, node::Node, refusal::Refusal};

pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Json<Vec<Archive>>, Refusal> {
    blocking(move || archives::list(&node)).await?.map(Json)
}

pub(super) async fn show(State(node): State<Arc<Node>>, extract::Name(name): extract::Name) -> Result<Json<Archive>, Refusal> {
    blocking(move || archives::show(&node, &name)).await?.map(Json)
}

pub(super) async fn remove(State(node): State<Arc<Node>>, extract::Name(name): extract::Name) -> Result<StatusCode, Refusal> {
    blocking(move || archives::remove(&node, &name)).await?.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn write(
    State(node): State<Arc<Node>>,
    extract::Name(user): extract::Name,
    extract::Json(request): extract::Json<ArchiveRequest>,
) -> Response {
    json_lines(archives::write(node, user, request))
}

pub(super) async fn restore(
    State(node): State<Arc<Node>>,
    extract::Name(user): extract::Name,
    extract::Json(request): extract::Json<RestoreRequest>,
) -> Response {
    json_lines(archives::restore(node, user, request))
}

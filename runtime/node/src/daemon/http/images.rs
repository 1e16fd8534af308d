use std::{io, sync::Arc};

use axum::{Json, body::Body, extract::State, http::StatusCode, response::Response};
use berth_protocol::{BuildRequest, ImageInfo};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{blocking, extract, json_lines};
use crate::daemon::{images, node::Node, refusal::Refusal};

pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Json<Vec<ImageInfo>>, Refusal> {
    blocking(move || images::list(&node)).await?.map(Json)
}

pub(super) async fn build(State(node): State<Arc<Node>>, extract::Json(request): extract::Json<BuildRequest>) -> Result<Response, Refusal> {
    if !images::SUITES.contains(&request.suite.as_str()) {
        return Err(Refusal::bad_request(format!("{:?} is no suite that the recipe knows", request.suite)).hint(images::SUITES.join(", ")));
    }
    Ok(json_lines(images::build(node, request)))
}

/// Ends a build under way.
pub(super) async fn stop_build(State(node): State<Arc<Node>>, extract::Query(Import { name }): extract::Query<Import>) -> StatusCode {
    images::stop_build(&node, &name);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    name: String,
}

pub(super) async fn import(State(node): State<Arc<Node>>, extract::Query(Import { name }): extract::Query<Import>, body: Body) -> Response {
    let (pieces, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut body = body.into_data_stream();
        while let Some(piece) = body.next().await {
            let broken = piece.is_err();
            if pieces.send(piece.map_err(io::Error::other)).await.is_err() || broken {
                return;
            }
        }
    });
    json_lines(images::import(node, name, receiver))
}

pub(super) async fn remove(State(node): State<Arc<Node>>, extract::Name(digest): extract::Name) -> Result<StatusCode, Refusal> {
    images::remove(node, digest).await.map(|()| StatusCode::NO_CONTENT)
}

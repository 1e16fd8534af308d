use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use berth_protocol::{Account, Asked, Check, DeepCheck, HostUser, Member, NodeInfo, VERSION};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    blocking,
    extract::{self, Name, Query},
};
use crate::daemon::{accounts, doctor, node::Node, refusal::Refusal, tuning};

pub(super) async fn info(State(node): State<Arc<Node>>) -> Result<Json<NodeInfo>, Refusal> {
    let info = blocking(move || describe(&node)).await?;
    info.map(Json).map_err(|e| Refusal::failed("node_info_failed", "the host cannot be described", &e))
}

fn describe(node: &Node) -> std::io::Result<NodeInfo> {
    let names = rustix::system::uname();
    let (disk_bytes, disk_free_bytes) = node.host.disk_space()?;
    Ok(NodeInfo {
        protocol: VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: names.nodename().to_string_lossy().into_owned(),
        kernel: names.release().to_string_lossy().into_owned(),
        cgroup: if node.host.hierarchy.hybrid() { "hybrid" } else { "v2" }.into(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory_bytes: tuning::memory(),
        disk_bytes,
        disk_free_bytes,
        run_dir: node.host.layout.run.to_string_lossy().into_owned(),
    })
}

pub(super) async fn user(State(node): State<Arc<Node>>, Name(name): Name) -> Result<Json<HostUser>, Refusal> {
    node.accounts.find(&name).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    /// Names, with commas between.
    #[serde(default)]
    known: String,
}

pub(super) async fn accounts(State(node): State<Arc<Node>>, Query(Known { known }): Query<Known>) -> Result<Json<Vec<Account>>, Refusal> {
    let known: Vec<&str> = known.split(',').filter(|name| !name.is_empty()).collect();
    accounts::ask(&node, &known).await.map(Json)
}

pub(super) async fn users(State(node): State<Arc<Node>>, extract::Json(asked): extract::Json<Asked>) -> Result<Json<Vec<Member>>, Refusal> {
    node.accounts.members(asked).await.map(Json)
}

pub(super) async fn doctor(State(node): State<Arc<Node>>) -> Result<Json<Vec<Check>>, Refusal> {
    blocking(move || doctor::examine(&node)).await.map(Json)
}

/// Goes on without its client only to take away what it made.
pub(super) async fn deep_doctor(
    State(node): State<Arc<Node>>,
    extract::Json(DeepCheck { image }): extract::Json<DeepCheck>,
) -> Result<Json<Vec<Check>>, Refusal> {
    let gone = CancellationToken::new();
    let work = node.owners.spawn(doctor::deep::examine(Arc::clone(&node), image, gone.clone()));
    let _gone = gone.drop_guard();
    work.await.map(Json).map_err(|error| {
        tracing::error!(%error, "the deep check ended");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the node failed; its log says more")
    })
}

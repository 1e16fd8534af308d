use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_protocol::{BerthId, BerthStatus, BerthUsage, Ensure, ExecRequest, Inside, PruneRequest, Pruned, Waits, frame};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::{broadcast::error::RecvError, mpsc};

use super::{blocking, extract, json_lines};
use crate::daemon::{berth::Berth, exec, logs::Console, node::Node, refusal::Refusal};

pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Json<Vec<BerthStatus>>, Refusal> {
    blocking(move || node.statuses_with_usage()).await.map(Json)
}

pub(super) async fn show(State(node): State<Arc<Node>>, extract::Name(user): extract::Name) -> Result<Json<BerthStatus>, Refusal> {
    match node.find(&user) {
        Some(berth) => blocking(move || berth.status_with_usage()).await.map(Json),
        None => node.corrupt_of(&user).map(Json).ok_or_else(|| Refusal::no_berth(&user)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    user: Option<String>,
}

/// Read now, and only of berths that are up: what rests uses nothing.
pub(super) async fn usage(
    State(node): State<Arc<Node>>,
    extract::Query(Whose { user }): extract::Query<Whose>,
) -> Result<Json<Vec<BerthUsage>>, Refusal> {
    let berths = match &user {
        Some(user) => vec![existing(&node, user)?],
        None => node.of_users(),
    };
    blocking(move || berths.iter().filter_map(|berth| berth.usage_now()).collect()).await.map(Json)
}

pub(super) async fn ensure(
    State(node): State<Arc<Node>>,
    extract::Name(user): extract::Name,
    extract::Json(ensure): extract::Json<Ensure>,
) -> Result<Json<BerthStatus>, Refusal> {
    node.ensure(&user, ensure).await.map(Json)
}

pub(super) async fn preview(
    State(node): State<Arc<Node>>,
    extract::Name(user): extract::Name,
    extract::Json(ensure): extract::Json<Ensure>,
) -> Result<Json<Vec<Waits>>, Refusal> {
    node.preview(&user, ensure).await.map(Json)
}

pub(super) async fn stop(State(node): State<Arc<Node>>, extract::Name(user): extract::Name) -> Result<Json<BerthStatus>, Refusal> {
    node.stop_berth(&user).await.map(Json)
}

#[derive(Deserialize)]
pub(super) struct Deletion {
    id: Option<BerthId>,
}

pub(super) async fn delete(
    State(node): State<Arc<Node>>,
    extract::Name(user): extract::Name,
    extract::Query(Deletion { id }): extract::Query<Deletion>,
) -> Result<StatusCode, Refusal> {
    node.delete_berth(&user, id).await.map(|()| StatusCode::NO_CONTENT)
}

fn existing(node: &Node, user: &str) -> Result<Arc<Berth>, Refusal> {
    node.find(user).ok_or_else(|| node.not_there(user))
}

/// What its Docker holds, as last seen.
pub(super) async fn inside(State(node): State<Arc<Node>>, extract::Name(user): extract::Name) -> Result<Json<Inside>, Refusal> {
    let berth = existing(&node, &user)?;
    berth.inside(&node.host.layout.control_socket(berth.id)).await.map(Json)
}

pub(super) async fn prune(
    State(node): State<Arc<Node>>,
    extract::Name(user): extract::Name,
    extract::Json(PruneRequest { what }): extract::Json<PruneRequest>,
) -> Result<Json<Pruned>, Refusal> {
    let berth = existing(&node, &user)?;
    berth.prune(&node.host.layout.control_socket(berth.id), &what).await.map(Json)
}

/// The command is started before the connection is upgraded, so that what stops it is an ordinary refusal.
pub(super) async fn exec(State(node): State<Arc<Node>>, extract::Name(user): extract::Name, request: Request) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(frame::UPGRADE.as_bytes()));
    let Some(on_upgrade) = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrade) else {
        let detail = format!("exec needs the header Upgrade: {}", frame::UPGRADE);
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail));
    };
    let request: ExecRequest = extract::json(body).await?;
    let berth = existing(&node, &user)?;
    let slot = exec::slot(&node, &berth)?;
    let (child, command) = exec::start(&node, &berth, request).await?;
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(client) => exec::serve(TokioIo::new(client), child).await,
            Err(_) => exec::abandon(child).await,
        }
        drop((command, slot));
    });
    let headers = [(header::CONNECTION, HeaderValue::from_static("upgrade")), (header::UPGRADE, HeaderValue::from_static(frame::UPGRADE))];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Logs {
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn logs(
    State(node): State<Arc<Node>>,
    extract::Name(user): extract::Name,
    extract::Query(Logs { tail, follow }): extract::Query<Logs>,
) -> Result<Response, Refusal> {
    let berth = existing(&node, &user)?;
    let layout = &node.host.layout;
    let console = Console { older: layout.older_console(berth.id), current: layout.console(berth.id) };
    let (to, pieces) = mpsc::channel(4);
    tokio::spawn(console.send(tail, follow, to));
    let stream = futures_util::stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(stream)).into_response())
}

/// Every berth once, then each change; a watcher that fell behind is told everything anew.
pub(super) async fn watch(State(node): State<Arc<Node>>) -> Response {
    let (to, values) = mpsc::channel::<BerthStatus>(16);
    let stop = node.stop.clone();
    let telling = async move {
        let mut news = node.news();
        let mut all: BTreeMap<String, BerthStatus> = node.statuses().into_iter().map(|s| (s.user.clone(), s)).collect();
        loop {
            while let Some((_, status)) = all.pop_first() {
                if to.send(status).await.is_err() {
                    return;
                }
            }
            let told = tokio::select! {
                told = news.recv() => told,
                () = to.closed() => return,
            };
            match told {
                Ok(status) => drop(all.insert(status.user.clone(), status)),
                Err(RecvError::Lagged(_)) => all = node.statuses().into_iter().map(|s| (s.user.clone(), s)).collect(),
                Err(RecvError::Closed) => return,
            }
        }
    };
    tokio::spawn(async move { stop.run_until_cancelled(telling).await });
    json_lines(values)
}

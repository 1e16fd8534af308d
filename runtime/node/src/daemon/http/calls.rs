//! What users asked of their Dockers, on its way to the server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode, response::Response};
use berth_protocol::{BerthId, CallPage, CallsAt, CallsTaken};
use serde::Deserialize;
use tokio::{sync::mpsc, time::sleep};

use super::{blocking, extract, json_lines};
use crate::daemon::{node::Node, refusal::Refusal};

/// Growth that comes faster is told in one go.
const PACE: Duration = Duration::from_millis(20);

fn id(name: &str) -> Result<BerthId, Refusal> {
    name.parse().map(BerthId).map_err(|_| Refusal::bad_request(format!("{name:?} is no id of a berth")))
}

/// Every spool that holds something, then each growth.
pub(super) async fn watch(State(node): State<Arc<Node>>) -> Response {
    let (to, values) = mpsc::channel::<CallsAt>(16);
    let stop = node.stop.clone();
    let telling = async move {
        let mut news = node.host.calls.news();
        let mut told: BTreeMap<BerthId, u64> = BTreeMap::new();
        loop {
            news.mark_unchanged();
            let waiting = node.host.calls.waiting();
            let now = waiting.iter().map(|at| (at.id, at.end)).collect();
            let before = std::mem::replace(&mut told, now);
            for at in waiting {
                if before.get(&at.id) != Some(&at.end) && to.send(at).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = to.closed() => return,
            }
            sleep(PACE).await;
        }
    };
    tokio::spawn(async move { stop.run_until_cancelled(telling).await });
    json_lines(values)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    #[serde(default)]
    after: u64,
}

pub(super) async fn page(
    State(node): State<Arc<Node>>,
    extract::Name(name): extract::Name,
    extract::Query(After { after }): extract::Query<After>,
) -> Result<Json<CallPage>, Refusal> {
    let id = id(&name)?;
    let page = blocking(move || node.host.calls.page(id, after)).await?;
    page.map(Json).map_err(|e| Refusal::failed("calls_not_read", format!("the spool of calls of {id}"), &e))
}

pub(super) async fn taken(
    State(node): State<Arc<Node>>,
    extract::Name(name): extract::Name,
    extract::Json(CallsTaken { position }): extract::Json<CallsTaken>,
) -> Result<StatusCode, Refusal> {
    let id = id(&name)?;
    blocking(move || node.host.calls.take(id, position)).await?;
    Ok(StatusCode::NO_CONTENT)
}

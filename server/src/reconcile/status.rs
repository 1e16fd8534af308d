//! State flows back: the node's stream of statuses, and a full look now and then for what the stream cannot say (that a berth is gone).

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Reconciler;
use crate::{
    chain,
    domain::{BerthId, State, Status},
    node_client, store,
};

const FULL_LOOK: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Node(#[from] node_client::Error),
}

/// Follows the node until `soft` is cancelled; connects anew whenever the stream ends.
pub(super) async fn follow(reconciler: Arc<Reconciler>, soft: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let mut lost = false;
    loop {
        let connected = Instant::now();
        let Some(result) = soft.run_until_cancelled(stream(&reconciler)).await else { return };
        let quick = connected.elapsed() < LONGEST_PAUSE;
        match result {
            Ok(()) => tracing::info!("berth-node ended the stream of statuses"),
            // Said once, not every five seconds while the node is away.
            Err(error) if !lost || !quick => tracing::warn!(error = chain(&error), "the stream of statuses broke"),
            Err(_) => {}
        }
        lost = true;
        pause = if quick { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        if soft.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn stream(reconciler: &Reconciler) -> Result<(), Error> {
    let statuses = reconciler.node.watch().await?;
    let mut statuses = std::pin::pin!(statuses);
    look(reconciler).await?;
    tracing::info!("following berth-node");
    reconciler.slots.resume();
    reconciler.store.announce();
    let mut next_look = Instant::now() + FULL_LOOK;
    loop {
        tokio::select! {
            status = statuses.next() => match status {
                Some(status) => keep(reconciler, &[status?]).await?,
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(next_look) => {
                look(reconciler).await?;
                next_look = Instant::now() + FULL_LOOK;
            }
        }
    }
}

/// Compares all that the node holds with what is stored.
async fn look(reconciler: &Reconciler) -> Result<(), Error> {
    reconciler.store.lead()?;
    let statuses = reconciler.node.berths().await?;
    keep(reconciler, &statuses).await?;
    let mut reader = reconciler.store.reader().await?;
    let known = store::berths::observed(&mut reader).await?;
    drop(reader);
    // What is being worked on right now is seen by its own task.
    let lost = |id: &BerthId| !reconciler.slots.is_running(id.0) && !statuses.iter().any(|status| status.id == *id);
    let lost: Vec<_> = known.into_iter().filter(lost).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let mut tx = reconciler.store.begin().await?;
    for id in lost {
        store::berths::forget_status(&mut tx, id, reconciler.clock.now()).await?;
    }
    reconciler.store.commit(tx).await?;
    reconciler.store.announce();
    Ok(())
}

/// Writes what is new in one transaction; most of what the node says is known already.
async fn keep(reconciler: &Reconciler, statuses: &[Status]) -> Result<(), store::Error> {
    reconciler.store.lead()?;
    let mut reader = reconciler.store.reader().await?;
    let mut fresh = Vec::new();
    for status in statuses {
        let known = store::berths::by_id(&mut reader, status.id).await?;
        if let Some(berth) = known.filter(|berth| berth.status.as_ref() != Some(status)) {
            fresh.push((status, berth.problem.is_some_and(|(problem, _)| problem.is_about_a_change())));
        }
    }
    drop(reader);
    if fresh.is_empty() {
        return Ok(());
    }
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    for (status, refused) in fresh {
        store::berths::observe(&mut tx, status, now).await?;
        if status.docker_ready && !refused {
            store::berths::recovered(&mut tx, status.id, now).await?;
        }
        if let Some(step) = step(status) {
            for operation in store::operations::unfinished(&mut tx, status.id).await? {
                store::operations::set_step(&mut tx, operation.id, step, now).await?;
            }
        }
    }
    reconciler.store.commit(tx).await
}

/// What an operation on the berth is doing, as far as its state tells.
fn step(status: &Status) -> Option<&'static str> {
    match status.state {
        State::Starting => Some("starting"),
        State::Running if !status.docker_ready => Some("waiting for Docker"),
        State::Stopping => Some("stopping"),
        _ => None,
    }
}

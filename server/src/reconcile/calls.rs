//! Docker API calls on their way from the node's spools into the audit trail.
//!
//! The node tells which spools hold something; their pages are fetched, and rows and the position behind them are stored in one
//! transaction: whoever is killed, each call is stored once. Then the node is told what it may forget; if that gets lost, it offers the
//! same again, and is told again. Nobody waits for this but a delete, for a moment; the writing connection is held for at most
//! [`BATCH`] rows at a time and a spool's page.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Reconciler;
use crate::{
    chain,
    config::Audit,
    domain::{BerthId, CallPage, CallRecord},
    node_client, store,
    store::calls::{Position, call_id},
};

/// Rows after which a transaction is committed; the page that passes it, of at most 500, is the last in it.
const BATCH: usize = 500;
/// Pages fetched at a time, and in one round.
const AT_ONCE: usize = 8;
const ROUND: usize = 64;
/// Calls that trickle in are stored together.
const PACE: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For the last calls of a berth that is deleted.
const LAST_CALLS: Duration = Duration::from_secs(5);
const DAY: i64 = 86_400_000;
/// The node drops spools of deleted berths after 30 days.
const KEEP_POSITIONS: i64 = 60 * DAY;
/// Rows dropped in one transaction.
const PRUNE_AT_ONCE: u32 = 500;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Node(#[from] node_client::Error),
}

/// What the following of calls holds.
pub(super) struct Ingest {
    audit: Audit,
    /// The last `seq` given out. Held from the look at a position to its commit: nobody else stores calls meanwhile.
    last: Mutex<i64>,
    /// Bytes of all calls after the last commit.
    total: std::sync::Mutex<u64>,
}

impl Ingest {
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, last: Mutex::new(0), total: std::sync::Mutex::new(0) }
    }

    fn note(&self, total: u64) {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) = total;
    }

    fn is_over(&self) -> bool {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) > self.audit.keep_bytes
    }
}

/// Follows the node until `soft` is cancelled; connects anew whenever the stream ends.
pub(super) async fn follow(reconciler: Arc<Reconciler>, soft: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let connected = Instant::now();
        let Some(result) = soft.run_until_cancelled(watch(&reconciler)).await else { return };
        let quick = connected.elapsed() < LONGEST_PAUSE;
        if let Err(error) = result
            && !(told && quick)
        {
            // Said once, not every five seconds while the node is away.
            tracing::warn!(error = chain(&error), "calls are not fetched from the node for now");
            told = true;
        }
        pause = if quick { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        if soft.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn watch(reconciler: &Reconciler) -> Result<(), Error> {
    let news = reconciler.node.calls_watch().await?;
    let mut news = std::pin::pin!(news);
    // Spools with something to fetch, and where they end as far as is known.
    let mut waiting: BTreeMap<BerthId, u64> = BTreeMap::new();
    let mut due = Instant::now();
    loop {
        tokio::select! {
            biased;
            at = news.next() => match at {
                Some(at) => {
                    let at = at?;
                    waiting.insert(at.id, at.end);
                    continue;
                }
                None => return Ok(()),
            },
            () = sleep_until(due), if !waiting.is_empty() => {}
        }
        let ids: Vec<_> = waiting.keys().copied().take(ROUND).collect();
        let more = round(reconciler, &ids).await?;
        for id in ids.iter().filter(|id| !more.contains(id)) {
            waiting.remove(id);
        }
        if reconciler.calls.is_over() {
            prune(reconciler).await;
        }
        due = if waiting.is_empty() { Instant::now() + PACE } else { Instant::now() };
    }
}

/// Stores one page of each spool; returns those that hold more.
async fn round(reconciler: &Reconciler, ids: &[BerthId]) -> Result<Vec<BerthId>, Error> {
    reconciler.store.lead()?;
    let mut last = reconciler.calls.last.lock().await;
    let mut reader = reconciler.store.reader().await?;
    // Another server may have stored some since. Also when all calls were dropped meanwhile, none gets a number that a follower has passed.
    let least = if *last == 0 { reconciler.clock.now() * 1000 } else { *last };
    *last = store::calls::head(&mut reader).await?.max(least);
    let mut known = Vec::with_capacity(ids.len());
    for id in ids {
        known.push((*id, store::calls::position(&mut reader, *id).await?));
    }
    drop(reader);
    let fetched = stream::iter(known).map(|(id, position)| async move {
        let page = reconciler.node.calls(id, position.position).await;
        (id, position, page)
    });
    let mut fetched = fetched.buffer_unordered(AT_ONCE);
    let (mut more, mut batch, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    while let Some((id, mut position, page)) = fetched.next().await {
        let CallPage { next, more: left, calls } = match page {
            Err(error @ node_client::Error::Problem(..)) => {
                tracing::warn!(berth = %id, error = chain(&error), "calls cannot be fetched");
                continue;
            }
            page => page?,
        };
        if left {
            more.push(id);
        }
        for mut call in calls {
            // A shim speaks for its own berth's user only.
            let (name, user_uid) = position.owner.get_or_insert_with(|| (call.user.clone(), call.uid));
            call.user.clone_from(name);
            if call.uid != 0 {
                call.uid = *user_uid;
            }
            let user_uid = *user_uid;
            *last += 1;
            rows.push(CallRecord { id: call_id(call.at, *last, id), seq: *last, berth_id: id, user_uid, call });
        }
        let moved = next > position.position;
        position.position = position.position.max(next);
        batch.push((id, position, moved));
        if rows.len() >= BATCH {
            keep(reconciler, std::mem::take(&mut batch), std::mem::take(&mut rows)).await?;
        }
    }
    keep(reconciler, batch, rows).await?;
    Ok(more)
}

/// Rows and positions in one transaction; then the node may forget them.
async fn keep(reconciler: &Reconciler, batch: Vec<(BerthId, Position, bool)>, rows: Vec<CallRecord>) -> Result<(), Error> {
    if batch.iter().any(|(_, _, moved)| *moved) {
        let now = reconciler.clock.now();
        let mut tx = reconciler.store.begin().await?;
        for (id, position, _) in batch.iter().filter(|(_, _, moved)| *moved) {
            store::calls::keep_position(&mut tx, *id, position, now).await?;
        }
        let total = store::calls::insert(&mut tx, &rows).await?;
        reconciler.store.commit(tx).await?;
        reconciler.calls.note(total);
    }
    let confirmed = stream::iter(batch).map(|(id, position, _)| async move { reconciler.node.calls_taken(id, position.position).await });
    let mut confirmed = confirmed.buffer_unordered(AT_ONCE);
    while let Some(done) = confirmed.next().await {
        done?;
    }
    Ok(())
}

/// Fetches what is left of a berth that was just deleted. What does not come in time comes later.
pub(super) async fn drain(reconciler: &Reconciler, id: BerthId) {
    let all = async {
        while !round(reconciler, &[id]).await?.is_empty() {}
        Ok::<_, Error>(())
    };
    match timeout(LAST_CALLS, all).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(berth = %id, error = chain(&error), "the last calls are still on the node"),
        Err(_) => tracing::warn!(berth = %id, "the last calls are still on the node"),
    }
}

/// Drops what is past its time or over the bound, oldest first, a little at a time.
pub(super) async fn prune(reconciler: &Reconciler) {
    let Audit { keep_days, keep_bytes } = reconciler.calls.audit;
    let now = reconciler.clock.now();
    let result = async {
        let mut reader = reconciler.store.reader().await?;
        let mut total = store::calls::total(&mut reader).await?;
        drop(reader);
        let (mut aged, mut surplus) = (0, 0);
        // Down to a little below, so that not each further call means another run.
        let wanted = keep_bytes - keep_bytes / 20;
        let over = total > keep_bytes;
        let mut before = Some(now - i64::from(keep_days) * DAY);
        loop {
            if before.is_none() && (!over || total <= wanted) {
                break;
            }
            let mut tx = reconciler.store.begin().await?;
            let (gone, left) = store::calls::prune(&mut tx, before, PRUNE_AT_ONCE).await?;
            reconciler.store.commit(tx).await?;
            total = left;
            *(if before.is_some() { &mut aged } else { &mut surplus }) += gone;
            if gone < u64::from(PRUNE_AT_ONCE) {
                if before.is_none() {
                    break;
                }
                before = None;
            }
            tokio::task::yield_now().await;
        }
        let mut tx = reconciler.store.begin().await?;
        store::calls::prune_positions(&mut tx, now - KEEP_POSITIONS).await?;
        reconciler.store.commit(tx).await?;
        reconciler.calls.note(total);
        Ok::<_, store::Error>((aged, surplus, total))
    };
    match result.await {
        Ok((0, 0, _)) => {}
        Ok((aged, surplus, bytes)) => tracing::info!(aged, surplus, bytes, "dropped old calls from the audit trail"),
        Err(error) => tracing::error!(error = chain(&error), "cannot drop old calls"),
    }
}

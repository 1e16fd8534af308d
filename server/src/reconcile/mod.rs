//! Carries intent out: the only part of the server that asks the node to act.
//!
//! It takes no input but the store: woken by a signal, by its timer and by the node's stream, it re-reads what is due, plans each berth's
//! next step ([`plan`], pure) and asks the node for it. Asking twice is harmless, so that a restart of the server takes up whatever was
//! unfinished. At most [`BERTHS`] berths and [`IMAGES`] images are worked on at a time, each by one task; what fails for a passing reason
//! is tried again after a growing pause, what the node refuses ends the operation. A suspension waits for none of this: it has permits of
//! its own ([`SUSPENSIONS`]) and ends whatever else is being done with its berth.

mod accounts;
mod archives;
mod berths;
mod calls;
mod ends;
mod images;
pub mod plan;
mod pull;
#[cfg(test)]
mod samples;
mod settle;
mod slots;
mod status;
mod usage;

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Accounts, Audit},
    domain::{Clock, OperationId, ReconcileReport},
    node_client::{NodeClient, Uploads},
    store::{self, Store},
};
use slots::{Outcome, Slots};

/// Berths worked on at a time.
const BERTHS: usize = 8;
/// Suspensions carried out at a time; each takes the node milliseconds.
const SUSPENSIONS: usize = 32;
/// Image operations worked on at a time.
const IMAGES: usize = 4;
/// Intent is re-read at least so often.
const TIMER: Duration = Duration::from_secs(10);
/// Old operations and audit rows are looked for so often.
const PRUNE: Duration = Duration::from_secs(3600);
/// Finished operations are kept for 30 days, the audit trail for 400.
const KEEP_OPERATIONS: i64 = 30 * 86_400_000;
const KEEP_AUDIT: i64 = 400 * 86_400_000;
/// Audit rows dropped in one transaction.
const PRUNE_AT_ONCE: u32 = 5_000;

pub struct Reconciler {
    store: Arc<Store>,
    node: Arc<NodeClient>,
    uploads: Arc<Uploads>,
    clock: Clock,
    slots: Slots,
    berths: Semaphore,
    suspensions: Semaphore,
    images: Semaphore,
    calls: calls::Ingest,
    accounts: Accounts,
    report: watch::Sender<ReconcileReport>,
}

impl Reconciler {
    pub fn new(store: Arc<Store>, node: Arc<NodeClient>, uploads: Arc<Uploads>, audit: Audit, accounts: Accounts, clock: Clock) -> Self {
        Self {
            store,
            node,
            uploads,
            clock,
            slots: Slots::default(),
            berths: Semaphore::new(BERTHS),
            suspensions: Semaphore::new(SUSPENSIONS),
            images: Semaphore::new(IMAGES),
            calls: calls::Ingest::new(audit),
            accounts,
            report: watch::Sender::new(ReconcileReport::default()),
        }
    }

    /// How the last pass went.
    pub fn report(&self) -> watch::Receiver<ReconcileReport> {
        self.report.subscribe()
    }

    /// Works until `soft` is cancelled; what is under way then ends by itself or when `hard` is cancelled.
    pub async fn run(self: Arc<Self>, tasks: TaskTracker, soft: CancellationToken, hard: CancellationToken) {
        tasks.spawn(status::follow(Arc::clone(&self), soft.clone()));
        tasks.spawn(calls::follow(Arc::clone(&self), soft.clone()));
        tasks.spawn(usage::follow(Arc::clone(&self), soft.clone()));
        tasks.spawn(accounts::follow(Arc::clone(&self), self.accounts.clone(), soft.clone()));
        let mut lease = self.store.lease();
        let mut prune_at = Instant::now() + Duration::from_secs(60);
        loop {
            let ends = ends::look(&self).await;
            let next_end = ends.as_ref().ok().copied().flatten();
            let error = self.pass(&tasks, &hard).await.err().or(ends.err());
            if let Some(error) = &error {
                tracing::error!(error = crate::chain(error), "cannot read what is to be done");
            }
            self.report.send_modify(|report| {
                report.at = self.clock.now();
                report.waiting = self.slots.paused();
                report.error = error.as_ref().map(|error| crate::chain(error));
            });
            if error.is_none() && Instant::now() >= prune_at {
                self.prune().await;
                calls::prune(&self).await;
                prune_at = Instant::now() + PRUNE;
            }
            let timer = Instant::now() + TIMER;
            let wake = self.slots.next().map_or(timer, |next| next.min(timer));
            // By the clock of the host, which may be set meanwhile: the timer looks at it anew.
            let until_end = next_end.map(|end| Duration::from_millis((end - self.clock.now()).max(0).unsigned_abs()));
            let wake = until_end.and_then(|pause| Instant::now().checked_add(pause)).map_or(wake, |end| end.min(wake));
            tokio::select! {
                () = soft.cancelled() => return,
                () = self.store.announced() => {}
                _ = lease.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Starts a task for everything that is due and not under way.
    async fn pass(self: &Arc<Self>, tasks: &TaskTracker, hard: &CancellationToken) -> Result<(), store::Error> {
        self.store.lead()?;
        let mut reader = self.store.reader().await?;
        let berths = store::berths::due(&mut reader).await?;
        let images = store::operations::unfinished_images(&mut reader).await?;
        drop(reader);
        let wanted: HashSet<_> = berths.iter().map(|due| due.id.0).chain(images.iter().map(|operation| operation.id.0)).collect();
        self.slots.retain(&wanted);
        for id in self.slots.abort_images(&wanted) {
            let this = Arc::clone(self);
            tasks.spawn(async move { images::stop(&this, OperationId(id)).await });
        }
        for store::berths::Due { id, generation, urgent } in berths {
            if let Some(abort) = self.slots.take(id.0, generation, urgent, Instant::now()) {
                let this = Arc::clone(self);
                self.spawn(tasks, hard, abort, (id.0, generation), async move {
                    let permits = if urgent { &this.suspensions } else { &this.berths };
                    let Ok(_permit) = permits.acquire().await else { return Outcome::Retry };
                    // Boxed here: of thousands that wait for their turn, each holds room for its turn otherwise.
                    Box::pin(berths::drive(&this, id)).await
                });
            }
        }
        for operation in images {
            if let Some(abort) = self.slots.take(operation.id.0, 0, false, Instant::now()) {
                let this = Arc::clone(self);
                self.spawn(tasks, hard, abort, (operation.id.0, 0), async move {
                    let Ok(_permit) = this.images.acquire().await else { return Outcome::Retry };
                    Box::pin(images::drive(&this, operation)).await
                });
            }
        }
        Ok(())
    }

    fn spawn(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        hard: &CancellationToken,
        abort: CancellationToken,
        (id, generation): (uuid::Uuid, i64),
        work: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let (this, hard) = (Arc::clone(self), hard.clone());
        // A task of its own inside, so that a panic in it frees the slot.
        let work = async move { abort.run_until_cancelled(work).await.unwrap_or(Outcome::Retry) };
        let inner = tasks.spawn(async move { hard.run_until_cancelled(work).await.unwrap_or(Outcome::Retry) });
        tasks.spawn(async move {
            let outcome = inner.await.unwrap_or_else(|error| {
                tracing::error!(%id, %error, "a piece of work ended by itself");
                Outcome::Retry
            });
            this.slots.finish(id, generation, outcome, Instant::now());
            this.store.announce();
        });
    }

    async fn prune(&self) {
        let now = self.clock.now();
        let result = async {
            let mut tx = self.store.begin().await?;
            let operations = store::operations::prune(&mut tx, now - KEEP_OPERATIONS).await?;
            let audit = store::audit::prune(&mut tx, now - KEEP_AUDIT, PRUNE_AT_ONCE).await?;
            store::events::prune(&mut tx, now).await?;
            store::keyed::prune(&mut tx, now).await?;
            store::samples::prune(&mut tx, now).await?;
            store::requests::prune(&mut tx, now - KEEP_AUDIT).await?;
            self.store.commit(tx).await?;
            Ok::<_, store::Error>((operations, audit))
        };
        match result.await {
            Ok((0, 0)) => {}
            Ok((operations, audit)) => tracing::info!(operations, audit, "dropped what is past its time"),
            Err(error) => tracing::error!(error = crate::chain(&error), "cannot drop old rows"),
        }
    }
}

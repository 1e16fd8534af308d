//! A sample a minute of what the berths that are up use. The node reads what the kernel has counted anyway; nothing wakes.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Reconciler;
use crate::{chain, store};

const MINUTE: Duration = Duration::from_secs(60);

/// Samples until `soft` is cancelled, a minute from now at first.
pub(super) async fn follow(reconciler: Arc<Reconciler>, soft: CancellationToken) {
    let mut ticks = tokio::time::interval_at(Instant::now() + MINUTE, MINUTE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while soft.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = sample(&reconciler).await {
            tracing::warn!(error = chain(&error), "cannot keep samples of use");
        }
    }
}

/// One sample of each. A node that does not answer leaves a gap, of which `berth doctor` and the log tell enough.
pub(super) async fn sample(reconciler: &Reconciler) -> Result<(), store::Error> {
    let Ok(samples) = reconciler.node.usage(None).await else { return Ok(()) };
    if samples.is_empty() {
        return Ok(());
    }
    let mut tx = reconciler.store.begin().await?;
    store::samples::keep(&mut tx, &samples, reconciler.clock.now()).await?;
    reconciler.store.commit(tx).await
}

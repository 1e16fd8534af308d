//! Looks at the disks for as long as the daemon runs.

use std::{sync::Arc, time::Duration};

use berth_runtime::error::chain;
use tokio::{sync::Semaphore, time::sleep};

use super::Look;
use crate::daemon::node::Node;

/// Disks that are trimmed at once: each keeps the host's own disk busy.
const TRIMS: usize = 2;
/// After a look that failed.
const AGAIN: Duration = Duration::from_secs(5);

pub(crate) async fn serve(node: Arc<Node>) {
    let places = Arc::new(Semaphore::new(TRIMS));
    loop {
        let looking = Arc::clone(&node);
        let look = match tokio::task::spawn_blocking(move || looking.host.disks.look()).await {
            Ok(Ok(look)) => look,
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "the berths' disks are not looked at");
                Look { next: Some(AGAIN), trim: Vec::new() }
            }
            Err(_) => return,
        };
        for id in look.trim {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { break };
            let node = Arc::clone(&node);
            tokio::task::spawn_blocking(move || {
                node.host.disks.trim(id);
                drop(place);
            });
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = node.host.disks.changed.notified() => {}
            () = sleep(look.next.unwrap_or_default()), if look.next.is_some() => {}
        }
    }
}

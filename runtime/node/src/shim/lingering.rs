//! Clients that were answered before their request was read. A socket that is closed then takes the answer with it: whoever writes first
//! meets EPIPE and never reads. So each stays open for a while, the newest ones longest.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Most that stay at once; then the oldest goes.
const MOST: usize = 128;
const TIME: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Lingering(Mutex<VecDeque<(Instant, OwnedFd)>>);

impl Lingering {
    /// Keeps one more; and closes all of them when their time has come, if nobody else does already.
    pub(super) async fn keep(&self, client: OwnedFd) {
        let first = {
            let mut clients = self.clients();
            if clients.len() >= MOST {
                clients.pop_front();
            }
            clients.push_back((Instant::now() + TIME, client));
            // As long as there is another, somebody waits to close it.
            clients.len() == 1
        };
        while first && let Some(due) = self.close_until(Instant::now()) {
            sleep_until(due).await;
        }
    }

    /// Closes whose time has come; when the next one's does.
    fn close_until(&self, now: Instant) -> Option<Instant> {
        let mut clients = self.clients();
        while clients.front().is_some_and(|(due, _)| *due <= now) {
            clients.pop_front();
        }
        clients.front().map(|(due, _)| *due)
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        self.clients().clear();
    }

    fn clients(&self) -> MutexGuard<'_, VecDeque<(Instant, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

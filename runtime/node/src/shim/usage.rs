//! Whether the berth is in use: the clock by which it falls asleep.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use tokio::sync::Notify;

use super::state::now_ms;

/// Uses under way, and when the last one ended. What only looks (polls of editors) is none.
#[derive(Debug)]
pub(crate) struct Usage {
    under_way: AtomicU32,
    /// Milliseconds since the epoch.
    last: AtomicI64,
    changed: Notify,
}

/// A use under way, until dropped.
#[derive(Debug)]
pub(crate) struct Use<'a>(&'a Usage);

impl Usage {
    /// A start is a use.
    pub(crate) fn new() -> Self {
        Self { under_way: AtomicU32::new(0), last: AtomicI64::new(now_ms()), changed: Notify::new() }
    }

    pub(crate) fn begin(&self) -> Use<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Use(self)
    }

    /// A use that is over already.
    pub(crate) fn touch(&self) {
        self.last.store(now_ms(), Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(crate) fn under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Milliseconds since the epoch.
    pub(crate) fn last(&self) -> i64 {
        if self.under_way() { now_ms() } else { self.last.load(Ordering::Relaxed) }
    }

    /// Returns at the next beginning or end of a use.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
    }
}

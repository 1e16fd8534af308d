//! Staying awake for what comes at once.
//!
//! To wake a processor that has gone to sleep takes longer than the inner Docker takes for a short answer. So while calls follow each
//! other closely the shim looks for the next bytes instead of waiting for them: no longer than [`WINDOW`] after the last ones, and not
//! where of late nothing came so soon. A shim with nothing to carry sleeps.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use tokio::{sync::Notify, task::yield_now};

/// Nanoseconds.
const WINDOW: u64 = 100_000;
/// Messages after which it is given up when nothing came within the window.
const CREDIT: u32 = 4;
/// Larger ones are part of a stream, where nobody waits for a single message.
const SHORT: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Vigil {
    began: Instant,
    /// Since `began`, in nanoseconds: when something was last carried, and until when to look for more.
    last: AtomicU64,
    until: AtomicU64,
    credit: AtomicU32,
    begins: Notify,
}

impl Vigil {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0), until: AtomicU64::new(0), credit: AtomicU32::new(0), begins: Notify::new() }
    }

    /// A message was carried.
    pub(crate) fn carried(&self, length: usize) {
        if length > SHORT {
            return;
        }
        let now = self.now();
        let soon = now - self.last.swap(now, Relaxed) < WINDOW;
        let credit = if soon { CREDIT } else { self.credit.load(Relaxed).saturating_sub(1) };
        self.credit.store(credit, Relaxed);
        if credit > 0 && self.until.swap(now + WINDOW, Relaxed) < now {
            self.begins.notify_one();
        }
    }

    /// Keeps watch, for ever. Each turn lets the runtime look at its sockets without waiting.
    pub(crate) async fn keep(&self) {
        loop {
            self.begins.notified().await;
            while self.now() < self.until.load(Relaxed) {
                yield_now().await;
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

//! Waiting for a level with a deadline.

use std::{
    env,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// A deadline on this machine: `BERTH_TEST_PATIENCE` times as long where everything is slow.
pub fn patient(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = || env::var("BERTH_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).filter(|&factor| factor > 0).unwrap_or(1);
    limit * *FACTOR.get_or_init(factor)
}

/// Calls `look` until it gives something; panics with `what` after `limit`.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    match within(limit, look) {
        Some(found) => found,
        None => panic!("not within {:.1} s: {what}", patient(limit).as_secs_f64()),
    }
}

/// Calls `look` until it gives something or `limit` ([`patient`]) has passed.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patient(limit);
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let now = Instant::now();
        if now >= end {
            return None;
        }
        thread::sleep(pause.min(end - now));
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

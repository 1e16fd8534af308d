//! Waiting for a level with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Calls `look` until it gives something; panics with `what` after `limit`.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    match within(limit, look) {
        Some(found) => found,
        None => panic!("not within {:.1} s: {what}", limit.as_secs_f64()),
    }
}

/// Calls `look` until it gives something or `limit` has passed.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
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

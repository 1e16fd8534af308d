use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Where time and fresh ids come from.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Milliseconds since the epoch.
    pub now: fn() -> i64,
    /// A fresh UUIDv7.
    pub id: fn() -> Uuid,
}

impl Clock {
    pub const SYSTEM: Clock = Clock { now: system_now, id: Uuid::now_v7 };

    pub fn now(&self) -> i64 {
        (self.now)()
    }

    pub fn id(&self) -> Uuid {
        (self.id)()
    }
}

fn system_now() -> i64 {
    // A clock before 1970 reads as 1970: nothing here subtracts times across hosts.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

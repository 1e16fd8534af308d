use serde::{Deserialize, Serialize};

use crate::BerthId;

/// One line of a berth's spool of Docker API calls, as the shim writes it (JSON, one a line).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CallRecord {
    Call(Call),
    /// So many calls were not written, because nobody had fetched the spool for too long.
    Lost {
        at: i64,
        user: String,
        uid: u32,
        count: u64,
    },
}

/// One Docker API call that came through the user's socket. Never holds headers, query secrets, bodies or environment values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When its head was complete; milliseconds since the epoch.
    pub at: i64,
    pub user: String,
    pub uid: u32,
    /// Process that connected, and its name (`comm`).
    pub pid: u32,
    pub command: String,
    /// Empty when unparsed.
    pub method: String,
    /// Path, with those query parameters that are known to hold no secret.
    pub path: String,
    pub image: Option<String>,
    /// Name or id of the container.
    pub container: Option<String>,
    /// HTTP status; `None` when none came.
    pub status: Option<u16>,
    /// Bytes of the request and of the response on the wire, heads included; of an upgraded call, all that followed.
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub duration_ms: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The inner Docker answered in whole.
    Answered,
    /// It answered and the connection became a stream (101, or an old client's hijack).
    Upgraded,
    /// Berth itself answered; the request did not reach the inner Docker.
    Refused,
    /// One side went before the answer was complete.
    Cut,
    /// Not HTTP/1.1 as it is known; passed on all the same.
    Unparsed,
}

/// That a spool holds something: a line of `GET /calls/watch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsAt {
    pub id: BerthId,
    /// Bytes from here on are to be fetched; what lies before was taken.
    pub taken: u64,
    /// Behind the last whole line.
    pub end: u64,
}

/// Answer of `GET /calls/{id}?after=POSITION`: whole lines, at most about 1 MiB of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallPage {
    pub id: BerthId,
    /// Position behind the last of these lines: the next `after`, and what to confirm.
    pub next: u64,
    /// More lies behind `next`.
    pub more: bool,
    pub records: Vec<CallRecord>,
}

/// Body of `POST /calls/{id}/taken`: everything before the position is stored and may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsTaken {
    pub position: u64,
}

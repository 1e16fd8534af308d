//! Messages between the node and a shim: JSON, one message a packet, over a Unix `SOCK_SEQPACKET` socket; descriptors ride along (`SCM_RIGHTS`).
//!
//! The first connection is the shim's standard input: the node sends [`ToShim::Start`] over it. Later ones come in at
//! `<run_dir>/shims/<id>/control.sock` (0600, root only, peer checked), so that a restarted node finds its berths again.
//! Every connection gets every [`FromShim::Event`]; an answer goes to the one that asked, in order.

use std::net::SocketAddr;

use berth_runtime::container::Bundle;
use serde::{Deserialize, Serialize};

/// Version of these messages. A node accepts any shim of at least [`OLDEST`].
pub const VERSION: u32 = 1;
pub const OLDEST: u32 = 1;

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 128 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToShim {
    /// First message, once. Descriptors: user's listening socket, listening control socket, console log, older console log (both open
    /// for reading and writing), exit record (see [`ExitRecord`]).
    Start(Box<Start>),
    /// Answered by [`FromShim::Status`].
    Status,
    /// Answered by [`FromShim::Fd`] with a duplicate of the user's listening socket.
    Listener,
    /// Answered by [`FromShim::Fd`] with a descriptor on the berth's disk, for trimming.
    Disk,
    /// Stop in order, then kill after `deadline_ms`. Answered by [`FromShim::Ok`]; the shim exits when the berth has ended.
    Stop { deadline_ms: u64 },
}

/// What a shim needs to start its berth.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    pub version: u32,
    pub bundle: Bundle,
    pub owner: Owner,
    /// Upstream resolvers; empty: those of the host's resolv.conf, read when needed.
    pub dns: Vec<SocketAddr>,
    /// Most connections that the user may hold open at once.
    pub max_connections: u32,
}

/// The host user whose berth this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromShim {
    Event(Event),
    Status(Status),
    Fd,
    Ok,
    /// The request was understood and refused, or failed.
    Refused {
        detail: String,
    },
}

/// Something happened. `Failed` and `Exited` are the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// PID 1 runs (host pid); the user's socket is served from now on.
    Started {
        pid: u32,
    },
    /// The inner Docker answers.
    Ready,
    /// The inner Docker does not answer (any more), and why.
    NotReady {
        reason: String,
    },
    Stopping,
    /// The start failed and was undone; the chain of errors, outermost first.
    Failed {
        error: String,
    },
    /// PID 1 ended: a sentence.
    Exited {
        status: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: u32,
    pub pid: Option<u32>,
    pub ready: bool,
    /// Why it is not ready, or will never be; a sentence.
    pub reason: Option<String>,
    pub stopping: bool,
    /// Open connections of the user.
    pub connections: u32,
    /// Milliseconds since the epoch.
    pub started_at: i64,
}

/// Content of the exit record: JSON, written once and synced before the shim exits. An empty file: the shim was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// How PID 1 ended: a sentence, the same as in [`Event::Exited`].
    pub status: String,
    /// True when a stop had been asked for; otherwise the berth ended by itself.
    pub asked: bool,
    /// Milliseconds since the epoch.
    pub at: i64,
}

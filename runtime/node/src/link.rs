//! Messages between the node and a shim: JSON, one message a packet, over a Unix `SOCK_SEQPACKET` socket; descriptors ride along (`SCM_RIGHTS`).
//!
//! The first connection is the shim's standard input: the node sends [`ToShim::Start`] over it. Later ones come in at
//! `<run_dir>/shims/<id>/control.sock` (0600, root only, peer checked), so that a restarted node finds its berths again.
//! Every connection gets every [`FromShim::Event`]; an answer goes to the one that asked, in order.

use std::net::SocketAddr;

use berth_protocol::{Idle, Inside, Ports, Prune, PublishedPort, Sleep};
use berth_runtime::container::Bundle;
use serde::{Deserialize, Serialize};

/// Version of these messages. A node accepts any shim of at least [`OLDEST`].
pub const VERSION: u32 = 2;
pub const OLDEST: u32 = 2;

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 128 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToShim {
    /// First message, once. Descriptors: user's listening socket, listening control socket, console log, older console log (both open
    /// for reading and writing), exit record (see [`ExitRecord`]), spool of calls (for reading and writing), then three detached mounts
    /// for each of the bundle's shares that is mounted, in order.
    Start(Box<Start>),
    /// Answered by [`FromShim::Status`].
    Status,
    /// Answered by [`FromShim::Fd`] with a duplicate of the user's listening socket.
    Listener,
    /// Answered by [`FromShim::Fd`] with a descriptor on the berth's disk, for trimming.
    Disk,
    /// Stop in order, then kill after `deadline_ms`. Answered by [`FromShim::Ok`]; the shim exits when the berth has ended.
    Stop { deadline_ms: u64 },
    /// The same for a berth of which [`Event::IdleTooLong`] was told, or that is asleep. Refused when somebody uses it again.
    Retire { deadline_ms: u64 },
    /// Barred by an administrator: frozen, ports closed, every new connection answered with the reason. Answered by [`FromShim::Ok`].
    Suspend { reason: String },
    /// No longer barred. Answered by [`FromShim::Ok`].
    Resume,
    /// Thaw, if asleep, and count as a use. Answered by [`FromShim::Ok`], or refused while suspended.
    Use,
    /// So many commands of the node run inside now, each a use; none of this connection's once it has ended. Answered by [`FromShim::Ok`].
    Commands { open: u32 },
    /// New rules for ports and sleep. Answered by [`FromShim::Ok`].
    Policy { ports: Ports, idle: Idle },
    /// Answered by [`FromShim::Fd`] with a duplicate of the socket that holds a port of 127.0.0.1, or refused when this shim holds none.
    Held(Guarded),
    /// The host's firewall keeps strangers from exactly these ports of 127.0.0.1 from now on: those that were asked
    /// for by [`ToShim::Held`] since they were bound may open. Answered by [`FromShim::Ok`].
    Guarded { ports: Vec<Guarded> },
    /// Everything before this position of the spool of calls was stored elsewhere. Answered by [`FromShim::Ok`].
    CallsTaken { position: u64 },
    /// What the inner Docker holds. Answered by [`FromShim::Inside`] once it has answered, or refused while the berth rests: to be asked on a
    /// connection of its own. Shims of before there was this refuse it as no message.
    Inside,
    /// Take away what is in no use. Likewise; answered by [`FromShim::Pruned`].
    Prune { what: Prune },
}

/// A port of 127.0.0.1 that is guarded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Guarded {
    /// `tcp` or `udp`.
    pub protocol: String,
    pub port: u16,
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
    pub ports: Ports,
    pub idle: Idle,
    /// Directories of the host that could not be brought in, and why: path, a sentence. Read-only empty covers are there.
    pub covers: Vec<(String, String)>,
    /// Position in the spool of calls before which everything was stored elsewhere.
    pub calls_taken: u64,
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
    Inside(Box<Inside>),
    Pruned {
        bytes: u64,
    },
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
    /// The whole berth sleeps: nobody used it and nothing ran in it.
    Frozen {
        sleep: Sleep,
        /// Milliseconds since the epoch, as in [`Status`].
        last_used_at: i64,
    },
    Thawed,
    /// Nobody used it for `idle.stop_after`: the node is to stop it ([`ToShim::Retire`]). Told again every minute.
    IdleTooLong {
        sleep: Sleep,
        last_used_at: i64,
    },
    /// What containers publish, all of it, whenever that changes; also what is pending.
    Ports {
        ports: Vec<PublishedPort>,
    },
    /// Number of containers that run inside, whenever that changes.
    Containers {
        running: u32,
    },
    /// The spool of calls ends at this position now; told at most ten times a second.
    Calls {
        end: u64,
    },
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
    /// While it is frozen for being idle.
    pub sleep: Option<Sleep>,
    /// Since the node should have stopped it for being idle.
    #[serde(default)]
    pub idle_too_long: Option<Sleep>,
    /// Why it is barred.
    pub suspended: Option<String>,
    /// Milliseconds since the epoch.
    pub last_used_at: i64,
    pub running_containers: Option<u32>,
    pub ports: Vec<PublishedPort>,
    /// Where the spool of calls ends.
    pub calls_end: u64,
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

impl ExitRecord {
    /// True when PID 1 ended in order, or the inner system was switched off (reboot(2): PID 1 of a pid namespace then ends by SIGINT):
    /// the berth is not meant to run any more.
    pub fn is_off(status: &str) -> bool {
        ["PID 1 exited with status 0", "PID 1 was killed by SIGINT"].contains(&status)
    }
}

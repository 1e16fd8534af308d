//! One berth: its owner task, and the handle by which others ask it and watch it.
//!
//! ```text
//!            create            start (asked, or a connection)         Started
//!  (nothing) ──────► stopped ───────────────────────────► starting ───────────► running
//!                     ▲  ▲ failed (a stopped one with the reason why) │            │ stop, or it ended by itself,
//!                     │  └────────────────────────────────────────────┘            │ or its shim died
//!                     └──────────────────── stopping ◄─────────────────────────────┘
//!  stopped, but meant to run (the host booted, its shim died) ── its turn ──► starting
//!  any of them ── delete ──► remains ──► (nothing); also the state of what could not be taken away: asking again goes on
//! ```
//!
//! Only the owner task changes anything; requests come through a bounded channel, one after the other; the state goes out by `watch`.
//! `frozen` is a running one that its shim has put to sleep, and wakes; `suspended` is a stopped or frozen one that only an administrator
//! wakes. A suspension does not wait: a start under way is given up for it, an orderly stop is cut short ([`Bar`]).

mod archive;
mod disk;
mod inside;
mod limits;
mod owner;
mod ports;
mod preview;
mod rebuild;
mod requests;
mod returns;
mod run;
mod settle;
mod sleep;
mod spawn;
mod usage;

use std::sync::Arc;

use axum::http::StatusCode;
use berth_protocol::{ArchiveRequest, BerthId, BerthStatus, BerthUsage, Condition, Ensure, HostUser, Inside, State, Usage, Waits};
use berth_runtime::{cgroup::Group, idmap, net::source_ports::Block};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use owner::{Origin, READY_DEADLINE, spawn};
pub(crate) use sleep::{Bar, Command};
pub(crate) use spawn::entry;

use super::{archives::Job, disks::Disks, host::Host, record::Record, refusal::Refusal};

/// Requests that may wait for one berth.
const WAITING: usize = 16;

/// What the owner answers.
pub(crate) type Reply = oneshot::Sender<Result<BerthStatus, Unmet>>;

/// Why there is no status to answer with.
#[derive(Debug)]
pub(crate) enum Unmet {
    /// The berth is not there (any more).
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for Unmet {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

pub(crate) enum Request {
    /// The account was looked up just now; a suspension needs none, and comes with its bar.
    Ensure {
        ensure: Box<Ensure>,
        account: Option<HostUser>,
        bar: Option<Bar>,
        reply: Reply,
    },
    /// Changes nothing.
    Preview {
        ensure: Box<Ensure>,
        reply: oneshot::Sender<Result<Vec<Waits>, Unmet>>,
    },
    /// Wakes it for a command that is going to enter it.
    Use {
        reply: Reply,
    },
    Stop {
        reply: Reply,
    },
    Archive {
        request: Box<ArchiveRequest>,
        job: Job,
        reply: Reply,
    },
    /// Of what is not there yet.
    Restore {
        ensure: Box<Ensure>,
        account: HostUser,
        archive: String,
        /// Bytes of the disk that it was made from.
        of: u64,
        job: Job,
        reply: Reply,
    },
    /// Answered by [`Unmet::Gone`] when nothing is left.
    Delete {
        reply: Reply,
    },
}

/// A berth as the rest of the node sees it.
pub(crate) struct Berth {
    pub(crate) id: BerthId,
    pub(crate) uid: u32,
    pub(crate) index: u32,
    pub(crate) source_ports: Option<Block>,
    pub(crate) image: String,
    pub(crate) group: Group,
    /// For each command of the node that may run inside at once.
    pub(crate) slots: Arc<Semaphore>,
    disks: Arc<Disks>,
    /// Name of the host's end of its link.
    link: String,
    requests: mpsc::Sender<Request>,
    /// Suspensions that wait for their turn.
    bars: Arc<watch::Sender<u32>>,
    /// Commands of the node that run inside.
    commands: Arc<watch::Sender<u32>>,
    /// What its Docker holds, as last seen.
    inside: tokio::sync::Mutex<Option<Inside>>,
    pub(crate) status: watch::Receiver<BerthStatus>,
    /// Cancelled once the owner knows what there is of the berth.
    pub(crate) settled: CancellationToken,
}

impl Berth {
    /// Asks the owner and waits for its answer.
    pub(crate) async fn ask(&self, request: impl FnOnce(Reply) -> Request) -> Result<BerthStatus, Unmet> {
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(request(reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Unmet::Gone),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let user = self.status.borrow().user.clone();
                let detail = format!("{WAITING} requests wait for the berth of {user} already");
                return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "berth_busy", detail).hint("ask again in a moment").into());
            }
        }
        // The owner drops unanswered requests when it ends: after a delete, or because the node stops.
        answer.await.unwrap_or(Err(Unmet::Gone))
    }

    /// What of a change would wait for a start.
    pub(crate) async fn preview(&self, ensure: Ensure) -> Result<Vec<Waits>, Unmet> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Preview { ensure: Box::new(ensure), reply }).await.map_err(|_| Unmet::Gone)?;
        answer.await.unwrap_or(Err(Unmet::Gone))
    }

    /// Wakes it for a command, which is a use until dropped. Commands wait for each other; their number is bounded where they come from.
    pub(crate) async fn enter(&self) -> Result<Command, Unmet> {
        let command = Command::begin(&self.commands);
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Use { reply }).await.map_err(|_| Unmet::Gone)?;
        answer.await.unwrap_or(Err(Unmet::Gone)).map(|_| command)
    }

    pub(crate) fn bar(&self) -> Bar {
        Bar::raise(&self.bars)
    }

    /// What it uses right now, if it is up. Blocking.
    pub(crate) fn usage_now(&self) -> Option<BerthUsage> {
        let BerthStatus { user, id, state, usage, .. } = Some(self.status_with_usage()).filter(|status| status.pid.is_some())?;
        Some(BerthUsage { user, id, state, at: super::host::now_ms(), usage: usage? })
    }

    /// The status with its use, read from the kernel now. Blocking.
    pub(crate) fn status_with_usage(&self) -> BerthStatus {
        let mut status = self.status.borrow().clone();
        let running = status.pid.is_some() || status.state == State::Stopping;
        let usage = if running { usage::of(&self.group, &self.link) } else { Usage::default() };
        status.usage = self.disks.occupied(self.id).map(|disk_bytes| Usage { disk_bytes, disk: self.disks.usage(self.id), ..usage });
        status
    }
}

/// The status of a berth that does nothing yet.
fn resting(host: &Host, record: &Record) -> BerthStatus {
    BerthStatus {
        user: record.user.clone(),
        id: record.id,
        state: State::Stopped,
        docker_ready: false,
        conditions: Vec::new(),
        image: record.image.clone(),
        limits: record.limits,
        uid: record.uid,
        id_base: record.id_base,
        id_count: idmap::COUNT,
        address: record.address.to_string(),
        socket: host.layout.user_socket(record.uid).to_string_lossy().into_owned(),
        pid: None,
        started_at: None,
        usage: None,
        suspended: None,
        sleep: None,
        last_used_at: None,
        running_containers: None,
        ports: Vec::new(),
        source_ports: record.source_ports,
    }
}

/// Adds a condition, or renews the message of the one that is there.
fn set_condition(conditions: &mut Vec<Condition>, kind: &str, message: impl Into<String>) {
    let message = message.into();
    match conditions.iter_mut().find(|c| c.kind == kind) {
        Some(condition) => condition.message = message,
        None => conditions.push(Condition { kind: kind.to_owned(), message, since: super::host::now_ms() }),
    }
}

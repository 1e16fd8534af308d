//! The owner task: what it holds in each state, and its loop.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_protocol::{BerthStatus, Condition, State};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep_until},
};

use super::{Berth, Request, WAITING, resting, set_condition};
use crate::{
    daemon::{channel::Channel, host::Host, listener::Listener, node::Node, record::{Intent, Phase, Record}},
    link::{FromShim, ToShim},
};

/// How long an inner Docker may take to answer before that is a condition.
pub const READY_DEADLINE: Duration = Duration::from_secs(60);

pub struct Owner {
    pub(super) node: Arc<Node>,
    pub(super) record: Record,
    pub(super) life: Life,
    pub(super) conditions: Vec<Condition>,
    pub(super) back_off: BackOff,
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<BerthStatus>,
}

/// What holds in each state, and only there.
pub enum Life {
    /// Nothing runs; the socket is ours.
    Stopped { listener: Listener, watch: Option<AsyncFd<Arc<OwnedFd>>> },
    /// Something is being made or ended, and nothing else is looked at meanwhile. The socket stays ours.
    Busy { state: State },
    Running(Running),
    /// Partly taken away, or not yet looked at.
    Remains,
}

pub struct Running {
    pub channel: Channel,
    pub listener: Listener,
    pub pid: u32,
    pub started_at: i64,
    pub ready: bool,
    /// When not being ready becomes a condition.
    pub ready_by: Option<Instant>,
    /// A trim is under way.
    pub trimming: bool,
    /// How it ended, once the shim has said so.
    pub exited: Option<String>,
}

/// Keeps failing starts from following each other faster and faster.
#[derive(Default)]
pub struct BackOff {
    failures: u32,
    until: Option<Instant>,
    reason: String,
}

impl BackOff {
    pub(super) fn failed(&mut self, reason: &str) {
        let pause = Duration::from_secs(1 << self.failures.min(6));
        self.failures += 1;
        self.until = Some(Instant::now() + pause);
        self.reason = reason.to_owned();
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Why a connection must not start the berth just now.
    pub(super) fn holds(&self) -> Option<String> {
        let left = self.until?.checked_duration_since(Instant::now())?;
        Some(format!("{}; the next attempt is possible in {} s", self.reason, left.as_secs() + 1))
    }
}

/// What the loop was woken by.
enum Happened {
    Stop,
    Request(Option<Request>),
    Connection,
    Shim(Result<Option<FromShim>, std::io::Error>),
    NotReadyInTime,
    TrimDue,
}

/// Starts the owner of a berth that `record` tells of, and returns the handle to it. It settles what it finds before its first request.
pub fn spawn(node: &Arc<Node>, record: Record) -> Arc<Berth> {
    let host = &node.host;
    let (sender, requests) = mpsc::channel(WAITING);
    let mut first = resting(host, &record);
    first.state = State::Starting;
    let (status, watcher) = watch::channel(first);
    let berth = Arc::new(Berth {
        id: record.id,
        uid: record.uid,
        index: record.index,
        image: record.image.clone(),
        group: host.group(record.id),
        disk: host.layout.disk(record.id),
        requests: sender,
        status: watcher,
    });
    let owner = Owner {
        node: Arc::clone(node),
        record,
        life: Life::Remains,
        conditions: Vec::new(),
        back_off: BackOff::default(),
        requests,
        status,
    };
    node.owners.spawn(owner.run());
    berth
}

impl Owner {
    async fn run(mut self) {
        self.settle().await;
        self.publish();
        let mut trim = interval(Duration::from_secs(self.node.host.config.disk.trim_interval_seconds));
        trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
        trim.reset();
        while !self.finished() {
            let happened = {
                let Self { life, requests, node, .. } = &mut self;
                tokio::select! {
                    biased;
                    () = node.stop.cancelled() => Happened::Stop,
                    message = shim_message(life) => Happened::Shim(message),
                    request = requests.recv() => Happened::Request(request),
                    () = connection(life) => Happened::Connection,
                    () = ready_deadline(life) => Happened::NotReadyInTime,
                    _ = trim.tick() => Happened::TrimDue,
                }
            };
            match happened {
                Happened::Stop => return,
                Happened::Request(None) => return,
                Happened::Request(Some(request)) => self.handle(request).await,
                Happened::Connection => self.woken().await,
                Happened::Shim(Ok(Some(message))) => self.told(message).await,
                Happened::Shim(Ok(None)) => self.ended(None).await,
                Happened::Shim(Err(error)) => self.ended(Some(error)).await,
                Happened::NotReadyInTime => self.not_ready_in_time(),
                Happened::TrimDue => self.trim().await,
            }
            self.publish();
        }
        self.node.forget(&self.record.user, self.record.id);
    }

    /// True once nothing is left of the berth.
    fn finished(&self) -> bool {
        matches!(self.life, Life::Remains) && self.status.borrow().id_base == u32::MAX
    }

    /// Runs blocking work on the host.
    pub(super) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Host) -> T + Send + 'static) -> T {
        let node = Arc::clone(&self.node);
        match tokio::task::spawn_blocking(move || work(&node.host)).await {
            Ok(done) => done,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

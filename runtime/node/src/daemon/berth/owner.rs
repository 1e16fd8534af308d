//! The owner task: what it holds in each state, and its loop.

use std::{
    mem,
    os::fd::OwnedFd,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_protocol::{BerthStatus, Condition, HomeAccess, Sleep, State};
use tokio::{
    io::unix::AsyncFd,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Berth, Request, WAITING, disk,
    ports::{self, Published},
    resting,
    returns::{self, BackOff},
    set_condition,
    sleep::Reclaiming,
};
use crate::{
    daemon::{channel::Channel, disks, host::Host, listener::Listener, node::Node, record::Record},
    link::FromShim,
};

/// How long an inner Docker may take to answer before that is a condition.
pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Conditions that make a stopped berth a failed one.
const FAILURES: [&str; 4] = ["StartFailed", "ShimDied", "SweepFailed", "SocketFailed"];

pub(super) struct Owner {
    pub(super) node: Arc<Node>,
    pub(super) record: Record,
    pub(super) life: Life,
    pub(super) conditions: Vec<Condition>,
    pub(super) back_off: BackOff,
    /// When it is to be started again by itself.
    pub(super) due: Option<Instant>,
    /// Why it fell, until it runs again.
    pub(super) fell: Option<String>,
    pub(super) up_since: Option<Instant>,
    /// The suspension in `record` is not in its file.
    pub(super) unwritten: bool,
    /// Milliseconds since the epoch, as far as its shim has told.
    pub(super) last_used_at: Option<i64>,
    /// Suspensions that wait for their turn.
    pub(super) bars: watch::Receiver<u32>,
    /// Commands of the node that run inside.
    pub(super) commands: watch::Receiver<u32>,
    requests: mpsc::Receiver<Request>,
    /// Up to where the shim may forget its spool of calls.
    pub(super) calls_taken: watch::Receiver<u64>,
    /// Why the berth has less room than its limit leaves.
    pub(super) low: watch::Receiver<Option<String>>,
    /// Why its disk did not grow at this start.
    pub(super) not_grown: Option<String>,
    pub(super) status: watch::Sender<BerthStatus>,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Just made up: nothing of it is on the host yet, and the first request creates it.
    New,
    /// Read from its file.
    Found,
}

/// What holds in each state, and only there.
pub(super) enum Life {
    /// Nothing is made.
    New,
    /// Nothing runs; the socket is ours, and watched.
    Stopped {
        listener: Listener,
        watch: Option<AsyncFd<OwnedFd>>,
    },
    /// Something is being made or ended, and nothing else is looked at meanwhile.
    Busy(State),
    Running(Box<Running>),
    /// Partly taken away, or not yet looked at.
    Remains,
    /// Nothing is left.
    Gone,
}

pub(super) struct Running {
    pub(super) channel: Channel,
    pub(super) listener: Listener,
    pub(super) pid: u32,
    pub(super) started_at: i64,
    pub(super) ready: bool,
    /// When not being ready becomes a condition.
    pub(super) ready_by: Option<Instant>,
    /// While it is frozen for being idle.
    pub(super) sleep: Option<Sleep>,
    pub(super) reclaiming: Option<Reclaiming>,
    /// It fell asleep, and whether its shim is an old one was not yet looked at.
    pub(super) fell_asleep: bool,
    /// It is to be stopped, nobody uses it.
    pub(super) idle_too_long: Option<Sleep>,
    pub(super) containers: Option<u32>,
    pub(super) ports: Box<Published>,
    /// How its shim ended, where it is a child of ours.
    pub(super) shim: Option<JoinHandle<std::io::Result<ExitStatus>>>,
    /// Until its Docker answers.
    pub(super) hasty: Option<DropGuard>,
    /// How it ended, once the shim has said so.
    pub(super) exited: Option<String>,
}

/// What the loop was woken by.
enum Happened {
    Stop,
    HostGoesDown,
    Return(OwnedSemaphorePermit),
    Request(Option<Request>),
    Connection,
    Shim(Result<Option<FromShim>, std::io::Error>),
    NotReadyInTime,
    TrimDue,
    CallsTaken,
    Commands,
    PortsChanged,
    /// There is something else to tell of the host's disk.
    HostDisk,
}

/// Starts the owner of a berth and returns the handle to it. What it finds is settled before its first request is heard.
pub(crate) fn spawn(node: &Arc<Node>, record: Record, origin: Origin) -> Arc<Berth> {
    let host = &node.host;
    let (sender, requests) = mpsc::channel(WAITING);
    let (bars, bars_raised) = watch::channel(0);
    let (commands, commands_run) = watch::channel(0);
    let (status, watcher) = watch::channel(BerthStatus { state: State::Starting, ..resting(host, &record) });
    let berth = Arc::new(Berth {
        id: record.id,
        uid: record.uid,
        index: record.index,
        source_ports: record.block(),
        image: record.image.clone(),
        group: host.group(record.id),
        slots: Arc::new(Semaphore::new(crate::daemon::exec::AT_ONCE_INSIDE)),
        disks: Arc::clone(&host.disks),
        link: record.link.clone(),
        requests: sender,
        bars: Arc::new(bars),
        commands: Arc::new(commands),
        inside: tokio::sync::Mutex::default(),
        status: watcher,
        settled: CancellationToken::new(),
    });
    let low = host.disks.know(record.id, host.disk(&record), disks::limit(&record.limits));
    let life = if origin == Origin::New { Life::New } else { Life::Remains };
    let back_off = BackOff::default();
    let calls_taken = host.calls.taken_of(record.id);
    let owner = Owner {
        node: Arc::clone(node),
        record,
        life,
        conditions: Vec::new(),
        back_off,
        due: None,
        fell: None,
        up_since: None,
        unwritten: false,
        last_used_at: None,
        bars: bars_raised,
        commands: commands_run,
        requests,
        calls_taken,
        low,
        not_grown: None,
        status,
    };
    let settled = berth.settled.clone();
    node.owners.spawn(owner.run(settled));
    berth
}

impl Owner {
    async fn run(mut self, settled: CancellationToken) {
        let settled = settled.drop_guard();
        if matches!(self.life, Life::Remains) {
            self.settle().await;
            self.publish();
            drop(settled);
            self.come_back();
        }
        let mut trim = interval(Duration::from_secs(self.node.host.config.disk.trim_interval_seconds));
        trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
        trim.reset();
        while !matches!(self.life, Life::Gone) {
            if let Life::Running(running) = &mut self.life
                && let Some(why) = running.idle_too_long.take()
            {
                self.retire(why).await;
                self.publish();
                continue;
            }
            if let Life::Running(running) = &mut self.life
                && mem::take(&mut running.fell_asleep)
            {
                self.renew().await;
                self.publish();
                continue;
            }
            let happened = {
                let Self { life, requests, node, calls_taken, commands, due, low, .. } = &mut self;
                tokio::select! {
                    biased;
                    () = node.down.cancelled() => Happened::HostGoesDown,
                    () = node.stop.cancelled() => Happened::Stop,
                    message = shim_message(life) => Happened::Shim(message),
                    request = requests.recv() => Happened::Request(request),
                    () = connection(life) => Happened::Connection,
                    () = calls_were_taken(life, calls_taken) => Happened::CallsTaken,
                    () = ports::changed(life) => Happened::PortsChanged,
                    () = commands_changed(life, commands) => Happened::Commands,
                    () = ready_deadline(life) => Happened::NotReadyInTime,
                    () = disk::low_changed(low) => Happened::HostDisk,
                    place = returns::turn(life, *due, node) => Happened::Return(place),
                    _ = trim.tick() => Happened::TrimDue,
                }
            };
            match happened {
                Happened::Stop | Happened::HostGoesDown if self.record.throw_away() => {
                    // What is not gone in time is taken away by the next node.
                    let _ = self.delete().await;
                    return;
                }
                Happened::Stop | Happened::Request(None) => return,
                Happened::HostGoesDown => return self.go_down().await,
                Happened::Return(place) => self.returns(place).await,
                Happened::Request(Some(request)) => self.handle(request).await,
                Happened::Connection => self.woken().await,
                Happened::Shim(Ok(Some(message))) => self.told(message),
                Happened::Shim(Ok(None)) => self.ended(None).await,
                Happened::Shim(Err(error)) => self.ended(Some(error)).await,
                Happened::NotReadyInTime => self.not_ready_in_time(),
                Happened::TrimDue => {
                    self.look().await;
                    self.trim().await;
                }
                Happened::CallsTaken => self.forget_calls().await,
                Happened::PortsChanged => self.guard_ports().await,
                Happened::Commands => self.tell_commands().await,
                Happened::HostDisk => {
                    let why = self.low.borrow_and_update().clone();
                    tracing::warn!(user = self.record.user, why = why.as_deref().unwrap_or("no more"), "host disk low");
                }
            }
            self.publish();
        }
        self.node.forget(&self.record.user, self.record.id);
    }

    /// Runs blocking work on the host.
    pub(super) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Host) -> T + Send + 'static) -> T {
        let node = Arc::clone(&self.node);
        match tokio::task::spawn_blocking(move || work(&node.host)).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Tells everybody who watches, when something changed.
    pub(super) fn publish(&self) {
        let status = self.status_now();
        let mut first = false;
        self.status.send_if_modified(|shown| {
            first = *shown != status;
            shown.clone_from(&status);
            true
        });
        if first && !matches!(self.life, Life::Gone) && !self.record.throw_away() {
            self.node.tell(status);
        }
    }

    pub(super) fn status_now(&self) -> BerthStatus {
        let mut status = resting(&self.node.host, &self.record);
        status.conditions.clone_from(&self.conditions);
        let pending = self.pending();
        if !pending.is_empty() {
            set_condition(&mut status.conditions, "PendingRestart", pending.join("; "));
        }
        self.disk_conditions(&mut status);
        // Those that are made up here are as old as they are known for.
        for condition in &mut status.conditions {
            if let Some(known) = self.status.borrow().conditions.iter().find(|known| known.kind == condition.kind) {
                condition.since = condition.since.min(known.since);
            }
        }
        status.state = match &self.life {
            Life::New => State::Starting,
            Life::Busy(state) => *state,
            Life::Running(_) if self.record.suspended.is_some() => State::Suspended,
            Life::Running(running) if running.sleep.is_some() => State::Frozen,
            Life::Running(_) => State::Running,
            Life::Remains | Life::Gone => State::Failed,
            Life::Stopped { .. } if self.record.suspended.is_some() => State::Suspended,
            Life::Stopped { .. } if self.conditions.iter().any(|c| FAILURES.contains(&c.kind.as_str())) => State::Failed,
            Life::Stopped { .. } => State::Stopped,
        };
        if let Life::Running(running) = &self.life {
            status.docker_ready = running.ready;
            status.pid = Some(running.pid);
            status.started_at = Some(running.started_at);
            status.running_containers = running.containers;
            status.ports.clone_from(&running.ports.ports);
        }
        status.suspended.clone_from(&self.record.suspended);
        status.last_used_at = self.last_used_at;
        status.sleep = match &self.life {
            Life::Running(running) => running.sleep.clone(),
            Life::Stopped { .. } => self.record.sleep.clone(),
            _ => None,
        };
        status
    }

    /// What was changed and waits for a start.
    fn pending(&self) -> Vec<String> {
        let Record { limits, policy, started, .. } = &self.record;
        let mut pending = Vec::new();
        pending.extend(self.disk_pending());
        pending.extend(self.limits_pending(limits));
        if let (Life::Running(_), Some(started)) = (&self.life, started) {
            if started.home != policy.home {
                pending.push(format!("the home is {} until the next start, then {}", access(started.home), access(policy.home)));
            }
            if started.paths != policy.paths {
                pending.push("other directories of the host come in, or go, at the next start".to_owned());
            }
        }
        pending
    }

    pub(super) fn condition(&mut self, kind: &str, message: impl Into<String>) {
        let message = message.into();
        tracing::warn!(user = self.record.user, condition = kind, message, "condition");
        set_condition(&mut self.conditions, kind, message);
    }

    pub(super) fn clear(&mut self, kind: &str) {
        self.conditions.retain(|c| c.kind != kind);
    }
}

/// The next message of the shim, where there is one.
async fn shim_message(life: &Life) -> std::io::Result<Option<FromShim>> {
    match life {
        Life::Running(running) => Ok(running.channel.receive().await?.map(|(message, _)| message)),
        _ => std::future::pending().await,
    }
}

/// Returns when a connection waits at the socket of a stopped berth.
pub(super) async fn connection(life: &Life) {
    let Life::Stopped { watch: Some(watch), .. } = life else { return std::future::pending().await };
    loop {
        let Ok(mut ready) = watch.readable().await else { return std::future::pending().await };
        let mut poll = [rustix::event::PollFd::new(watch.get_ref(), rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|n| n > 0) {
            return;
        }
        ready.clear_ready();
    }
}

async fn calls_were_taken(life: &Life, taken: &mut watch::Receiver<u64>) {
    match life {
        Life::Running(_) if taken.changed().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

async fn commands_changed(life: &Life, commands: &mut watch::Receiver<u32>) {
    match life {
        Life::Running(_) if commands.changed().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

fn access(home: HomeAccess) -> &'static str {
    match home {
        HomeAccess::Rw => "readable and writable",
        HomeAccess::Ro => "read-only",
        HomeAccess::None => "not there",
    }
}

async fn ready_deadline(life: &Life) {
    match life {
        Life::Running(running) => match running.ready_by.filter(|_| !running.ready) {
            Some(by) => sleep_until(by.into()).await,
            None => std::future::pending().await,
        },
        _ => std::future::pending().await,
    }
}

//! Start, stop, and what a running berth's shim tells.

use std::{
    fs, io, mem,
    os::fd::OwnedFd,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_protocol::{Restart, State};
use berth_runtime::{error::chain, fault};
use tokio::{
    process::Child,
    sync::watch,
    task::JoinHandle,
    time::{Instant as Deadline, timeout, timeout_at},
};
use tokio_util::sync::DropGuard;

use super::{
    owner::{Life, Owner, READY_DEADLINE, Running},
    ports::Published,
    spawn,
};
use crate::{
    daemon::{
        channel::Channel,
        doctor,
        host::now_ms,
        listener::{Listener, gone},
        node::Node,
        record::{Intent, LastExit, Phase, Record},
        refusal::Refusal,
        share::{self, Shared},
    },
    link::{Event, ExitRecord, FromShim, ToShim},
};

/// From the Start message to PID 1.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// What a shim may take for an answer that needs no work.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// What a shim may take to end after it has killed its berth.
const LAST_WORD: Duration = Duration::from_secs(10);
/// What is left of an orderly stop when a suspension waits for it.
const BARRED_STOP: Duration = Duration::from_secs(2);
/// Why a berth was not started.
enum NoStart {
    /// A suspension waits, or the host goes down.
    Barred,
    Failed(String),
}

impl From<String> for NoStart {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl Owner {
    /// Nothing runs from now on; a connection wakes the berth.
    pub(super) fn rest(&mut self, listener: Listener) {
        let watch = match listener.watch() {
            Ok(watch) => Some(watch),
            Err(error) => {
                self.condition("SocketFailed", format!("the socket cannot be watched ({error}): connections do not wake the berth"));
                None
            }
        };
        self.life = Life::Stopped { listener, watch };
    }

    /// A connection waits at the socket of a stopped berth.
    pub(super) async fn woken(&mut self) {
        let Life::Stopped { listener, .. } = &self.life else { return };
        if let Some(reason) = &self.record.suspended {
            return listener.bar_waiting(&suspended(&self.record.user, reason));
        }
        if let Some(why) = self.back_off.holds() {
            return listener.refuse_waiting(&self.sorry(&why));
        }
        tracing::info!(user = self.record.user, "woken by a connection");
        // A failure is in the conditions, and was told to the waiting clients.
        let _ = self.start().await;
    }

    fn sorry(&self, why: &str) -> String {
        format!("the berth of {} cannot start: {why}. Ask your administrator to look at: berth show {0}", self.record.user)
    }

    /// Starts a stopped berth; one that runs stays as it is. On failure: the reason, which is in the conditions too.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        if let Some(reason) = &self.record.suspended {
            return Err(suspended(&self.record.user, reason));
        }
        let listener = match mem::replace(&mut self.life, Life::Busy(State::Starting)) {
            Life::Stopped { listener, watch } => {
                drop(watch);
                listener
            }
            other => {
                self.life = other;
                return Ok(());
            }
        };
        self.due = None;
        self.publish();
        let intent = self.record.intent;
        match self.bring_up(&listener).await {
            Ok((channel, pid, shim, hasty)) => {
                self.back_off.started();
                self.up_since = Some(Instant::now());
                self.conditions.clear();
                self.tell_fall();
                self.tell_not_shared();
                tracing::info!(user = self.record.user, pid, "started");
                let ready_by = Some(Instant::now() + READY_DEADLINE);
                self.last_used_at = Some(now_ms());
                let running = Running {
                    channel,
                    listener,
                    pid,
                    started_at: now_ms(),
                    ready: false,
                    ready_by,
                    sleep: None,
                    fell_asleep: false,
                    reclaiming: None,
                    idle_too_long: None,
                    containers: None,
                    ports: Published::new(Vec::new()),
                    shim: Some(shim),
                    hasty: Some(hasty),
                    exited: None,
                };
                self.life = Life::Running(Box::new(running));
                self.tell_not_grown();
                self.attach_disk().await;
                Ok(())
            }
            Err(NoStart::Barred) => {
                // Whoever waits is told why by the suspension, which comes next.
                self.sweep().await;
                self.exit_record().await;
                self.rest(listener);
                Err("it is being suspended, or the host goes down".into())
            }
            Err(NoStart::Failed(reason)) => {
                let reason = self.with_what_lacks(reason).await;
                self.sweep().await;
                self.exit_record().await;
                // What did not come up is meant to run only if it was before.
                if let Err(refusal) = self.intend(intent).await {
                    tracing::warn!(user = self.record.user, %refusal, "a berth that did not start stays meant to run");
                }
                self.condition("StartFailed", reason.clone());
                self.back_off.failed(&reason);
                self.try_again();
                listener.refuse_waiting(&self.sorry(&reason));
                self.rest(listener);
                Err(reason)
            }
        }
    }

    /// A kernel that cannot do what it has to is told with the cure, beside what failed by it.
    async fn with_what_lacks(&self, reason: String) -> String {
        if reason.contains("No space left on device") {
            return reason;
        }
        match self.blocking(doctor::kernel_lacks).await {
            Some(lacks) => format!("{reason}. This host lacks something: {lacks}"),
            None => reason,
        }
    }

    async fn bring_up(&mut self, listener: &Listener) -> Result<Begun, NoStart> {
        let (record, node) = (self.record.clone(), Arc::clone(&self.node));
        let mut bars = self.bars.clone();
        let _permit = tokio::select! {
            biased;
            () = given_up(&mut bars, &node) => return Err(NoStart::Barred),
            // Closed only when the node ends.
            permit = node.starts.acquire() => permit,
        };
        let hasty = node.host.hasten();
        let sharing = async {
            tokio::select! {
                biased;
                () = given_up(&mut bars, &node) => None,
                shared = share::share(&node, &self.record) => Some(shared),
            }
        };
        // The shim is executed beside the sharing: alone, it only waits for its orders.
        let ready = async {
            let prepared = self.blocking(move |host| spawn::prepare(host, &record)).await.map_err(|e| chain(&e))?;
            let waiting = self.execute(&prepared, hasty)?;
            Ok::<_, NoStart>((prepared, waiting))
        };
        let (shared, ready) = tokio::join!(sharing, ready);
        let (mut prepared, waiting) = ready?;
        let Some(shared) = shared else { return Err(waiting.end(NoStart::Barred).await) };
        self.not_grown = prepared.not_grown.take();
        let record = self.begun(&shared);
        prepared.share(shared);
        let (saved, host) = (record.clone(), Arc::clone(&node));
        let note = (record != self.record).then(|| tokio::task::spawn_blocking(move || host.host.records.save(&saved)));
        let note = async {
            match note {
                Some(note) => note.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())).map_err(|e| chain(&e)),
                None => Ok(()),
            }
        };
        // Before anything of the berth runs: what it can write to must be known at its delete, and what it writes is not to be emptied.
        if record.writable != self.record.writable || record.rebuild != self.record.rebuild {
            if let Err(reason) = note.await {
                return Err(waiting.end(reason.into()).await);
            }
            self.record = record;
            return waiting.start(prepared, listener, given_up(&mut bars, &node)).await;
        }
        let (noted, started) = tokio::join!(note, waiting.start(prepared, listener, given_up(&mut bars, &node)));
        noted?;
        self.record = record;
        started
    }

    /// The record of a berth that runs from now on.
    fn begun(&self, shared: &Shared) -> Record {
        let policy = self.record.policy.clone();
        let mut record = Record { intent: Intent::Running, sleep: None, started: Some(policy), ..self.record.rebuilt() };
        record.not_shared.clone_from(&shared.not_shared);
        if self.not_grown.is_none() {
            record.disk_bytes = record.disk_bytes.max(record.limits.disk_bytes);
        }
        for directory in shared.writable.iter().filter(|d| !self.record.writable.contains(d)) {
            record.writable.push(directory.clone());
        }
        record
    }

    /// A shim that has not been told anything yet.
    fn execute(&self, prepared: &spawn::Prepared, hasty: DropGuard) -> Result<Waiting, String> {
        let (channel, theirs) = Channel::pair().map_err(|e| format!("no socket pair for the shim: {e}"))?;
        let shim = spawn::shim(&self.node.host, self.record.id, prepared, theirs)?;
        Ok(Waiting { channel, shim, hasty })
    }

    /// Directories of the host that the run does not have.
    pub(super) fn tell_not_shared(&mut self) {
        for (kind, message) in share::conditions(&self.record.user, &self.record.not_shared) {
            self.condition(kind, message);
        }
    }

    /// Takes in what the shim of a running berth says of itself.
    pub(super) fn told(&mut self, message: FromShim) {
        let FromShim::Event(event) = message else {
            return tracing::debug!(user = self.record.user, ?message, "late answer");
        };
        let Life::Running(running) = &mut self.life else { return };
        match event {
            Event::Started { pid } => running.pid = pid,
            Event::Ready => {
                running.ready = true;
                running.ready_by = None;
                running.hasty = None;
                tracing::info!(user = self.record.user, after_ms = now_ms() - running.started_at, "docker is ready");
                self.clear("DockerNotReady");
            }
            Event::NotReady { reason } => {
                running.ready = false;
                self.condition("DockerNotReady", reason);
            }
            Event::Stopping => {}
            Event::Frozen { sleep, last_used_at } => {
                tracing::info!(user = self.record.user, reason = sleep.reason, "asleep");
                running.sleep = Some(sleep);
                self.last_used_at = Some(last_used_at);
                let reclaiming = self.reclaim();
                if let Life::Running(running) = &mut self.life {
                    running.reclaiming = reclaiming;
                    running.fell_asleep = true;
                }
            }
            Event::Thawed => {
                running.sleep = None;
                running.reclaiming = None;
            }
            Event::IdleTooLong { sleep, last_used_at } => {
                running.idle_too_long = Some(sleep);
                self.last_used_at = Some(last_used_at);
            }
            Event::Containers { running: containers } => running.containers = Some(containers),
            Event::Ports { ports } => self.ports_told(ports),
            Event::Calls { .. } => self.node.host.calls.grown(self.record.id),
            Event::Failed { error } => running.exited = Some(error),
            Event::Exited { status } => running.exited = Some(status),
        }
    }

    pub(super) fn not_ready_in_time(&mut self) {
        if let Life::Running(running) = &mut self.life {
            running.ready_by = None;
            let message =
                format!("the inner Docker has not answered for {} s; see berth logs {}", READY_DEADLINE.as_secs(), self.record.user);
            self.condition("DockerNotReady", message);
        }
    }

    /// Asks the shim and waits for the answer; events that come first are taken in.
    pub(super) async fn ask_shim(&mut self, request: &ToShim, deadline: Duration) -> io::Result<(FromShim, Vec<OwnedFd>)> {
        let end = Deadline::now() + deadline;
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, format!("the shim did not answer within {} s", deadline.as_secs()));
        let wanted = |answer: &FromShim| match request {
            ToShim::Status => matches!(answer, FromShim::Status(_) | FromShim::Refused { .. }),
            ToShim::Listener | ToShim::Disk | ToShim::Held(_) => matches!(answer, FromShim::Fd | FromShim::Refused { .. }),
            _ => matches!(answer, FromShim::Ok | FromShim::Refused { .. }),
        };
        point(request).map_err(io::Error::other)?;
        let mut asked = false;
        loop {
            let Life::Running(running) = &self.life else { return Err(io::Error::other("it does not run")) };
            if !asked {
                timeout_at(end, running.channel.send(request, &[])).await.map_err(timed_out)??;
                asked = true;
            }
            match timeout_at(end, running.channel.receive()).await.map_err(timed_out)?? {
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the shim is gone")),
                Some((answer, descriptors)) if wanted(&answer) => return Ok((answer, descriptors)),
                Some((other, _)) => self.told(other),
            }
        }
    }

    /// Stops in order; what does not end in time is killed. Nothing of it runs afterwards.
    pub(super) async fn stop_running(&mut self, deadline: Duration) -> Result<(), Refusal> {
        let request = ToShim::Stop { deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) };
        let asked = self.ask_shim(&request, ANSWER_DEADLINE).await;
        let Life::Running(running) = mem::replace(&mut self.life, Life::Busy(State::Stopping)) else { return Ok(()) };
        if let Err(error) = &asked {
            tracing::warn!(user = self.record.user, %error, "the shim does not stop; killing the berth");
        }
        self.finish(running, asked.is_ok().then_some(deadline)).await
    }

    /// Waits for the end of what was asked to stop by `deadline`; `None` kills it. A suspension that comes meanwhile does not wait so long.
    pub(super) async fn finish(&mut self, mut running: Box<Running>, deadline: Option<Duration>) -> Result<(), Refusal> {
        self.publish();
        let in_order = deadline.is_some() && self.record.phase == Phase::Present;
        if let Some(deadline) = deadline {
            let mut end = Deadline::now() + deadline + LAST_WORD;
            let mut bars = self.bars.clone();
            let mut hurried = false;
            loop {
                let message = tokio::select! {
                    message = timeout_at(end, running.channel.receive()) => message,
                    () = raised(&mut bars), if !hurried => {
                        hurried = true;
                        end = end.min(Deadline::now() + BARRED_STOP + LAST_WORD);
                        let stop = ToShim::Stop { deadline_ms: BARRED_STOP.as_millis() as u64 };
                        let _ = timeout(BARRED_STOP, running.channel.send(&stop, &[])).await;
                        continue;
                    }
                };
                match message {
                    Ok(Ok(Some((FromShim::Event(Event::Exited { status } | Event::Failed { error: status }), _)))) => {
                        running.exited = Some(status);
                    }
                    Ok(Ok(Some(_))) => {}
                    _ => break,
                }
            }
        }
        drop(running.channel);
        if in_order {
            self.trim_at_stop().await;
        }
        self.back_off.reset();
        let swept = self.sweep().await;
        let left = self.exit_record().await.map(|r| r.status);
        self.note_exit(running.exited.or(left).unwrap_or_else(|| "it was killed".into())).await;
        self.rest(running.listener);
        match swept {
            true => Ok(()),
            false => {
                let detail = self.conditions.iter().find(|c| c.kind == "SweepFailed").map(|c| c.message.clone()).unwrap_or_default();
                Err(Refusal::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "stop_failed", detail).hint("berth doctor"))
            }
        }
    }

    /// The connection to the shim ended though nobody had asked it to.
    pub(super) async fn ended(&mut self, error: Option<io::Error>) {
        let Life::Running(mut running) = mem::replace(&mut self.life, Life::Busy(State::Stopping)) else { return };
        self.publish();
        drop(running.channel);
        let shim = spawn::end(running.shim.take()).await;
        self.sweep().await;
        let left = self.exit_record().await;
        let status = running.exited.or(left.as_ref().map(|r| r.status.clone()));
        self.clear("DockerNotReady");
        match status {
            Some(status) => {
                let asked = left.is_some_and(|r| r.asked);
                let off = !asked && ExitRecord::is_off(&status);
                if !asked {
                    self.condition("Exited", format!("it ended by itself: {status}"));
                }
                if off && let Err(refusal) = self.intend(Intent::Stopped).await {
                    tracing::warn!(user = self.record.user, %refusal, "a berth that switched itself off stays meant to run");
                }
                if !asked && !off {
                    self.come_back_after(&format!("it ended by itself ({status})"));
                }
                self.note_exit(status).await;
                self.rest(running.listener);
            }
            None => {
                let why = shim.or(error.map(|e| e.to_string())).map(|why| format!(" ({why})")).unwrap_or_default();
                let next = match self.record.policy.restart {
                    Restart::OnFailure => "it is started again by itself if it was meant to run",
                    Restart::Never => "the next connection or berth start starts it anew",
                };
                self.condition("ShimDied", format!("its shim died{why}, and the berth ended with it; {next}"));
                self.come_back_after(&format!("its shim died{why}"));
                self.note_exit(format!("its shim died{why}")).await;
                self.replace_listener(running.listener).await;
            }
        }
    }

    /// The dead shim may have given the old socket to its berth: nobody is to wait at it.
    async fn replace_listener(&mut self, old: Listener) {
        let record = self.record.clone();
        match self.blocking(move |host| Listener::bind(&host.layout, &record, &host.calls)).await {
            Ok(listener) => {
                old.refuse_waiting(&format!("the berth of {} has just ended unexpectedly: try again", self.record.user));
                self.rest(listener);
            }
            Err(error) => {
                self.condition("SocketFailed", chain(&error));
                self.rest(old);
            }
        }
    }

    /// Removes what a run left; false when something stays, which is then a condition. The next start sweeps again.
    pub(super) async fn sweep(&mut self) -> bool {
        let (id, link, shim) = (self.record.id, self.record.link.clone(), self.record.id_base);
        self.clear("PortTaken");
        self.clear("PortsNotGuarded");
        match self.blocking(move |host| host.sweep_run(id, &link, shim)).await {
            Ok(()) => {
                self.clear("SweepFailed");
                true
            }
            Err(error) => {
                self.condition("SweepFailed", chain(&error));
                false
            }
        }
    }

    /// What a shim wrote when it ended, read once: of a run that is over, only its logs stay.
    pub(super) async fn exit_record(&self) -> Option<ExitRecord> {
        let id = self.record.id;
        let bytes = self.blocking(move |host| {
            host.calls.ended(id);
            let point = fault::point("take the exit record").map_err(io::Error::other);
            let bytes = point.and_then(|()| fs::read(host.layout.exit_record(id)));
            if let Err(error) = gone(fs::remove_dir_all(host.layout.shim_dir(id))) {
                tracing::warn!(%id, %error, "the directory of a shim stays until the next start");
            }
            bytes
        });
        serde_json::from_slice(&bytes.await.ok()?).ok()
    }

    pub(super) async fn note_exit(&mut self, status: String) {
        let record = Record { last_exit: Some(LastExit { at: now_ms(), status }), ..self.record.clone() };
        let saved = record.clone();
        match self.blocking(move |host| host.records.save(&saved)).await {
            Ok(()) => self.record = record,
            Err(error) => tracing::warn!(user = self.record.user, error = chain(&error), "the end is not in the record"),
        }
    }

    /// The shim may use the room of what the server has stored.
    pub(super) async fn forget_calls(&mut self) {
        let position = *self.calls_taken.borrow_and_update();
        if let Err(error) = self.ask_shim(&ToShim::CallsTaken { position }, ANSWER_DEADLINE).await {
            tracing::debug!(user = self.record.user, %error, "the shim did not hear what was taken of its spool");
        }
    }

    /// Takes in what the shim has not told of by itself.
    pub(super) async fn look(&mut self) {
        if let Ok((FromShim::Status(status), _)) = self.ask_shim(&ToShim::Status, ANSWER_DEADLINE).await {
            self.last_used_at = Some(status.last_used_at);
        }
    }
}

/// A started berth: the way to its shim, the pid of its PID 1, how its shim will have ended, and the haste that it is in.
type Begun = (Channel, u32, JoinHandle<io::Result<ExitStatus>>, DropGuard);

/// A shim before its orders: nothing of the berth runs.
struct Waiting {
    channel: Channel,
    shim: Child,
    hasty: DropGuard,
}

impl Waiting {
    async fn start(self, prepared: spawn::Prepared, listener: &Listener, given_up: impl Future<Output = ()>) -> Result<Begun, NoStart> {
        let channel = &self.channel;
        let started = async {
            spawn::send(channel, listener, prepared).await.map_err(|e| format!("the shim did not take its orders: {e}"))?;
            wait_started(channel).await
        };
        let started = tokio::select! {
            biased;
            () = given_up => Err(NoStart::Barred),
            started = timeout(START_DEADLINE, started) => match started {
                Ok(started) => started.map_err(NoStart::Failed),
                Err(_) => Err(NoStart::Failed(format!("it took longer than {} s", START_DEADLINE.as_secs()))),
            },
        };
        match started {
            Ok(pid) => {
                let Self { channel, mut shim, hasty } = self;
                // It outlives us; while we live it is ours to reap.
                Ok((channel, pid, tokio::spawn(async move { shim.wait().await }), hasty))
            }
            Err(why) => Err(self.end(why).await),
        }
    }

    async fn end(mut self, why: NoStart) -> NoStart {
        let _ = self.shim.kill().await;
        why
    }
}

/// Returns when a suspension waits for its turn, or the host goes down.
async fn given_up(bars: &mut watch::Receiver<u32>, node: &Node) {
    tokio::select! {
        () = raised(bars) => {}
        () = node.down.cancelled() => {}
    }
}

/// Returns when a suspension waits for its turn.
pub(super) async fn raised(bars: &mut watch::Receiver<u32>) {
    if bars.wait_for(|waiting| *waiting > 0).await.is_err() {
        std::future::pending().await
    }
}

/// What the user is told at the socket.
fn suspended(user: &str, reason: &str) -> String {
    format!("the berth of {user} is suspended by an administrator: {reason}. Ask your administrator; it goes on with: berth resume {user}")
}

/// What is asked for changes the berth: each such request is a step of its own.
fn point(request: &ToShim) -> berth_runtime::error::Result<()> {
    match request {
        ToShim::Stop { .. } => fault::point("tell the shim to stop"),
        ToShim::Retire { .. } => fault::point("tell the shim to retire"),
        ToShim::Suspend { .. } => fault::point("tell the shim to suspend"),
        ToShim::Resume => fault::point("tell the shim to resume"),
        ToShim::Policy { .. } => fault::point("tell the shim its policy"),
        _ => Ok(()),
    }
}

async fn wait_started(channel: &Channel) -> Result<u32, String> {
    loop {
        match channel.receive().await {
            Ok(Some((FromShim::Event(Event::Started { pid }), _))) => return Ok(pid),
            Ok(Some((FromShim::Event(Event::Failed { error } | Event::Exited { status: error }), _))) => return Err(error),
            Ok(Some((FromShim::Refused { detail }, _))) => return Err(detail),
            Ok(Some(_)) => {}
            Ok(None) => return Err("the shim ended without a word; its log is in berth logs".into()),
            Err(error) => return Err(format!("the shim said something that is not understood: {error}")),
        }
    }
}

//! Start, stop, and what a running berth's shim tells.

use std::{
    fs, io, mem,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_protocol::State;
use berth_runtime::{disk, error::chain};
use tokio::time::{Instant as Deadline, timeout_at};

use super::{
    owner::{Life, Owner, READY_DEADLINE, Running},
    spawn,
};
use crate::{
    daemon::{
        channel::Channel,
        host::now_ms,
        listener::{Listener, gone},
        record::{Intent, LastExit, Record},
        refusal::Refusal,
    },
    link::{Event, ExitRecord, FromShim, ToShim},
};

/// From the Start message to PID 1.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// What a shim may take for an answer that needs no work.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// What a shim may take to end after it has killed its berth.
const LAST_WORD: Duration = Duration::from_secs(10);

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
        if self.record.suspended.is_some() {
            return listener.refuse_waiting(&format!("the berth of {} is suspended by an administrator: ask him", self.record.user));
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
        self.publish();
        match self.bring_up(&listener).await {
            Ok((channel, pid)) => {
                self.back_off.reset();
                self.conditions.clear();
                tracing::info!(user = self.record.user, pid, "started");
                let ready_by = Some(Instant::now() + READY_DEADLINE);
                let running =
                    Running { channel, listener, pid, started_at: now_ms(), ready: false, ready_by, trim: Arc::default(), exited: None };
                self.life = Life::Running(running);
                Ok(())
            }
            Err(reason) => {
                self.sweep().await;
                self.exit_record().await;
                self.condition("StartFailed", reason.clone());
                self.back_off.failed(&reason);
                listener.refuse_waiting(&self.sorry(&reason));
                self.rest(listener);
                Err(reason)
            }
        }
    }

    async fn bring_up(&mut self, listener: &Listener) -> Result<(Channel, u32), String> {
        self.intend(Intent::Running).await.map_err(|r| r.problem.detail)?;
        // Closed only when the node ends.
        let _permit = self.node.starts.acquire().await;
        let record = self.record.clone();
        let prepared = self.blocking(move |host| spawn::prepare(host, &record)).await.map_err(|e| chain(&e))?;
        let (channel, theirs) = Channel::pair().map_err(|e| format!("no socket pair for the shim: {e}"))?;
        let mut shim = spawn::shim(&self.node.host, self.record.id, &prepared, theirs)?;
        let started = async {
            spawn::send(&channel, listener, prepared).await.map_err(|e| format!("the shim did not take its orders: {e}"))?;
            wait_started(&channel).await
        };
        match tokio::time::timeout(START_DEADLINE, started).await {
            Ok(Ok(pid)) => {
                // It outlives us; while we live it is ours to reap.
                tokio::spawn(async move { shim.wait().await });
                Ok((channel, pid))
            }
            Ok(Err(reason)) => {
                let _ = shim.kill().await;
                Err(reason)
            }
            Err(_) => {
                let _ = shim.kill().await;
                Err(format!("it took longer than {} s", START_DEADLINE.as_secs()))
            }
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
                tracing::info!(user = self.record.user, after_ms = now_ms() - running.started_at, "docker is ready");
                self.clear("DockerNotReady");
            }
            Event::NotReady { reason } => {
                running.ready = false;
                self.condition("DockerNotReady", reason);
            }
            Event::Stopping => {}
            Event::Frozen(_) | Event::Thawed | Event::IdleTooLong(_) | Event::Ports { .. } | Event::Containers { .. } | Event::Calls { .. } => {}
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
            ToShim::Listener | ToShim::Disk => matches!(answer, FromShim::Fd | FromShim::Refused { .. }),
            _ => matches!(answer, FromShim::Ok | FromShim::Refused { .. }),
        };
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
        let Life::Running(mut running) = mem::replace(&mut self.life, Life::Busy(State::Stopping)) else { return Ok(()) };
        self.publish();
        if let Err(error) = asked {
            tracing::warn!(user = self.record.user, %error, "the shim does not stop; killing the berth");
        } else {
            let end = Deadline::now() + deadline + LAST_WORD;
            while let Ok(Ok(Some((message, _)))) = timeout_at(end, running.channel.receive()).await {
                if let FromShim::Event(Event::Exited { status } | Event::Failed { error: status }) = message {
                    running.exited = Some(status);
                }
            }
        }
        drop(running.channel);
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
        let Life::Running(running) = mem::replace(&mut self.life, Life::Busy(State::Stopping)) else { return };
        self.publish();
        drop(running.channel);
        self.sweep().await;
        let left = self.exit_record().await;
        let status = running.exited.or(left.as_ref().map(|r| r.status.clone()));
        self.clear("DockerNotReady");
        match status {
            Some(status) => {
                if !left.is_some_and(|r| r.asked) {
                    self.condition("Exited", format!("it ended by itself: {status}"));
                }
                self.note_exit(status).await;
                self.rest(running.listener);
            }
            None => {
                let why = error.map(|e| format!(" ({e})")).unwrap_or_default();
                self.condition(
                    "ShimDied",
                    format!("its shim died{why}, and the berth ended with it; the next connection or berth start starts it anew"),
                );
                self.note_exit("its shim died".into()).await;
                self.replace_listener(running.listener).await;
            }
        }
    }

    /// The dead shim may have given the old socket to its berth: nobody is to wait at it.
    async fn replace_listener(&mut self, old: Listener) {
        let record = self.record.clone();
        match self.blocking(move |host| Listener::bind(&host.layout, &record)).await {
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
        let (id, link) = (self.record.id, self.record.link.clone());
        match self.blocking(move |host| host.sweep(id, &link)).await {
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
            let bytes = fs::read(host.layout.exit_record(id));
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

    /// Gives back to the host what the berth deleted. One at a time: a shim that answers with a descriptor that blocks harms itself only.
    pub(super) async fn trim(&mut self) {
        let Life::Running(running) = &self.life else { return };
        if Arc::strong_count(&running.trim) > 1 {
            return;
        }
        let under_way = Arc::clone(&running.trim);
        let descriptor = match self.ask_shim(&ToShim::Disk, ANSWER_DEADLINE).await {
            Ok((FromShim::Fd, descriptors)) => descriptors.into_iter().next(),
            Ok((other, _)) => return tracing::warn!(user = self.record.user, ?other, "no disk to trim"),
            Err(error) => return tracing::warn!(user = self.record.user, %error, "no disk to trim"),
        };
        let (Some(descriptor), user) = (descriptor, self.record.user.clone()) else { return };
        tokio::task::spawn_blocking(move || {
            match disk::trim(std::os::fd::AsFd::as_fd(&descriptor)) {
                Ok(bytes) => tracing::debug!(user, bytes, "trimmed"),
                Err(error) => tracing::warn!(user, error = chain(&error), "not trimmed"),
            }
            drop(under_way);
        });
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

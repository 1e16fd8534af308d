//! Sleep and suspension, as far as the node has a part in them: the shim freezes and thaws by itself; the node writes down what is to
//! survive, stops what nobody used for long, and takes memory back from what sleeps.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use berth_protocol::{Sleep, State};
use berth_runtime::error::chain;
use tokio::{sync::watch, time::sleep};

use super::{
    Unmet,
    owner::{Life, Owner},
};
use crate::{
    daemon::{
        record::{Intent, Record},
        refusal::Refusal,
        shims,
    },
    link::{FromShim, ToShim},
};

/// A shim that does not freeze its berth in this time is ended with it.
const SUSPEND_DEADLINE: Duration = Duration::from_secs(2);
/// What a shim may take for an answer that needs no work.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// What an idle berth may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);
/// What wakes again so soon keeps its memory.
const RECLAIM_AFTER: Duration = Duration::from_secs(10);
/// Taking memory back is work for the host: so long for one berth at most.
const RECLAIM_TIME: Duration = Duration::from_secs(20);

/// A suspension that waits for its turn: a start under way is given up for it, an orderly stop is cut short. Over when dropped.
pub(crate) struct Bar(Arc<watch::Sender<u32>>);

impl Bar {
    pub(super) fn raise(count: &Arc<watch::Sender<u32>>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// A command of the node that runs in a berth, until dropped.
pub(crate) struct Command(Arc<watch::Sender<u32>>);

impl Command {
    pub(super) fn begin(count: &Arc<watch::Sender<u32>>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// The memory of a sleeping berth is being taken back; given up when dropped.
pub(super) struct Reclaiming(Arc<AtomicBool>);

impl Drop for Reclaiming {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Owner {
    /// Bars it from now on: what runs stands still, what does not run is not woken. It is done even where it cannot be written down,
    /// which is then the error.
    pub(super) async fn suspend(&mut self, reason: &str) -> Result<(), Refusal> {
        let noted = self.note_suspension(Some(reason.to_owned())).await;
        if noted.is_err() {
            self.bar_unwritten(reason.to_owned());
        }
        if matches!(self.life, Life::Running(_)) {
            tracing::info!(user = self.record.user, reason, "suspended");
            self.suspend_running(reason).await;
        }
        noted
    }

    /// Also for a shim that was taken up again and does not know.
    pub(super) async fn suspend_running(&mut self, reason: &str) {
        match self.ask_shim(&ToShim::Suspend { reason: reason.to_owned() }, SUSPEND_DEADLINE).await {
            Ok((FromShim::Ok, _)) => {
                if let Life::Running(running) = &mut self.life {
                    running.sleep = None;
                    running.reclaiming = None;
                }
            }
            other => {
                tracing::warn!(user = self.record.user, ?other, "the shim does not suspend its berth, which is killed therefore");
                let Life::Running(running) = mem::replace(&mut self.life, Life::Busy(State::Stopping)) else { return };
                // What stays is a condition, and is swept again before the next start.
                let _ = self.finish(running, None).await;
            }
        }
    }

    /// Takes a suspension back. A running berth goes on; true for one that does not run but did, and is to be started again.
    pub(super) async fn resume(&mut self) -> Result<bool, Refusal> {
        let Some(reason) = self.record.suspended.clone() else { return Ok(false) };
        self.note_suspension(None).await?;
        if let Err(refusal) = self.resume_running().await {
            // It stands still, and has to say so; asked again, it is tried again.
            if self.note_suspension(Some(reason.clone())).await.is_err() {
                self.bar_unwritten(reason);
            }
            return Err(refusal);
        }
        tracing::info!(user = self.record.user, "resumed");
        Ok(matches!(self.life, Life::Stopped { .. }) && self.record.intent == Intent::Running)
    }

    pub(super) async fn resume_running(&mut self) -> Result<(), Refusal> {
        if !matches!(self.life, Life::Running(_)) {
            return Ok(());
        }
        let why = match self.ask_shim(&ToShim::Resume, ANSWER_DEADLINE).await {
            Ok((FromShim::Ok, _)) => return Ok(()),
            Ok((other, _)) => format!("its shim said {other:?}"),
            Err(error) => error.to_string(),
        };
        let detail = format!("the berth of {} did not wake and stays suspended: {why}", self.record.user);
        let hint = format!("ask again: berth resume {}; berth doctor", self.record.user);
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "resume_failed", detail).hint(hint))
    }

    /// Barred all the same, as long as this daemon lives; the next that asks has it written down.
    fn bar_unwritten(&mut self, reason: String) {
        self.record.suspended = Some(reason);
        self.unwritten = true;
    }

    async fn note_suspension(&mut self, suspended: Option<String>) -> Result<(), Refusal> {
        let record = Record { suspended, ..self.record.clone() };
        if record == self.record && !self.unwritten {
            return Ok(());
        }
        let saved = record.clone();
        let what = format!("cannot write the record of {}", record.user);
        self.blocking(move |host| host.records.save(&saved)).await.map_err(|e| Refusal::failed("record_not_written", what, &e))?;
        self.record = record;
        self.unwritten = false;
        Ok(())
    }

    /// Why nothing may be done with a suspended berth but to resume or delete it.
    pub(super) fn barred(&self) -> Result<(), Refusal> {
        let Some(reason) = &self.record.suspended else { return Ok(()) };
        let user = &self.record.user;
        Err(Refusal::conflict("berth_suspended", format!("the berth of {user} is suspended: {reason}"))
            .hint(format!("berth resume {user}")))
    }

    /// Before a command enters it: thawed, and in use.
    pub(super) async fn use_now(&mut self) -> Result<(), Unmet> {
        self.barred()?;
        let user = self.record.user.clone();
        match self.ask_shim(&ToShim::Use, ANSWER_DEADLINE).await {
            Ok((FromShim::Ok, _)) => Ok(()),
            _ if !matches!(self.life, Life::Running(_)) => {
                let detail = format!("the berth of {user} does not run");
                Err(Refusal::conflict("berth_not_running", detail).hint(format!("berth start {user}")).into())
            }
            other => {
                let detail = format!("the berth of {user} did not wake: {other:?}");
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "wake_failed", detail).hint(format!("berth restart {user}")).into())
            }
        }
    }

    /// Tells the shim how many commands of ours run inside.
    pub(super) async fn tell_commands(&mut self) {
        let open = *self.commands.borrow_and_update();
        if let Err(error) = self.ask_shim(&ToShim::Commands { open }, ANSWER_DEADLINE).await {
            tracing::debug!(user = self.record.user, %error, "the shim did not hear of commands");
        }
    }

    /// Stops a berth that nobody used for long; the next connection wakes it.
    pub(super) async fn retire(&mut self, why: Sleep) {
        if self.record.suspended.is_some() {
            return;
        }
        let deadline = STOP_DEADLINE;
        let request = ToShim::Retire { deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) };
        match self.ask_shim(&request, ANSWER_DEADLINE).await {
            Ok((FromShim::Ok, _)) => {}
            // Used again meanwhile, or gone: the shim tells.
            other => return tracing::info!(user = self.record.user, ?other, "not stopped for being idle"),
        }
        tracing::info!(user = self.record.user, reason = why.reason, "stopped for being idle");
        let Life::Running(running) = mem::replace(&mut self.life, Life::Busy(State::Stopping)) else { return };
        let record = Record { intent: Intent::Stopped, sleep: Some(why), ..self.record.clone() };
        let saved = record.clone();
        match self.blocking(move |host| host.records.save(&saved)).await {
            Ok(()) => self.record = record,
            Err(error) => tracing::warn!(user = self.record.user, error = chain(&error), "why it was stopped is not in the record"),
        }
        let _ = self.finish(running, Some(deadline)).await;
    }

    /// Asleep it loses nothing by a stop: one whose shim is older than the installed program wakes with the new one.
    pub(super) async fn renew(&mut self) {
        let id = self.record.id;
        if !self.blocking(move |host| shims::outdated(host, id)).await {
            return;
        }
        let Life::Running(running) = &self.life else { return };
        let Some(sleep) = running.sleep.clone() else { return };
        let reason =
            format!("{}; its berth-shim was older than the installed one, so it was stopped, and wakes with the new one", sleep.reason);
        self.retire(Sleep { since: sleep.since, reason }).await;
    }

    /// A sleeping berth's memory goes to swap, where there is any: read back, it costs less than what others could not have.
    pub(super) fn reclaim(&self) -> Option<Reclaiming> {
        if !self.node.host.reclaims() {
            return None;
        }
        let give_up = Arc::new(AtomicBool::new(false));
        let (node, group, user) = (Arc::clone(&self.node), self.node.host.group(self.record.id), self.record.user.clone());
        let stop = Arc::clone(&give_up);
        tokio::spawn(async move {
            sleep(RECLAIM_AFTER).await;
            let Ok(_turn) = node.reclaims.acquire().await else { return };
            if stop.load(Ordering::Relaxed) || node.stop.is_cancelled() {
                return;
            }
            let work = move || group.reclaim(RECLAIM_TIME, &stop);
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(bytes)) => tracing::info!(user, bytes, "memory reclaimed from a sleeping berth"),
                Ok(Err(error)) => tracing::warn!(user, error = chain(&error), "no memory reclaimed"),
                Err(error) => tracing::error!(user, %error, "no memory reclaimed"),
            }
        });
        Some(Reclaiming(give_up))
    }
}

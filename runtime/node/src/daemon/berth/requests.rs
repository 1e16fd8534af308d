//! What the owner does when asked.

use std::{mem, time::Duration};

use axum::http::StatusCode;
use berth_protocol::{Ensure, HostUser, State, Wanted};
use berth_runtime::Error;

use super::{
    Request, Unmet, limits,
    owner::{Life, Owner},
};
use crate::{
    daemon::{
        host::Remains,
        listener::Listener,
        record::{Intent, Phase, Record},
        refusal::Refusal,
    },
    link::{FromShim, ToShim},
};

/// What a berth may take to stop before it is killed; the inner Docker gives each container 10 s.
const STOP_DEADLINE: Duration = Duration::from_secs(25);
/// The same before a delete.
const DELETE_DEADLINE: Duration = Duration::from_secs(5);
const POLICY_DEADLINE: Duration = Duration::from_secs(10);

impl Owner {
    pub(super) async fn handle(&mut self, request: Request) {
        let (answer, reply) = match request {
            Request::Preview { ensure, reply } => {
                // Whoever asked may have gone meanwhile.
                let _ = reply.send(self.preview(&ensure).await);
                return;
            }
            Request::Ensure { ensure, account, bar, reply } => {
                // Its turn has come.
                drop(bar);
                (self.ensure(&ensure, account.as_ref()).await, reply)
            }
            Request::Use { reply } => (self.use_now().await, reply),
            Request::Stop { reply } => (self.asked_to_stop().await, reply),
            Request::Archive { request, job, reply } => (self.archive(*request, job).await, reply),
            Request::Restore { ensure, account, archive, of, job, reply } => {
                (self.restore(&ensure, &account, archive, of, job).await, reply)
            }
            Request::Delete { reply } => (self.delete().await, reply),
        };
        self.publish();
        // Whoever hears that it is gone must not find it any more.
        if matches!(self.life, Life::Gone) {
            self.node.forget(&self.record.user, self.record.id);
        }
        // Whoever asked may have gone meanwhile.
        let _ = reply.send(answer.map(|()| self.status_now()));
    }

    async fn ensure(&mut self, ensure: &Ensure, account: Option<&HostUser>) -> Result<(), Unmet> {
        let new = matches!(self.life, Life::New);
        match self.life {
            Life::New => self.create().await?,
            Life::Remains if self.record.phase != Phase::Present => {
                self.take_away().await?;
                return Err(Unmet::Gone);
            }
            _ => {
                self.same_berth(ensure, account)?;
                self.settled().await?;
            }
        }
        if let Some(reason) = &ensure.suspended {
            // First: nothing else that is wanted may keep it running.
            self.suspend(reason).await?;
            return Ok(self.change(ensure, account).await?);
        }
        self.change(ensure, account).await?;
        let resumed = self.resume().await?;
        if let Some(rebuild) = ensure.rebuild {
            self.rebuild(rebuild, new).await?;
        }
        let wanted = match (ensure.wanted, resumed) {
            // It ran when it was suspended.
            (Wanted::Present, true) => Wanted::Running,
            (wanted, _) => wanted,
        };
        match wanted {
            Wanted::Present => {}
            Wanted::Stopped => self.stop(STOP_DEADLINE).await?,
            Wanted::Running => {
                self.back_off.reset();
                if let Err(reason) = self.start().await {
                    let detail = format!("the berth of {} did not start: {reason}", self.record.user);
                    let refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "start_failed", detail);
                    // What was to be made running and does not run is taken back, so that the same request can be made again.
                    let hint = match new && self.take_away().await.is_ok() {
                        true => "nothing of it is left; see berth doctor, then ask again; to look inside of it, make it stopped".to_owned(),
                        false => format!("berth logs {0}; berth doctor; then: berth start {0}", self.record.user),
                    };
                    return Err(refusal.hint(hint).into());
                }
            }
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Unmet> {
        let mut record = self.record.clone();
        let (record, made) = self
            .blocking(move |host| {
                let made = host.create(&mut record);
                (record, made)
            })
            .await;
        self.record = record;
        match made {
            Ok(listener) => {
                self.rest(listener);
                Ok(())
            }
            Err(error) => {
                let refusal = Refusal::failed("create_failed", format!("cannot create the berth of {}", self.record.user), &error);
                if let Error::Undone { leftovers, .. } = &error {
                    self.condition("UndoFailed", format!("a failed create left: {}; asking again goes on", leftovers.join(", ")));
                    self.life = Life::Remains;
                } else {
                    self.life = Life::Gone;
                }
                Err(refusal.into())
            }
        }
    }

    /// Refuses what would be another berth, or another account under the same name.
    pub(super) fn same_berth(&self, ensure: &Ensure, account: Option<&HostUser>) -> Result<(), Refusal> {
        let Record { id, user, uid, image, .. } = &self.record;
        if ensure.id != *id {
            return Err(Refusal::conflict("berth_exists", format!("{user} has a berth already, {id}")).hint(format!("berth show {user}")));
        }
        if let Some(account) = account.filter(|account| account.uid != *uid) {
            let detail = format!("the berth of {user} belongs to uid {uid}, and {user} has uid {} now", account.uid);
            return Err(Refusal::conflict("uid_changed", detail).hint(format!("give the uid back, or: berth delete {user}")));
        }
        if ensure.image != *image {
            let detail = format!("the berth of {user} stands on image {image}, not on {}", ensure.image);
            return Err(Refusal::conflict("image_fixed", detail).hint(format!("berth delete {user}, then berth assign {user} --image …")));
        }
        Ok(())
    }

    /// Takes over what may differ from the last time; a running berth feels it at once.
    async fn change(&mut self, ensure: &Ensure, account: Option<&HostUser>) -> Result<(), Refusal> {
        let mut record = self.record.clone();
        record.limits = ensure.limits;
        record.allow_system = ensure.allow_system;
        record.policy = ensure.policy.clone();
        if let Some(account) = account {
            record.gid = account.gid;
            record.home = account.home.clone().into();
        }
        if record == self.record {
            return Ok(());
        }
        let disk = self.disk_plan(&record.limits).await?;
        let running = matches!(self.life, Life::Running(_));
        let old = self.record.clone();
        let record = self.blocking(move |host| limits::change(host, &old, &mut record, disk, running).map(|()| record)).await?;
        let policy = &self.record.policy;
        let live = (policy.ports, policy.idle) != (record.policy.ports, record.policy.idle);
        self.record = record;
        if running && live {
            self.tell_policy().await;
        }
        Ok(())
    }

    /// What of the policy a running berth feels at once. A shim that does not hear it gets it when it is taken up again.
    pub(super) async fn tell_policy(&mut self) {
        let request = ToShim::Policy { ports: self.record.policy.ports, idle: self.record.policy.idle };
        match self.ask_shim(&request, POLICY_DEADLINE).await {
            Ok((FromShim::Ok, _)) => {}
            other => tracing::warn!(user = self.record.user, ?other, "the shim did not hear of its policy"),
        }
    }

    pub(super) async fn delete(&mut self) -> Result<(), Unmet> {
        if matches!(self.life, Life::New) {
            self.life = Life::Gone;
        }
        if matches!(self.life, Life::Gone) {
            return Err(Unmet::Gone);
        }
        if self.record.phase == Phase::Present {
            let mut record = self.record.clone();
            record.phase = Phase::Deleting;
            let saved = record.clone();
            let what = format!("cannot delete the berth of {}", record.user);
            self.blocking(move |host| host.records.save(&saved)).await.map_err(|e| Refusal::failed("delete_failed", what, &e))?;
            self.record = record;
        }
        if matches!(self.life, Life::Running(_)) {
            // Whatever does not end in order is killed by the sweep that follows.
            if let Err(error) = self.stop_running(DELETE_DEADLINE).await {
                tracing::warn!(user = self.record.user, error = %error, "stop before delete");
            }
        }
        self.take_away().await?;
        Err(Unmet::Gone)
    }

    /// Removes everything; what is left of the berth then is nothing, or [`Life::Remains`] with the reason.
    pub(super) async fn take_away(&mut self) -> Result<(), Refusal> {
        if let Life::Stopped { listener, .. } = mem::replace(&mut self.life, Life::Busy(State::Stopping)) {
            self.turn_away(&listener);
        }
        self.publish();
        let remains = Remains::of(&self.record);
        match self.blocking(move |host| host.dismantle(&remains)).await {
            Ok(()) => {
                self.life = Life::Gone;
                self.node.give_back.notify_one();
                Ok(())
            }
            Err(error) => {
                let refusal = Refusal::failed("delete_failed", format!("the berth of {} is not wholly removed", self.record.user), &error)
                    .hint(format!("ask again, it goes on where it stopped: berth delete {}", self.record.user));
                self.condition("DeleteFailed", refusal.problem.detail.clone());
                self.life = Life::Remains;
                Err(refusal)
            }
        }
    }

    fn turn_away(&self, listener: &Listener) {
        listener.refuse_waiting(&format!("the berth of {} was deleted: ask your administrator for a new one", self.record.user));
    }

    /// Suspended, it has no orderly stop: it is not to run another instruction.
    async fn asked_to_stop(&mut self) -> Result<(), Unmet> {
        self.barred()?;
        self.stop(STOP_DEADLINE).await
    }

    /// Kills what is suspended.
    pub(super) async fn end_running(&mut self) -> Result<(), Refusal> {
        let Life::Running(running) = mem::replace(&mut self.life, Life::Busy(State::Stopping)) else { return Ok(()) };
        self.finish(running, None).await
    }

    /// Stops a running berth in order; a stopped one stays as it is. The next connection wakes it.
    pub(super) async fn stop(&mut self, deadline: Duration) -> Result<(), Unmet> {
        match self.life {
            Life::New | Life::Gone => {
                self.life = Life::Gone;
                return Err(Unmet::Gone);
            }
            Life::Remains if self.record.phase != Phase::Present => {
                let detail = format!("the berth of {} is partly deleted", self.record.user);
                return Err(Refusal::conflict("berth_deleting", detail).hint(format!("berth delete {}", self.record.user)).into());
            }
            _ => self.settled().await?,
        }
        self.intend(Intent::Stopped).await?;
        self.stay_down();
        for kind in ["StartFailed", "ShimDied", "Exited", "DockerNotReady", "Restarted"] {
            self.clear(kind);
        }
        if matches!(self.life, Life::Running(_)) {
            self.stop_running(deadline).await?;
        } else if self.conditions.iter().any(|c| c.kind == "SweepFailed") {
            // What the last run left is a condition until it is gone.
            self.sweep().await;
        }
        Ok(())
    }

    /// A berth whose socket could not be made when the node started gets another try.
    async fn settled(&mut self) -> Result<(), Refusal> {
        if matches!(self.life, Life::Remains) {
            self.clear("SocketFailed");
            self.settle().await;
        }
        if !matches!(self.life, Life::Remains) {
            return Ok(());
        }
        let why = self.conditions.iter().find(|c| c.kind == "SocketFailed").map(|c| c.message.clone()).unwrap_or_default();
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "socket_failed", format!("the berth of {}: {why}", self.record.user))
            .hint("berth doctor"))
    }

    /// Writes down what is to become of the berth when the node starts.
    pub(super) async fn intend(&mut self, intent: Intent) -> Result<(), Refusal> {
        if self.record.intent == intent {
            return Ok(());
        }
        self.write(Record { intent, ..self.record.clone() }).await
    }

    /// Takes on the record, once it is on stable storage.
    pub(super) async fn write(&mut self, record: Record) -> Result<(), Refusal> {
        let saved = record.clone();
        let what = format!("cannot write the record of {}", record.user);
        self.blocking(move |host| host.records.save(&saved)).await.map_err(|e| Refusal::failed("record_not_written", what, &e))?;
        self.record = record;
        Ok(())
    }
}

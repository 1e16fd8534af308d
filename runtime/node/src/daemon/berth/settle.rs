//! What the owner does first with a record that was there when the daemon started: find its running shim and take it up again, or
//! finish what a killed daemon had begun, or make the berth ready to be woken.

use std::{io, os::fd::OwnedFd, time::Duration};

use berth_runtime::error::chain;
use tokio::time::{Instant as Deadline, sleep, timeout_at};

use super::{
    owner::{Life, Owner, READY_DEADLINE, Running},
    ports::Published,
};
use crate::{
    daemon::{
        channel::Channel,
        host::now_ms,
        listener::Listener,
        record::{Intent, Phase},
    },
    link::{Event, ExitRecord, FromShim, OLDEST, Status, ToShim},
};

/// A shim that has not answered by then hangs. It may still be starting its berth.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

impl Owner {
    pub(super) async fn settle(&mut self) {
        match self.record.phase {
            Phase::Creating | Phase::Deleting => {
                tracing::info!(user = self.record.user, phase = ?self.record.phase, "finishing what was begun");
                // What stays is a condition.
                let _ = self.take_away().await;
            }
            Phase::Present if self.record.throw_away() => {
                tracing::info!("taking away the berth of a doctor who is gone");
                let _ = self.take_away().await;
            }
            Phase::Present => match self.adopt().await {
                Ok((running, suspended)) => {
                    tracing::info!(user = self.record.user, pid = running.pid, "taken up again");
                    self.node.host.calls.adopt(self.record.id);
                    self.life = Life::Running(Box::new(running));
                    self.name_taken();
                    self.attach_disk().await;
                    self.repair(suspended).await;
                    self.tell_not_shared();
                }
                Err(why) => {
                    tracing::debug!(user = self.record.user, why, "does not run");
                    self.sweep().await;
                    if let Some(exit) = self.exit_record().await {
                        if !exit.asked && ExitRecord::is_off(&exit.status) {
                            // Not writable: it is started once more, and heard the next time.
                            let _ = self.intend(Intent::Stopped).await;
                        }
                        self.note_exit(exit.status).await;
                    }
                    self.wait_for_connections().await;
                }
            },
        }
    }

    async fn wait_for_connections(&mut self) {
        let record = self.record.clone();
        match self.blocking(move |host| Listener::bind(&host.layout, &record, &host.calls)).await {
            Ok(listener) => self.rest(listener),
            Err(error) => self.condition("SocketFailed", format!("no socket for the user: {}", chain(&error))),
        }
    }

    /// Connects to the shim of the last daemon, and takes back what that held.
    async fn adopt(&mut self) -> Result<(Running, Option<String>), String> {
        let channel = connect(&self.node.host.layout.control_socket(self.record.id)).await?;
        let end = Deadline::now() + ANSWER_DEADLINE;
        let mut exited = None;
        let (_, descriptors) = answer(&channel, &ToShim::Listener, end, &mut exited).await?;
        let socket: OwnedFd = descriptors.into_iter().next().ok_or("its shim has no listener")?;
        // Asked last: what happens from now on comes as an event.
        let (status, _) = answer(&channel, &ToShim::Status, end, &mut exited).await?;
        let FromShim::Status(status) = status else {
            return Err(format!("its shim answered {status:?}"));
        };
        let Status {
            version,
            pid,
            ready,
            reason,
            started_at,
            sleep,
            idle_too_long,
            suspended,
            last_used_at,
            running_containers,
            ports,
            ..
        } = status;
        if version < OLDEST {
            return Err(format!("its shim speaks version {version}, the oldest understood is {OLDEST}"));
        }
        let pid = pid.ok_or("its shim has no container")?;
        if let Some(reason) = reason {
            self.condition("DockerNotReady", reason);
        }
        let elapsed = Duration::from_millis(u64::try_from(now_ms() - started_at).unwrap_or(0));
        let ready_by = (!ready).then(|| std::time::Instant::now() + READY_DEADLINE.saturating_sub(elapsed));
        self.last_used_at = Some(last_used_at);
        let running = Running {
            channel,
            listener: Listener::adopt(socket, &self.record, &self.node.host.calls),
            pid,
            started_at,
            ready,
            ready_by,
            reclaiming: sleep.as_ref().and_then(|_| self.reclaim()),
            fell_asleep: sleep.is_some(),
            sleep,
            idle_too_long,
            containers: running_containers,
            ports: Published::new(ports),
            shim: None,
            hasty: None,
            exited,
        };
        Ok((running, suspended))
    }

    /// A former daemon may have died between the record and the shim: the record holds.
    async fn repair(&mut self, suspended: Option<String>) {
        match self.record.suspended.clone() {
            Some(reason) if suspended.as_ref() != Some(&reason) => self.suspend_running(&reason).await,
            None if suspended.is_some() => {
                if let Err(refusal) = self.resume_running().await {
                    tracing::warn!(user = self.record.user, %refusal, "still suspended");
                }
            }
            _ => {}
        }
        self.renew_limits().await;
        self.tell_policy().await;
    }
}

/// A full queue of the control socket is no sign of death.
async fn connect(path: &std::path::Path) -> Result<Channel, String> {
    let mut tries = 0;
    loop {
        match Channel::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < 50 => {
                tries += 1;
                sleep(Duration::from_millis(100)).await;
            }
            connected => return connected.map_err(|e| format!("{}: {e}", path.display())),
        }
    }
}

async fn answer(
    channel: &Channel,
    request: &ToShim,
    end: Deadline,
    exited: &mut Option<String>,
) -> Result<(FromShim, Vec<OwnedFd>), String> {
    let exchange = async {
        channel.send(request, &[]).await.map_err(|e| e.to_string())?;
        loop {
            match channel.receive().await.map_err(|e| e.to_string())? {
                None => return Err("its shim is gone".to_owned()),
                Some((FromShim::Event(Event::Exited { status } | Event::Failed { error: status }), _)) => *exited = Some(status),
                Some((FromShim::Event(_), _)) => {}
                Some((FromShim::Refused { detail }, _)) => return Err(detail),
                Some(answer) => return Ok(answer),
            }
        }
    };
    timeout_at(end, exchange).await.map_err(|_| format!("its shim did not answer within {} s", ANSWER_DEADLINE.as_secs()))?
}

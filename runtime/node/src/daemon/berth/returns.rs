//! Berths that are to run and do not: after the host's boot, after their shim was killed or their PID 1 died. They are started again by
//! themselves, few at once, each after a pause that grows while it keeps failing; whoever connects or asks meanwhile does not wait for it.
//! And the way there: all berths of a host that goes down are stopped in order, and stay meant to run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use berth_protocol::{BerthStatus, Restart};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep_until, timeout},
};

use super::owner::{Life, Owner};
use crate::daemon::{node::Node, record::Intent};

/// A berth that ran for so long does not pay for what failed before.
pub(super) const STEADY: Duration = Duration::from_secs(300);
/// A berth that came back makes room for the next when its Docker answers, at the latest after this.
const SETTLING: Duration = Duration::from_secs(15);
/// What a berth may take to stop when the host goes down; the inner Docker gives each container 10 s.
const DOWN_DEADLINE: Duration = Duration::from_secs(25);

/// Keeps failing starts from following each other faster and faster.
#[derive(Default)]
pub(super) struct BackOff {
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

    /// It runs. What failed before counts until it has run for long.
    pub(super) fn started(&mut self) {
        self.until = None;
    }

    /// Why a connection must not start the berth just now.
    pub(super) fn holds(&self) -> Option<String> {
        let left = self.until?.checked_duration_since(Instant::now())?;
        Some(format!("{}; the next attempt is possible in {} s", self.reason, left.as_secs() + 1))
    }

    fn until(&self) -> Instant {
        self.until.unwrap_or_else(Instant::now)
    }
}

/// Returns with a place among those that come back when a stopped berth is due, and its turn has come.
pub(super) async fn turn(life: &Life, due: Option<Instant>, node: &Node) -> OwnedSemaphorePermit {
    let (Life::Stopped { .. }, Some(due)) = (life, due) else { return std::future::pending().await };
    sleep_until(due.into()).await;
    match Arc::clone(&node.returns).acquire_owned().await {
        Ok(place) => place,
        Err(_closed) => std::future::pending().await,
    }
}

impl Owner {
    /// Meant to run, and nobody bars it.
    fn is_wanted(&self) -> bool {
        self.record.intent == Intent::Running && self.record.suspended.is_none()
    }

    /// Found stopped when the node began: it is started when its turn comes.
    pub(super) fn come_back(&mut self) {
        self.due = self.is_wanted().then(Instant::now);
    }

    /// It ended though it was meant to run; `why` is what users read. It is started again, sooner if it ran for long.
    pub(super) fn come_back_after(&mut self, why: &str) {
        if !(self.is_wanted() && self.record.policy.restart == Restart::OnFailure) {
            return;
        }
        if self.up_since.take().is_some_and(|since| since.elapsed() >= STEADY) {
            self.back_off.reset();
            self.due = Some(Instant::now());
        } else {
            self.back_off.failed(why);
            self.due = Some(self.back_off.until());
        }
        self.fell = Some(why.to_owned());
    }

    /// Somebody wants it stopped: what fell is forgotten.
    pub(super) fn stay_down(&mut self) {
        (self.due, self.fell) = (None, None);
        self.back_off.reset();
    }

    /// A start failed: one that is meant to run is tried again.
    pub(super) fn try_again(&mut self) {
        if self.is_wanted() {
            self.due = Some(self.back_off.until());
        }
    }

    /// Its turn to be started again.
    pub(super) async fn returns(&mut self, place: OwnedSemaphorePermit) {
        self.due = None;
        if !self.is_wanted() {
            return;
        }
        tracing::info!(user = self.record.user, after = self.fell, "started again by itself");
        // A failure is in the conditions, and when it is tried again is settled.
        if self.start().await.is_ok() {
            hold_until_settled(place, self.status.subscribe());
        }
    }

    /// Told once it runs again; an ordinary start or stop takes it back.
    pub(super) fn tell_fall(&mut self) {
        if let Some(why) = self.fell.take() {
            self.condition("Restarted", format!("{why}, and it was started again"));
        }
    }

    /// The host goes down: stopped in order, and meant to run as before.
    pub(super) async fn go_down(&mut self) {
        if matches!(self.life, Life::Running(_))
            && let Err(error) = self.stop_running(DOWN_DEADLINE).await
        {
            tracing::warn!(user = self.record.user, %error, "not wholly stopped before the host goes down");
        }
        self.publish();
    }
}

fn hold_until_settled(place: OwnedSemaphorePermit, mut status: watch::Receiver<BerthStatus>) {
    tokio::spawn(async move {
        let _ = timeout(SETTLING, status.wait_for(|s| s.docker_ready || s.pid.is_none())).await;
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_starts_wait_longer_each_time_and_say_why() {
        let mut back_off = BackOff::default();
        assert_eq!(back_off.holds(), None);
        for _ in 0..9 {
            back_off.failed("no image");
        }
        let told = back_off.holds().unwrap();
        assert!(told.starts_with("no image; the next attempt is possible in 64 s"), "{told}");
        back_off.started();
        assert_eq!(back_off.holds(), None);
        back_off.failed("no image");
        assert!(back_off.holds().is_some_and(|told| told.contains("in 64 s")), "a start between two failures shortens no pause");
        back_off.reset();
        assert_eq!(back_off.holds(), None);
    }
}

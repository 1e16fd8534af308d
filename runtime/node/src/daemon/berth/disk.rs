//! A berth and its disk: looking at it while the berth runs, what is told of it, and changes of its limit.

use std::{sync::Arc, time::Duration};

use berth_protocol::{BerthStatus, Limits};
use berth_runtime::{disk::Backend, error::chain};
use tokio::sync::watch;

use super::{
    owner::{Life, Owner},
    set_condition,
};
use crate::{
    daemon::{disks::Plan, refusal::Refusal},
    link::{FromShim, ToShim},
};

const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

impl Owner {
    /// Has the disk of a running berth looked at. A shim that gives no descriptor on it, or one on something else, harms its own berth
    /// only: that keeps the room it was started with.
    pub(super) async fn attach_disk(&mut self) {
        let dir = match self.record.disk_backend {
            Backend::Directory { .. } => None,
            Backend::Loop => match self.ask_shim(&ToShim::Disk, ANSWER_DEADLINE).await {
                Ok((FromShim::Fd, descriptors)) => descriptors.into_iter().next(),
                Ok((other, _)) => return tracing::warn!(user = self.record.user, ?other, "no descriptor on its disk"),
                Err(error) => return tracing::warn!(user = self.record.user, %error, "no descriptor on its disk"),
            },
        };
        let id = self.record.id;
        if let Err(error) = self.blocking(move |host| host.disks.attach(id, dir)).await {
            tracing::warn!(user = self.record.user, error = chain(&error), "its disk is not looked at");
        }
    }

    /// Gives back to the host what the berth deleted.
    pub(super) async fn trim(&mut self) {
        if !matches!(self.life, Life::Running(_)) {
            return;
        }
        if !self.node.host.disks.is_attached(self.record.id) {
            self.attach_disk().await;
        }
        let (node, id) = (Arc::clone(&self.node), self.record.id);
        tokio::task::spawn_blocking(move || node.host.disks.trim(id));
    }

    /// The same of a berth that has just ended in order: what it pruned last is not to wait for its next start.
    pub(super) async fn trim_at_stop(&self) {
        let id = self.record.id;
        self.blocking(move |host| host.disks.trim_at_stop(id)).await;
    }

    pub(super) fn tell_not_grown(&mut self) {
        if let Some(why) = self.not_grown.take() {
            self.condition("DiskNotGrown", format!("the disk keeps its size, and is tried again at the next start: {why}"));
        }
    }

    /// What a change of the disk's limit is to do, or why it cannot be.
    pub(super) async fn disk_plan(&self, new: &Limits) -> Result<Option<Plan>, Refusal> {
        let old = &self.record.limits;
        if (old.disk_bytes, old.inodes) == (new.disk_bytes, new.inodes) {
            return Ok(None);
        }
        let (record, new) = (self.record.clone(), *new);
        self.blocking(move |host| host.disks.plan(&record, &host.disk(&record), &new)).await.map(Some)
    }

    /// What waits for a start.
    pub(super) fn disk_pending(&self) -> Option<String> {
        let (wanted, size) = (self.record.limits.disk_bytes, self.record.disk_bytes);
        (wanted > size).then(|| format!("the disk has {size} bytes and grows to {wanted} at the next start"))
    }

    /// Conditions that hold for as long as their reason does.
    pub(super) fn disk_conditions(&self, status: &mut BerthStatus) {
        if let Some(why) = self.low.borrow().clone() {
            set_condition(&mut status.conditions, "HostDiskLow", why);
        }
        let (wanted, made) = (self.record.limits.inodes, self.record.disk_inodes);
        if self.record.disk_backend == Backend::Loop && wanted != made {
            let number = |count: Option<u64>| count.map_or("as many as its size gives".to_owned(), |count| count.to_string());
            let message = format!(
                "ext4 fixes the number of inodes when a disk is made: it was made with {}; {} is noted, and holds for a disk that is made anew",
                number(made),
                number(wanted)
            );
            set_condition(&mut status.conditions, "InodesFixed", message);
        }
    }
}

/// Returns when there is something else to tell of the host's disk.
pub(super) async fn low_changed(low: &mut watch::Receiver<Option<String>>) {
    if low.changed().await.is_err() {
        std::future::pending().await
    }
}

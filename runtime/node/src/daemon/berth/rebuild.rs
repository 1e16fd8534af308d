//! A fresh root file system for a berth that stays what it is.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use berth_protocol::Rebuild;
use berth_runtime::error::Result;

use super::{
    Unmet,
    owner::{Life, Owner, connection},
};
use crate::daemon::{disks, host::Host, record::Record, refusal::Refusal};

/// What a berth may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

impl Owner {
    /// Stops it and empties its root file system, and with `wipe` what its Docker keeps; once for each wish. Nothing wakes it meanwhile:
    /// who connects is told why. Whoever dies over it leaves a berth that is emptied before anything of it runs again.
    pub(super) async fn rebuild(&mut self, wanted: Rebuild, new: bool) -> std::result::Result<(), Unmet> {
        if self.record.rebuilt >= Some(wanted.at) {
            return Ok(());
        }
        let user = self.record.user.clone();
        if new {
            // It is as fresh as can be.
            return Ok(self.write(Record { rebuilt: Some(wanted.at), ..self.record.clone() }).await?);
        }
        let begun = self.record.rebuild;
        if begun.is_none_or(|begun| begun.at < wanted.at) {
            self.stop(STOP_DEADLINE).await?;
            // What an unfinished one had begun to wipe is wiped.
            let rebuild = Rebuild { wipe: wanted.wipe || begun.is_some_and(|begun| begun.wipe), ..wanted };
            self.write(Record { rebuild: Some(rebuild), ..self.record.clone() }).await?;
        }
        if !matches!(self.life, Life::Stopped { .. }) {
            let detail = format!("the berth of {user} is not at rest");
            return Err(Refusal::new(StatusCode::CONFLICT, "berth_busy", detail).hint("ask again in a moment").into());
        }
        let (node, record) = (Arc::clone(&self.node), self.record.clone());
        let mut work = tokio::task::spawn_blocking(move || empty(&node.host, &record));
        let why = format!("the berth of {user} is being rebuilt: try again in a moment");
        let emptied = loop {
            tokio::select! {
                emptied = &mut work => break emptied,
                () = connection(&self.life) => if let Life::Stopped { listener, .. } = &self.life {
                    listener.refuse_waiting(&why);
                },
            }
        };
        emptied.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())).map_err(|error| {
            Refusal::failed("rebuild_failed", format!("the berth of {user} is not wholly rebuilt"), &error)
                .hint("ask again, it goes on where it stopped; nothing of the berth runs before")
        })?;
        tracing::info!(user, wipe = self.record.rebuild.is_some_and(|begun| begun.wipe), "rebuilt");
        let done = self.record.rebuilt();
        Ok(self.write(done).await?)
    }
}

/// What a rebuild that was begun with has left to do. Blocking.
pub(super) fn empty(host: &Host, record: &Record) -> Result<()> {
    match record.rebuild {
        Some(rebuild) => host.disk(record).empty(disks::limit(&record.limits), rebuild.wipe),
        None => Ok(()),
    }
}

//! A berth into an archive, and out of one.

use std::{sync::Arc, time::Duration};

use berth_protocol::{ArchiveRequest, Ensure, HostUser};
use berth_runtime::{
    Error,
    archive::{self, FORMAT, Manifest},
};

use super::{
    Unmet,
    owner::{Life, Owner, connection},
    run::raised,
};
use crate::daemon::{
    archives::{Job, told_error},
    disks,
    host::{Host, now_ms},
    record::{Phase, Record},
    refusal::Refusal,
};

/// What a berth may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);
/// How often whoever waits is looked after.
const LOOK: Duration = Duration::from_millis(100);

impl Owner {
    /// Stops it and packs its disk. Nothing wakes it meanwhile: who connects is told why. A suspension comes first, and the work is given up.
    pub(super) async fn archive(&mut self, request: ArchiveRequest, job: Job) -> Result<(), Unmet> {
        let user = self.record.user.clone();
        if request.id != self.record.id {
            let detail = format!("the berth of {user} is {}, not {}", self.record.id, request.id);
            return Err(Refusal::conflict("berth_exists", detail).hint(format!("berth show {user}")).into());
        }
        if self.record.phase != Phase::Present {
            return Err(Refusal::conflict("berth_deleting", format!("the berth of {user} is partly deleted")).into());
        }
        if self.archived(&request).await? {
            return Ok(());
        }
        match self.life {
            // It is not to run another instruction.
            Life::Running(_) if self.record.suspended.is_some() => self.end_running().await?,
            _ => self.stop(STOP_DEADLINE).await?,
        }
        if !matches!(self.life, Life::Stopped { .. }) {
            return Err(Refusal::conflict("berth_busy", format!("the berth of {user} is not at rest"))
                .hint("ask again in a moment")
                .into());
        }
        let record = self.record.clone();
        let (node, cancel) = (Arc::clone(&self.node), Arc::clone(&job.cancel));
        let mut bars = self.bars.clone();
        let mut work = {
            let teller = |of| job.teller(of);
            let lines = teller(used(&node.host, &record));
            let name = request.archive.clone();
            tokio::task::spawn_blocking(move || pack(&node.host, &record, request, &name, &cancel, lines))
        };
        let why = format!("the berth of {user} is being archived and does not run meanwhile: try again later");
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = connection(&self.life) => if let Life::Stopped { listener, .. } = &self.life {
                    listener.refuse_waiting(&why);
                },
                () = raised(&mut bars) => {
                    job.give_up();
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        done.unwrap_or_else(|_| Err(Refusal::stopping())).map_err(Unmet::from)
    }

    /// Whether that archive of this berth is there already.
    async fn archived(&self, request: &ArchiveRequest) -> Result<bool, Refusal> {
        let (name, id) = (request.archive.clone(), self.record.id.to_string());
        self.blocking(move |host| {
            let file = host.archive_file(&name);
            match archive::manifest(&file) {
                Ok(manifest) if manifest.berth == id => Ok(true),
                _ if file.exists() => {
                    Err(Refusal::conflict("archive_exists", format!("there is an archive {name} already")).hint("give it another name"))
                }
                _ => Ok(false),
            }
        })
        .await
    }

    /// Makes what is new from an archive; on failure nothing of it is left.
    pub(super) async fn restore(&mut self, ensure: &Ensure, account: &HostUser, archive: String, of: u64, job: Job) -> Result<(), Unmet> {
        if !matches!(self.life, Life::New) {
            // Asked again after an answer that was lost.
            return Ok(self.same_berth(ensure, Some(account))?);
        }
        let mut record = self.record.clone();
        let mut lines = job.teller(of);
        let cancel = Arc::clone(&job.cancel);
        let (record, made) = self
            .blocking(move |host| {
                let program = host.layout.shim_program();
                let file = host.archive_file(&archive);
                let fill = |record: &Record| {
                    let disk = host.disk(record);
                    archive::unpack(&program, (&disk, disks::limit(&record.limits)), &file, &cancel, &mut lines)?;
                    disk.await_release()
                };
                let made = host.create_filled(&mut record, fill);
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
                let user = &self.record.user;
                let refusal = told_error("restore_failed", format!("the berth of {user} was not made from the archive"), &error);
                if let Error::Undone { leftovers, .. } = &error {
                    self.condition("UndoFailed", format!("a failed restore left: {}; asking again goes on", leftovers.join(", ")));
                    self.life = Life::Remains;
                } else {
                    self.life = Life::Gone;
                }
                Err(refusal.into())
            }
        }
    }
}

fn used(host: &Host, record: &Record) -> u64 {
    host.disk(record).space().map_or(0, |space| space.used())
}

/// Blocking.
fn pack(
    host: &Host,
    record: &Record,
    request: ArchiveRequest,
    name: &str,
    cancel: &std::sync::atomic::AtomicBool,
    mut lines: impl FnMut(archive::Progress),
) -> Result<(), Refusal> {
    let what = || format!("the berth of {} was not archived", record.user);
    let disk = host.disk(record);
    let space = disk.await_release().and_then(|()| disk.space()).map_err(|e| Refusal::failed("archive_failed", what(), &e))?;
    host.room_for_archive(space.used())?;
    let manifest = Manifest {
        format: FORMAT,
        user: record.user.clone(),
        berth: record.id.to_string(),
        created_at: now_ms(),
        image: record.image.clone(),
        bytes: space.used(),
        inodes: space.inodes.saturating_sub(space.free_inodes),
        docker_images: Vec::new(),
        notes: request.notes,
    };
    let limit = disks::limit(&record.limits);
    let packed = archive::pack(&host.layout.shim_program(), (&disk, limit), &host.archive_file(name), manifest, cancel, &mut lines);
    let packed = packed.and_then(|packed| disk.await_release().map(|()| packed));
    match packed {
        Ok(packed) => {
            tracing::info!(user = record.user, archive = name, bytes = packed.size, "archived");
            Ok(())
        }
        Err(error) => Err(told_error("archive_failed", what(), &error)),
    }
}

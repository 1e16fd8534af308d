//! A change of a disk's limit: what it must not undercut, and what a mounted disk can do at once.

use berth_protocol::Limits;
use berth_runtime::{
    disk::{Backend, Disk, Growth, Limit, Room},
    error::Result,
};

use super::{Disks, limit};
use crate::daemon::{record::Record, refusal::Refusal};

/// What changes, and what was before.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    id: berth_protocol::BerthId,
    before: Limit,
    after: Limit,
    /// Size of the disk before, as it is written down; `None`: its limit is all the size it has.
    size: Option<u64>,
}

impl Disks {
    /// Refuses a limit below what is in use. Blocking.
    pub(crate) fn plan(&self, record: &Record, disk: &Disk, new: &Limits) -> std::result::Result<Plan, Refusal> {
        let plan = Plan {
            id: record.id,
            before: limit(&record.limits),
            after: limit(new),
            size: (record.disk_backend == Backend::Loop).then_some(record.disk_bytes),
        };
        let user = &record.user;
        let space = match self.mounted(record.id) {
            Some(mounted) => mounted.space(),
            None => disk.space(),
        };
        let space = space.map_err(|e| Refusal::failed("change_failed", format!("the use of the disk of {user} cannot be read"), &e))?;
        if plan.after.bytes < plan.before.bytes && plan.after.bytes < space.used() {
            let detail = format!("{user} uses {} bytes of the disk, more than the {} wanted", space.used(), plan.after.bytes);
            let hint = format!("delete or prune inside the berth first, or ask for {} or more", space.used());
            return Err(Refusal::conflict("disk_below_use", detail).hint(hint));
        }
        let used = space.inodes.saturating_sub(space.free_inodes);
        match plan.after.inodes {
            Some(wanted) if plan.after.inodes != plan.before.inodes && wanted < used => {
                let detail = format!("{user} has {used} files and directories, more than the {wanted} wanted");
                Err(Refusal::conflict("disk_below_use", detail).hint("delete or prune inside the berth first"))
            }
            _ => Ok(plan),
        }
    }

    /// Makes it so. Returns the size that the disk has then: the limit itself, or less where growing has to wait for a start. Blocking.
    pub(crate) fn apply(&self, plan: &Plan) -> Result<u64> {
        let mut size = plan.size.unwrap_or(plan.after.bytes);
        if let Some(mounted) = self.mounted(plan.id)
            && plan.after.bytes > size
            && mounted.grow(plan.after.bytes)? == Growth::Done
        {
            size = plan.after.bytes;
        }
        self.set(plan, plan.after)?;
        Ok(size)
    }

    /// A disk that grew stays large; its limit is the old one.
    pub(crate) fn undo(&self, plan: &Plan) -> Result<()> {
        self.set(plan, plan.before)
    }

    fn set(&self, plan: &Plan, to: Limit) -> Result<()> {
        let mounted = self.mounted(plan.id);
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&plan.id) else { return Ok(()) };
        if let Some(mounted) = mounted {
            // What a higher limit leaves is given out by the division that follows, as far as the host has it.
            let free = entry.cut.unwrap_or(mounted.space()?.available);
            mounted.bind(Room { limit: to, free: Some(free) })?;
            entry.cut = Some(free);
        }
        entry.limit = to;
        self.divide(&mut entries, None)?;
        Ok(())
    }
}

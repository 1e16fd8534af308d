//! What a change would do, without doing it.

use berth_protocol::{Ensure, Waits};
use berth_runtime::disk::Backend;
use rustix::thread::{CapabilitySet, capabilities};

use super::{
    Unmet,
    owner::{Life, Owner},
};
use crate::daemon::record::Record;

impl Owner {
    /// What of the change would wait for a start; refused as the change would be, as far as that can be seen before.
    pub(super) async fn preview(&self, ensure: &Ensure) -> Result<Vec<Waits>, Unmet> {
        self.same_berth(ensure, None)?;
        self.disk_plan(&ensure.limits).await?;
        let mut waits = Vec::new();
        if self.record.disk_backend == Backend::Loop && ensure.limits.inodes != self.record.limits.inodes {
            waits.push(wait("inodes", "ext4 fixes them when a disk is made; it is noted for a disk that is made anew"));
        }
        if !matches!(self.life, Life::Running(_)) {
            return Ok(waits);
        }
        let Record { limits, disk_bytes, disk_backend, started, .. } = &self.record;
        if ensure.limits.disk_bytes > *disk_bytes && *disk_backend == Backend::Loop && !grows_mounted_disks() {
            waits.push(wait("disk_bytes", "this host grows no disk that is in use"));
        }
        if ensure.limits.io != limits.io
            && let Some(reason) = self.limits_pending(&ensure.limits)
        {
            let fields = ["io_read_bps", "io_write_bps", "io_read_iops", "io_write_iops"];
            waits.extend(fields.map(|field| wait(field, &reason)));
        }
        if let Some(started) = started {
            let differs = [("home", started.home != ensure.policy.home), ("paths", started.paths != ensure.policy.paths)];
            let reason = "what is shared with the host is shared when a berth starts";
            waits.extend(differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| wait(field, reason)));
        }
        Ok(waits)
    }
}

fn wait(field: &str, reason: &str) -> Waits {
    Waits { field: field.to_owned(), reason: reason.to_owned() }
}

/// ext4 asks for CAP_SYS_RESOURCE of the host (EXT4_IOC_RESIZE_FS).
fn grows_mounted_disks() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

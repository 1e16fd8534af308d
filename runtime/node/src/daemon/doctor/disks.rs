//! Whether the file system of the disks has room, and what it can do for them.

use std::os::fd::AsFd;

use berth_protocol::Check;
use berth_runtime::disk::quota_enforced;
use rustix::fs::StatVfsMountFlags;

use super::{failed, ok, warning};
use crate::daemon::{config::Backend, node::Node};

/// Less than the mark is a failure, less than twice as much a warning.
pub(super) fn space(node: &Node) -> Check {
    let (size, free) = match node.host.disk_space() {
        Ok(found) => found,
        Err(error) => return failed("disk space", error.to_string(), "look at state_dir in node.toml"),
    };
    let (share, mark) = (free.saturating_mul(10_000) / size.max(1), u64::from(node.host.config.disk.low_water.0));
    let state = node.host.layout.state.display();
    let detail = format!("{} GiB of {} GiB ({} %) are free below {state}", free >> 30, size >> 30, share / 100);
    let fix = "free space, enlarge the file system, or delete berths and images that nobody needs";
    match share {
        _ if share < mark => failed("disk space", format!("{detail}: berths have less room than their limits leave"), fix),
        _ if share < 2 * mark => warning("disk space", detail, fix),
        _ => ok("disk space", detail),
    }
}

/// How disks of new berths are kept, and whether the host is fit for it.
pub(super) fn backend(node: &Node) -> Check {
    let (dir, wanted) = (node.host.layout.berths(), node.host.config.disk.backend);
    let quota = quota_enforced(&dir);
    if node.host.config.disk.without_quota {
        let fix = "take disk.without_quota out of node.toml; berths made meanwhile have to be made anew";
        return failed("disk backend", "berths are made without any limit of their disks", fix);
    }
    match (wanted, quota) {
        (Backend::Directory, false) => failed(
            "disk backend",
            format!(
                "disk.backend is directory, and the file system below {} keeps no project quotas: berths cannot be made",
                dir.display()
            ),
            "tune2fs -O project,quota on the unmounted file system and mount it with prjquota (XFS: pquota), or set disk.backend = \"loop\"",
        ),
        (Backend::Loop, _) | (Backend::Auto, false) => ok("disk backend", "new disks are ext4 images on loop devices"),
        (_, true) if setuid_files_work(&dir) => warning(
            "disk backend",
            format!(
                "new disks are directories with a project quota; users' setuid files lie below {} (root alone gets there)",
                dir.display()
            ),
            "give the disks a file system of their own and mount it with nosuid,nodev: inside of berths setuid programs work all the same",
        ),
        (_, true) => ok("disk backend", "new disks are directories with a project quota"),
    }
}

fn setuid_files_work(dir: &std::path::Path) -> bool {
    let Ok(dir) = std::fs::File::open(dir) else { return false };
    rustix::fs::fstatvfs(dir.as_fd()).is_ok_and(|stat| !stat.f_flag.contains(StatVfsMountFlags::NOSUID))
}

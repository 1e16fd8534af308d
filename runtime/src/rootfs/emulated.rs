//! The file system of the emulated files of `/proc` and `/sys`: mounted here, served by the container's parent, laid over by berth-init.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, open},
    mount::MountAttrFlags,
};

use super::{hard, new_mount_with};
use crate::error::{Result, Step};

/// Where it is inside, beside an uncovered `proc` and `sys`: without these no new ones could be mounted in a nested user namespace, where
/// covers are locked (`mount_too_revealing` in fs/namespace.c).
pub(super) const EMULATED: &str = "dev/.berth/emulated";
pub(super) const PROC: &str = "dev/.berth/proc";
pub(super) const SYS: &str = "dev/.berth/sys";

/// The device to serve, and the mount, attached nowhere yet.
///
/// The caller is root in the container's user namespace, which device and file system must both belong to: processes of other user
/// namespaces, the host's among them, cannot reach it then and never wait for it. It is in the host's pid namespace still: requests carry
/// pids of that. It stands in the stage's tree.
pub(crate) fn mount_emulated() -> Result<(OwnedFd, OwnedFd)> {
    let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open", "/dev/fuse")?;
    let number = device.as_raw_fd().to_string();
    let options = [("fd", number.as_str()), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")];
    let attributes = hard() | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = new_mount_with("fuse", &options, &["allow_other", "default_permissions"], attributes)?;
    Ok((device, mount))
}

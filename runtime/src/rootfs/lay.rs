//! The second part: the container's root, and the places in it for what comes from the host.
//!
//! An overlay whose layers are both id-mapped is mounted by a process with those ids (as host root the work directory fails with
//! EOVERFLOW), and nothing can be made in it by anybody else. So a child that is root in the container's user namespace does this; it
//! ends before anything of the tenant's runs. What it leaves is a detached tree.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, OFlags},
    mount::{MountAttrFlags, MoveMountFlags, move_mount},
};

use super::{
    Contents, DISK, IMAGE, ROOT, binds, clone_all, new_mount, new_mount_with, share,
    target::{attach, make_directory, make_file, open_inside},
};
use crate::error::{Result, Step};

/// Before all of the image's own programs in our PATH and in systemd's; no package puts anything here.
pub(super) const WRAPPER: &str = "usr/local/sbin/runc";

/// Makes the tree: the overlay, and `/run`. The caller is root of the container's user namespace in a mount namespace of that one's.
pub(crate) fn lay(contents: &Contents<'_>) -> Result<OwnedFd> {
    let options =
        [("lowerdir", format!("/{IMAGE}")), ("upperdir", format!("/{DISK}/rootfs/upper")), ("workdir", format!("/{DISK}/rootfs/work"))];
    let options: Vec<(&str, &str)> = options.iter().map(|(k, v)| (*k, v.as_str())).collect();
    // Without flags of its own: they would be locked, and runc 1.1 names none of them when it makes a bind of the root read-only. Device
    // nodes are dead all the same, on every file system that was mounted in a user namespace (SB_I_NODEV).
    let overlay = new_mount_with("overlay", &options, &["userxattr"], MountAttrFlags::empty())?;
    move_mount(overlay.as_fd(), "", CWD, format!("/{ROOT}"), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", "the root")?;
    let root = overlay.as_fd();

    for point in ["proc", "sys", "dev", "run", "var/lib/docker", "var/lib/containerd"] {
        make_directory(root, Path::new(point))?;
    }
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attach(new_mount("tmpfs", &[("mode", "0755")], flags)?.as_fd(), root, "run")?;
    for (inside, _) in contents.files {
        make_file(root, inside)?;
    }
    for bind in binds(contents) {
        make_directory(root, bind.destination())?;
    }
    share::make_places(contents.shares, root)?;
    if contents.runc.is_some() && !wrapper_taken(root) {
        // What a tenant made of the directories above is his affair; furnishing says it.
        let _ = make_file(root, Path::new(WRAPPER));
    }
    clone_all(Path::new(&format!("/{ROOT}")))
}

/// A file that the tenant has at the wrapper's place stays his; an empty one is what an earlier start made to attach to.
pub(super) fn wrapper_taken(root: BorrowedFd<'_>) -> bool {
    let found = open_inside(root, WRAPPER, OFlags::PATH | OFlags::NOFOLLOW, 0);
    found.is_ok_and(|fd| {
        rustix::fs::fstat(&fd).map_or(true, |s| s.st_size != 0 || FileType::from_raw_mode(s.st_mode) != FileType::RegularFile)
    })
}

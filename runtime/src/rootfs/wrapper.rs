//! One small file system with the inner OCI-runtime wrapper, for all berths of a node: a copy each would cost memory, and a bind of the
//! program itself would show a path of the host in every berth's mount table.

use std::{
    fs,
    io::Write,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{MountAttrFlags, MoveMountFlags, move_mount},
};

use super::new_mount;
use crate::error::{Result, Step};

const NAME: &str = "runc";

/// Makes `dir` the mount point of a read-only tmpfs that holds `program` as `runc`, and returns that file's path. One that holds the same
/// bytes stays; an older one is replaced, and lives on in the berths that have it.
pub fn install_wrapper(dir: &Path, program: &Path) -> Result<PathBuf> {
    let bytes = fs::read(program).step("read", program.display())?;
    let file = dir.join(NAME);
    if is_mount_point(dir) {
        if fs::read(&file).is_ok_and(|there| there == bytes) {
            return Ok(file);
        }
        remove_mounts(dir)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).step("make", dir.display())?;
    let tree = new_mount("tmpfs", &[("mode", "0755"), ("size", "64m"), ("nr_inodes", "8")], MountAttrFlags::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = openat(&tree, NAME, flags, Mode::from_raw_mode(0o755)).step("make", file.display())?;
    fs::File::from(copy).write_all(&bytes).step("write", file.display())?;
    use berth_sys::mount::{NODEV, NOSUID, RDONLY, set_attributes};
    set_attributes(tree.as_fd(), RDONLY | NOSUID | NODEV, None).step("make read-only", dir.display())?;
    move_mount(tree.as_fd(), "", CWD, dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", dir.display())?;
    Ok(file)
}

/// Nothing there is success.
pub fn remove_wrapper(dir: &Path) -> Result<()> {
    remove_mounts(dir)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.step("remove", dir.display()),
    }
}

fn is_mount_point(dir: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|m| m.dev()).ok();
    let parent = dir.parent().and_then(device);
    device(dir).is_some_and(|own| parent.is_some_and(|parent| own != parent))
}

fn remove_mounts(dir: &Path) -> Result<()> {
    while is_mount_point(dir) {
        umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).step("detach", dir.display())?;
    }
    Ok(())
}

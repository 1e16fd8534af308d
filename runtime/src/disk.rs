//! A berth's disk: a sparse ext4 image on a loop device. Mounted detached: the host's mount table never shows it, and it frees itself
//! when its last holder dies.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::{CWD, Mode, OFlags, mkdirat, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, open_tree},
};

use crate::{
    error::{Error, Result, Step},
    fault,
};

/// What lies in the root of a disk: name, mode. Everything in them is the container's, ids from 0.
pub(crate) const LAYOUT: [(&str, u32); 5] =
    [("rootfs", 0o700), ("rootfs/upper", 0o755), ("rootfs/work", 0o700), ("docker", 0o710), ("containerd", 0o711)];

/// Makes `file`, a sparse ext4 of `bytes`; on failure the file is gone again.
///
/// mke2fs writes some 4 MB whatever the size: inode tables and journal are left for the kernel (`lazy_*_init`).
pub fn create(file: &Path, bytes: u64) -> Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .step("make", file.display())
        .and_then(|out| out.set_len(bytes).step("size", file.display()))
        .and_then(|()| format(file));
    if made.is_err() {
        let _ = fs::remove_file(file);
    }
    made
}

fn format(file: &Path) -> Result<()> {
    let mut child = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"])
        .arg(file)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .step("run", "mke2fs (package e2fsprogs)")?;
    let mut stderr = String::new();
    if let Some(pipe) = child.stderr.take() {
        let _ = pipe.take(4096).read_to_string(&mut stderr);
    }
    let status = child.wait().step("await", "mke2fs")?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Program { program: "mke2fs", status: status.to_string(), stderr: stderr.trim().to_owned() })
    }
}

/// Bytes that the disk occupies on the host's file system.
pub fn occupied(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).step("look at", file.display())?.blocks() * 512)
}

/// Removes the image file; already gone is success.
pub fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.step("remove", file.display()),
    }
}

/// Gives what the berth deleted back to the host; `dir` is any directory on the disk. Returns the bytes trimmed.
pub fn trim(dir: BorrowedFd<'_>) -> Result<u64> {
    berth_sys::loopdev::trim(dir).step("trim", "the berth's disk")
}

/// Mounts the disk nowhere: the descriptor is the mount. Ids are those of `userns`; directories of [`LAYOUT`] are there afterwards.
pub(crate) fn mount(file: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let image = open_unlocated(file)?;
    fault::point("attach the disk")?;
    let device = berth_sys::loopdev::attach(image.as_fd()).step("attach to a loop device", file.display())?;
    fault::point("mount the disk")?;
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).step("open file system", "ext4")?;
    fsconfig_set_string(context.as_fd(), "source", device.path.as_os_str()).step("mount", device.path.display())?;
    fsconfig_create(context.as_fd()).step("mount", file.display())?;
    // The tenant's setuid programs must work; device nodes never.
    let mount =
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOATIME)
            .step("mount", file.display())?;
    for (name, mode) in LAYOUT {
        match mkdirat(&mount, name, Mode::from_raw_mode(mode)) {
            Err(rustix::io::Errno::EXIST) => {}
            done => done.step("make", name)?,
        }
    }
    berth_sys::mount::set_attributes(mount.as_fd(), 0, Some(userns)).step("id-map", file.display())?;
    Ok(mount)
}

/// Opens the image through a detached clone of its directory: `/sys/block/loopN/loop/backing_file`, which every tenant can read, then
/// shows its bare name instead of a path of the host (S01).
fn open_unlocated(file: &Path) -> Result<OwnedFd> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(Error::Invalid(format!("{} names no file", file.display())));
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let dir_tree = open_tree(CWD, dir, flags).step("open", dir.display())?;
    openat(dir_tree, name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).step("open", file.display())
}

/// True when the file exists and begins like an ext4 file system.
pub fn looks_whole(file: &Path) -> bool {
    let magic = |mut file: File| {
        let mut head = [0; 1024 + 58];
        file.read_exact(&mut head).is_ok() && head[1024 + 56..] == [0x53, 0xEF]
    };
    File::open(file).is_ok_and(magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_disk_is_sparse_and_a_second_of_that_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.img");
        create(&file, 2 << 30).unwrap();
        assert!(looks_whole(&file));
        assert!(occupied(&file).unwrap() < 32 << 20);
        assert!(create(&file, 2 << 30).is_err());
    }

    #[test]
    fn a_failed_format_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.img");
        assert!(matches!(create(&file, 4096), Err(Error::Program { program: "mke2fs", .. })));
        assert!(!file.exists());
    }
}

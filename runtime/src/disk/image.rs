//! A sparse ext4 image on a loop device with direct I/O, which detaches itself when its last holder dies.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{CWD, Mode, OFlags, fstatvfs, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, open_tree},
};

use super::{Growth, Limit, Room, Space, lay_out, loopdev, program, sync_parent};
use crate::{
    error::{Error, Result, Step},
    fault,
};

const FORMAT: Duration = Duration::from_secs(120);
/// Nobody who waits for the disk waits for more.
const TRIM_AT_ONCE: u64 = 4 << 30;
/// Blocks that ext4 holds back by itself, for its own tables when everything else is full: at most so many, or this part of all.
const BASE: (u64, u64) = (4096, 50);

/// mke2fs writes some 4 MB whatever the size: inode tables and journal are left for the kernel (`lazy_*_init`).
pub(super) fn create(file: &Path, limit: Limit) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).step("make", file.display()).and_then(|out| {
        out.set_len(whole_blocks(limit.bytes)).step("size", file.display())?;
        format(file, limit.inodes)?;
        out.sync_all().step("sync", file.display())?;
        sync_parent(file)
    });
    if made.is_err() {
        let _ = fs::remove_file(file);
    }
    made
}

fn format(file: &Path, inodes: Option<u64>) -> Result<()> {
    let inodes = inodes.map(|count| count.to_string());
    let mut arguments = vec!["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"];
    if let Some(count) = &inodes {
        arguments.extend(["-N", count]);
    }
    program::run("mke2fs", &arguments, &[file], FORMAT, &[0])
}

/// A file system has no part of a block.
pub(super) fn whole_blocks(bytes: u64) -> u64 {
    bytes & !4095
}

pub(super) fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.step("remove", file.display()),
    }
}

pub(super) fn mount(file: &Path, room: Room) -> Result<OwnedFd> {
    loopdev::await_release(file)?;
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
    // ext4 forgets it at every unmount; nothing of the berth has run yet.
    fault::point("bind the disk")?;
    let name = device.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    bind(mount.as_fd(), name, size(file)?, room)?;
    lay_out(mount.as_fd())?;
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

fn size(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).step("look at", file.display())?.len())
}

/// Sets ext4's `reserved_clusters`: free blocks that nobody gets, but for its own tables in need. `df` shows them as not available.
fn bind(dir: BorrowedFd<'_>, device: &str, size: u64, room: Room) -> Result<()> {
    let stat = fstatvfs(dir).step("look at", "the berth's disk")?;
    let blocks = held_back(size / stat.f_frsize, stat.f_bfree, stat.f_frsize, room);
    let control = format!("/sys/fs/ext4/{device}/reserved_clusters");
    fs::write(&control, blocks.to_string()).step("write", control)
}

/// Blocks to hold back of `total`, of which `free` are not used.
fn held_back(total: u64, free: u64, block: u64, room: Room) -> u64 {
    let beyond_limit = total.saturating_sub(room.limit.bytes / block);
    let beyond_room = room.free.map_or(0, |bytes| free.saturating_sub(bytes / block));
    let base = BASE.0.min(total / BASE.1);
    base.max(beyond_limit).max(beyond_room).min(total.saturating_sub(1))
}

/// What [`held_back`] leaves of what is free, without a bound on room.
pub(super) fn left(space: &Space, limit: Limit) -> u64 {
    const BLOCK: u64 = 4096;
    let held = held_back(space.size / BLOCK, space.free / BLOCK, BLOCK, Room { limit, free: None });
    space.free.saturating_sub(held * BLOCK)
}

/// The disk of a running berth.
#[derive(Debug)]
pub struct Mounted {
    file: PathBuf,
    dir: OwnedFd,
    /// Its name, as `/sys/fs/ext4` has it.
    name: String,
    device: File,
}

impl Mounted {
    pub(super) fn new(file: &Path, dir: OwnedFd) -> Result<Self> {
        let (name, device) = loopdev::below(dir.as_fd(), file)?;
        Ok(Self { file: file.to_owned(), dir, name, device })
    }

    pub(super) fn space(&self) -> Result<Space> {
        let stat = fstatvfs(&self.dir).step("look at", self.file.display())?;
        let size = size(&self.file)?;
        Ok(Space {
            size,
            tables: size.saturating_sub(stat.f_blocks * stat.f_frsize),
            free: stat.f_bfree * stat.f_frsize,
            available: stat.f_bavail * stat.f_frsize,
            inodes: stat.f_files,
            free_inodes: stat.f_ffree,
        })
    }

    pub(super) fn bind(&self, room: Room) -> Result<()> {
        bind(self.dir.as_fd(), &self.name, size(&self.file)?, room)
    }

    /// The file grows first, the file system last: whoever dies between leaves a longer file, which the next growth takes up.
    pub(super) fn grow(&self, bytes: u64) -> Result<Growth> {
        let block = fstatvfs(&self.dir).step("look at", self.file.display())?.f_frsize;
        let (old, bytes) = (size(&self.file)?, whole_blocks(bytes));
        if bytes <= old {
            return Ok(Growth::Done);
        }
        // Asks without changing anything.
        if refused(&berth_sys::ext4::resize(self.dir.as_fd(), old / block)) {
            return Ok(Growth::NotWhileMounted);
        }
        fault::point("lengthen the disk")?;
        let file = OpenOptions::new().write(true).custom_flags(nix::libc::O_NOFOLLOW).open(&self.file).step("open", self.file.display())?;
        let grown = file.set_len(bytes).step("size", self.file.display()).and_then(|()| {
            berth_sys::loopdev::follow_size(self.device.as_fd()).step("enlarge", &self.name)?;
            fault::point("grow the disk")?;
            berth_sys::ext4::resize(self.dir.as_fd(), bytes / block).step("grow", self.file.display())
        });
        if grown.is_err() {
            let _ = file.set_len(old).and_then(|()| berth_sys::loopdev::follow_size(self.device.as_fd()));
        }
        grown.map(|()| Growth::Done)
    }

    pub(super) fn trim(&self, go_on: impl FnMut() -> bool) -> Result<u64> {
        trim(self.dir.as_fd(), &self.file, go_on)
    }
}

/// See [`super::Mounted::trim`]; `dir` is the root of the file system in `file`.
pub(super) fn trim(dir: BorrowedFd<'_>, file: &Path, mut go_on: impl FnMut() -> bool) -> Result<u64> {
    let (size, mut start, mut trimmed) = (size(file)?, 0, 0);
    while start < size && go_on() {
        match berth_sys::loopdev::trim(dir, start, TRIM_AT_ONCE) {
            // The file is a little longer than its file system.
            Err(error) if start > 0 && error.raw_os_error() == Some(nix::libc::EINVAL) => break,
            done => trimmed += done.step("trim", file.display())?,
        }
        start += TRIM_AT_ONCE;
    }
    Ok(trimmed)
}

/// What only whoever has it unmounted can do: no right to, or a file system of a make that this kernel does not grow.
fn refused(asked: &std::io::Result<()>) -> bool {
    asked.as_ref().is_err_and(|error| matches!(error.raw_os_error(), Some(nix::libc::EPERM | nix::libc::EOPNOTSUPP | nix::libc::ENOTTY)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::disk::superblock;

    fn limit(bytes: u64) -> Limit {
        Limit { bytes, inodes: None }
    }

    #[test]
    fn a_new_disk_is_sparse_and_a_second_of_that_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.img");
        create(&file, limit(2 << 30)).unwrap();
        let space = superblock::space(&file).unwrap();
        assert_eq!(space.size, 2 << 30);
        assert!(space.used() < 256 << 20 && space.free_inodes > 100_000, "{space:?}");
        assert!(fs::metadata(&file).unwrap().blocks() * 512 < 32 << 20);
        assert!(create(&file, limit(2 << 30)).is_err());
    }

    #[test]
    fn q03_a_disk_is_made_with_as_many_inodes_as_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.img");
        create(&file, Limit { bytes: 1 << 30, inodes: Some(20_000) }).unwrap();
        let inodes = superblock::space(&file).unwrap().inodes;
        // Every group has as many, in whole blocks of them.
        assert!((20_000..20_400).contains(&inodes), "{inodes}");
    }

    #[test]
    fn a_failed_format_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.img");
        assert!(matches!(create(&file, limit(4096)), Err(Error::Program { program: "mke2fs", .. })));
        assert!(!file.exists());
    }

    #[test]
    fn what_is_held_back_is_the_most_of_what_limit_room_and_ext4_itself_want() {
        const BLOCK: u64 = 4096;
        const TOTAL: u64 = (4 << 30) / BLOCK;
        let held = |free: u64, limit_bytes: u64, room: Option<u64>| {
            held_back(TOTAL, free / BLOCK, BLOCK, Room { limit: limit(limit_bytes), free: room }) * BLOCK
        };
        assert_eq!(held(3 << 30, 4 << 30, None), 16 << 20, "as ext4 does by itself");
        assert_eq!(held(3 << 30, 8 << 30, None), 16 << 20, "a limit that waits for its disk to grow");
        assert_eq!(held(3 << 30, 1 << 30, None), 3 << 30, "all of it is used");
        assert_eq!(held(3 << 30, 3 << 30, Some(512 << 20)), 5 << 29, "512 MiB are left");
        assert_eq!(held(3 << 30, 2 << 30, Some(5 << 30)), 2 << 30, "more room than the limit leaves");
        assert_eq!(held(3 << 30, 4 << 30, Some(0)), 3 << 30);
        assert_eq!(held_back(100, 100, BLOCK, Room { limit: limit(0), free: None }), 99, "the kernel takes no more");
    }
}

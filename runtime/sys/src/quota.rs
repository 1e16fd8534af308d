//! Project quotas of ext4 and XFS: `quotactl_fd`(2), and the project of a directory (ioctl_xfs_fssetxattr(2), which ext4 has too).

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `QCMD(command, PRJQUOTA)` of linux/quota.h.
const fn project_command(command: u32) -> libc::c_uint {
    command << 8 | 2
}

const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
/// `XQM_CMD(8)`
const Q_XGETQSTATV: u32 = 0x5808;
/// Project limits are accounted for, and enforced.
const FS_QUOTA_PDQ: u16 = 1 << 4 | 1 << 5;
/// Block and inode limits are valid.
const QIF_LIMITS: u32 = 1 | 4;
/// The unit of block limits.
const BLOCK: u64 = 1024;

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801C_581F;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401C_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

#[repr(C)]
#[derive(Default)]
struct Dqblk {
    block_hard: u64,
    block_soft: u64,
    current_space: u64,
    inode_hard: u64,
    inode_soft: u64,
    current_inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

#[repr(C)]
struct FileStat {
    inode: u64,
    blocks: u64,
    extents: u32,
    pad: u32,
}

/// `struct fs_quota_statv`
#[repr(C)]
struct State {
    version: i8,
    pad1: u8,
    flags: u16,
    in_core: u32,
    files: [FileStat; 3],
    time_limits: [i32; 3],
    warn_limits: [u16; 3],
    pad3: u16,
    pad4: u32,
    pad2: [u64; 7],
}

#[repr(C)]
#[derive(Default)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// Limits and use of one project; a limit of 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub limit_bytes: u64,
    pub used_bytes: u64,
    pub limit_inodes: u64,
    pub used_inodes: u64,
}

fn control<T>(file: BorrowedFd<'_>, command: u32, id: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: `argument` is the structure that `command` reads or writes (the callers below), and lives across the call.
    let done =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), project_command(command), id, std::ptr::from_mut(argument)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the file system below `file` enforces limits of projects.
pub fn enforced(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut state: State = unsafe { mem::zeroed() };
    state.version = 1;
    control(file, Q_XGETQSTATV, 0, &mut state).is_ok() && state.flags & FS_QUOTA_PDQ == FS_QUOTA_PDQ
}

/// Limits and use of a project; one that was never used has neither.
pub fn get(file: BorrowedFd<'_>, project: u32) -> io::Result<Quota> {
    let mut block = Dqblk::default();
    match control(file, Q_GETQUOTA, project, &mut block) {
        // XFS keeps nothing of such a project.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Quota::default()),
        done => done?,
    }
    Ok(Quota {
        limit_bytes: block.block_hard.saturating_mul(BLOCK),
        used_bytes: block.current_space,
        limit_inodes: block.inode_hard,
        used_inodes: block.current_inodes,
    })
}

/// Sets the hard limits of a project; 0 is none.
pub fn set(file: BorrowedFd<'_>, project: u32, bytes: u64, inodes: u64) -> io::Result<()> {
    let mut block = Dqblk { block_hard: bytes.div_ceil(BLOCK), inode_hard: inodes, valid: QIF_LIMITS, ..Dqblk::default() };
    control(file, Q_SETQUOTA, project, &mut block)
}

/// Puts a directory into a project, with all that will be made in it.
pub fn put_in_project(dir: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = FsXattr::default();
    // SAFETY: `attributes` has the layout of struct fsxattr (linux/fs.h) and lives across the call, which writes to it.
    if unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_FSGETXATTR as _, &mut attributes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: as above; the call only reads.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_FSSETXATTR as _, &attributes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The project of a directory, and whether what is made in it belongs to that too.
pub fn project_of(dir: BorrowedFd<'_>) -> io::Result<(u32, bool)> {
    let mut attributes = FsXattr::default();
    // SAFETY: `attributes` has the layout of struct fsxattr (linux/fs.h) and lives across the call, which writes to it.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_FSGETXATTR as _, &mut attributes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok((attributes.project, attributes.flags & FS_XFLAG_PROJINHERIT != 0)) }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn structures_are_those_of_the_kernel() {
        assert_eq!((size_of::<FsXattr>(), offset_of!(FsXattr, project)), (28, 12));
        assert_eq!((size_of::<Dqblk>(), offset_of!(Dqblk, current_space), offset_of!(Dqblk, valid)), (72, 16, 64));
        assert_eq!((size_of::<FileStat>(), size_of::<State>(), offset_of!(State, files)), (24, 160, 8));
        assert_eq!((project_command(Q_GETQUOTA), project_command(Q_SETQUOTA)), (0x8000_0702, 0x8000_0802));
    }
}

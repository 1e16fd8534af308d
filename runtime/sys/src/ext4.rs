//! Ext4 of its own: growing while mounted.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `_IOW('f', 16, __u64)`
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;

/// Grows the mounted file system below `dir` to `blocks` of its blocks; as many as it has already do nothing but tell whether the caller may.
///
/// Errors: `EPERM` without `CAP_SYS_RESOURCE` on the host.
pub fn resize(dir: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: the call reads one u64, which lives across it.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &blocks) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

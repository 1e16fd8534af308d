//! mount_setattr(2): what makes a mount id-mapped or locks its flags.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

pub const RDONLY: u64 = 0x1;
pub const NOSUID: u64 = 0x2;
pub const NODEV: u64 = 0x4;
pub const NOEXEC: u64 = 0x8;
const IDMAP: u64 = 0x0010_0000;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets `attributes` on the mount that `mount` (an `open_tree` or `fsmount` descriptor) refers to; with `userns`, ids on it are seen
/// through that user namespace's map, which only works before the mount is attached anywhere.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: u64, userns: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: attributes | userns.map_or(0, |_| IDMAP),
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: the path is a static empty C string, `attr` lives across the call and has the size that is passed.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, &attr, size_of::<MountAttr>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets `attributes` on every mount that this process's mount namespace has, the root's and all below.
pub fn set_attributes_of_all(attributes: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // SAFETY: the path is a static C string, `attr` lives across the call and has the size that is passed.
    let done =
        unsafe { libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, c"/".as_ptr(), libc::AT_RECURSIVE, &attr, size_of::<MountAttr>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes `attributes` off the mount that `mount` refers to. Errors: `EPERM` where they are locked, mount_namespaces(7).
pub fn clear_attributes(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set: 0, attr_clr: attributes, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a static empty C string, `attr` lives across the call and has the size that is passed.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, &attr, size_of::<MountAttr>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

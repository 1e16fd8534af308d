//! Descriptors that a process was started with.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Takes a descriptor that the caller was started with, and marks it close-on-exec.
///
/// To be called once per number, first thing in `main`, before anything else may have opened that number.
/// Errors: `EBADF` when it is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD touches no memory of ours; it fails on a number that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open (checked above), and by this function's contract nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Another descriptor of the same, for one that somebody else (a C library) owns. Errors: `EBADF` when it is not open.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC touches no memory of ours; it fails on a number that is not open.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and told nobody else of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Marks every descriptor from `first` on to be closed by the next exec, close_range(2).
///
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC only marks; nothing is closed under a live owner before exec or exit does it.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor from `first` on: what a careless starter of this program had left open.
///
/// To be called first thing in `main`, before anything owns one of them.
pub fn close_strays_from(first: u32) -> io::Result<()> {
    // SAFETY: by this function's contract nobody in this process owns a descriptor in the range.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Moves `descriptor` to `number`, open across exec; what was open there is closed. Nobody may own `number`.
pub fn replace(number: RawFd, descriptor: OwnedFd) -> io::Result<()> {
    // SAFETY: dup2 touches no memory; by this function's contract no owner of `number` is left to be surprised.
    if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

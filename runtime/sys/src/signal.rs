//! Signals by number: rustix and nix name no real-time signal, and systemd as PID 1 is stopped by one.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// Sends signal `number` (1–64) to the process that `pidfd` refers to, pidfd_send_signal(2).
///
/// Errors: `ESRCH` when it has ended, `EINVAL` for a number that is none.
pub fn send(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks the kernel to make its own; no other memory is passed.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, ptr::null::<libc::siginfo_t>(), 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

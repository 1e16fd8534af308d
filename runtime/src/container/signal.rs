use std::os::fd::BorrowedFd;

use crate::error::{Result, Step};

/// What systemd as PID 1 takes as "power off": `SIGRTMIN+3`, systemd(1). The kernel's number; the C library keeps 32 and 33 to itself.
pub const SYSTEMD_HALT: i32 = 37;

/// Sends signal `number` to PID 1; that it has already ended is success.
pub fn signal(pidfd: BorrowedFd<'_>, number: i32) -> Result<()> {
    match berth_sys::signal::send(pidfd, number) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
        done => done.step("signal", format!("PID 1 with signal {number}")),
    }
}

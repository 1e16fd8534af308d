//! System V shared memory, as far as locking it goes: the one way to use up a user's locked memory without a mapping.

use std::{io, ptr};

/// A segment that was locked into memory; it stays after the process unless removed.
#[derive(Debug)]
pub struct Locked(libc::c_int);

/// Makes a segment of `bytes` and locks it; `ENOMEM` when that passes the user's limit. shmget(2), shmctl(2)
pub fn lock_new(bytes: usize) -> io::Result<Locked> {
    // SAFETY: makes a segment and touches no memory of ours.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, 0o600) };
    if id < 0 {
        return Err(io::Error::last_os_error());
    }
    let segment = Locked(id);
    // SAFETY: SHM_LOCK takes no argument.
    if unsafe { libc::shmctl(id, libc::SHM_LOCK, ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(segment)
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no argument; the segment is ours and mapped nowhere.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, ptr::null_mut()) };
    }
}

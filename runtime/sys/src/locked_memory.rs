//! System V shared memory that is locked: the one kind of locked memory that is counted per user and not per process.

use std::{io, ptr};

/// A segment that nobody else can name; it goes with this value, or with its ipc namespace.
#[derive(Debug)]
pub struct LockedMemory {
    id: libc::c_int,
}

impl LockedMemory {
    /// Makes and locks a segment of `bytes`. Errors: `EPERM` or `ENOMEM` past `RLIMIT_MEMLOCK` of the user.
    pub fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: no memory of ours is passed.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600) };
        if id < 0 {
            return Err(io::Error::last_os_error());
        }
        let segment = Self { id };
        // SAFETY: SHM_LOCK takes no argument.
        let done = unsafe { libc::shmctl(segment.id, libc::SHM_LOCK, ptr::null_mut()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(segment) }
    }
}

impl Drop for LockedMemory {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no argument; the id is ours.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, ptr::null_mut()) };
    }
}

//! Kernel keyrings.

use std::{io, ptr};

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Gives the process a new, empty session keyring, so that it cannot see the keys of the session that started it. keyctl(2)
pub fn join_new_session() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring; no other memory is passed.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

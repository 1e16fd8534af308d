//! Kernel keyrings.

use std::{ffi::CStr, io, ptr};

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Gives the process a new, empty session keyring, so that it cannot see the keys of the session that started it. keyctl(2)
pub fn join_new_session() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring; no other memory is passed.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Special id of the calling process's own keyring.
const KEY_SPEC_PROCESS_KEYRING: libc::c_int = -2;

/// Adds a key of type `user` to the process's keyring; `EDQUOT` when the user's quota is used up. add_key(2)
pub fn add_user_key(description: &CStr, payload: &[u8]) -> io::Result<()> {
    // SAFETY: both names are C strings and the payload's length goes with its pointer; the kernel copies all three.
    let done = unsafe {
        libc::syscall(libc::SYS_add_key, c"user".as_ptr(), description.as_ptr(), payload.as_ptr(), payload.len(), KEY_SPEC_PROCESS_KEYRING)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

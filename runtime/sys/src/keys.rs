//! add_key(2): what a tenant uses up when he fills the kernel's key store.

use std::{ffi::CStr, io};

const KEY_SPEC_PROCESS_KEYRING: libc::c_int = -2;

/// Adds a key of type `user` to the keyring of this process, where it lives as long as the process; `payload` is not empty.
///
/// Errors: `EDQUOT` when the owner's quota of keys is used up.
pub fn add_to_process(description: &CStr, payload: &[u8]) -> io::Result<()> {
    // SAFETY: both strings end in NUL and live across the call; the payload's length is its own.
    let key = unsafe {
        let kind = c"user".as_ptr();
        libc::syscall(libc::SYS_add_key, kind, description.as_ptr(), payload.as_ptr(), payload.len(), KEY_SPEC_PROCESS_KEYRING)
    };
    if key < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

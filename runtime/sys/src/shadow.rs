//! getspnam(3), which root alone may use; the hash itself is never handed out.

use std::{
    ffi::{CStr, c_char},
    io, mem, ptr,
};

/// What shadow(5) says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// It had a password, and that was switched off (`passwd -l`, `usermod -L`). An account that never had one is not locked.
    pub locked: bool,
    /// The day on which it expires, counted from 1970.
    pub expires: Option<i64>,
}

/// Longest entry.
const BUFFER: usize = 16 * 1024;

/// None where no source of the host knows it.
pub fn find(name: &CStr) -> io::Result<Option<Shadow>> {
    // SAFETY: all-zero is a valid `spwd`: numbers and null pointers.
    let mut entry: libc::spwd = unsafe { mem::zeroed() };
    let mut buffer = vec![0 as c_char; BUFFER];
    let mut found = ptr::null_mut();
    // SAFETY: the name ends in NUL; entry, buffer (with its own length) and result are ours and live across the call.
    let code = unsafe { libc::getspnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    match (code, found.is_null()) {
        (0, false) => {}
        (0 | libc::ENOENT | libc::ESRCH, true) => return Ok(None),
        (code, _) => return Err(io::Error::from_raw_os_error(code)),
    }
    let locked = match entry.sp_pwdp.is_null() {
        true => false,
        // SAFETY: not null (checked); it points into `buffer` and ends in NUL, getspnam(3).
        false => is_locked(unsafe { CStr::from_ptr(entry.sp_pwdp) }.to_bytes()),
    };
    Ok(Some(Shadow { locked, expires: Some(entry.sp_expire).filter(|day| *day >= 0) }))
}

/// `!` before a hash. `!`, `!!`, `*` and `!*` alone stand for no password.
fn is_locked(field: &[u8]) -> bool {
    field.starts_with(b"!") && field.iter().any(|b| !matches!(b, b'!' | b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_was_switched_off_is_a_lock_and_none_is_not() {
        for (field, locked) in
            [("!$y$j9T$x", true), ("!!$6$x", true), ("!", false), ("!!", false), ("*", false), ("!*", false), ("$y$x", false), ("", false)]
        {
            assert_eq!(is_locked(field.as_bytes()), locked, "{field}");
        }
    }
}

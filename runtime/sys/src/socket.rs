//! Socket options that nix and rustix lack, socket(7).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Names the network namespace of a socket, for as long as the machine runs. (SO_NETNS_COOKIE, since 5.14)
pub fn network_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the value lives across the call, and its size is passed.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

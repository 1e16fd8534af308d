//! Descriptors that the event loop watches.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Watches `descriptor` (non-blocking) for what `interest` says.
#[expect(deprecated, reason = "sound for OwnedFd, which names the same open descriptor until it is dropped; the successor is unsafe")]
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// Watches a socket both ways.
pub(crate) fn watch_socket(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(socket, Interest::READABLE | Interest::WRITABLE)
}

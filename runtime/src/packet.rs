//! A JSON value a packet with descriptors beside, over a `SOCK_SEQPACKET` socket: how the small programs of this crate speak.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result, Step};

/// Longest packet; a bundle is some kilobytes.
const LONGEST: usize = 128 * 1024;
/// Three mounts for each of sixteen shares, and a few more.
const MOST_FDS: usize = 64;

pub(crate) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let bytes = serde_json::to_vec(message).map_err(|e| Error::Invalid(format!("a message cannot be written: {e}")))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::Invalid(format!("{} descriptors, the limit is {MOST_FDS}", fds.len())));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).step("send to", "the other end")?;
    Ok(())
}

/// Errors: the other end is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<(T, Vec<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .step("receive from", "the other end")?;
    if received.bytes == 0 {
        return Err(Error::Child { detail: "it ended without a word".into() });
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::Invalid("a message or its descriptors are too many for one packet".into()));
    }
    let message = serde_json::from_slice(&bytes[..received.bytes])
        .map_err(|e| Error::Invalid(format!("a message of {} bytes is not understood: {e}", received.bytes)))?;
    Ok((message, fds))
}

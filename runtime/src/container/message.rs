//! What passes between [`start`](super::start()) and its two children, over one `SOCK_SEQPACKET` pair: a JSON value a packet, descriptors beside.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Bundle;
use crate::error::{Error, Result, Step};

/// Longest packet; a bundle is some kilobytes.
const LONGEST: usize = 128 * 1024;
const MOST_FDS: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// With descriptors: sealed init program, console (write end), channel (berth-init's end).
    Bundle(Box<Bundle>),
    Go,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// The user namespace is there; its maps are to be written.
    NeedMaps,
    /// All other namespaces are there; time offsets and the link are to be set.
    NeedHost,
    /// PID 1 was made: its pid in the host's pid namespace.
    Cloned {
        pid: u32,
    },
    /// PID 1 stands before exec. With descriptors: root (`O_PATH`), disk.
    Ready,
    Failed {
        detail: String,
    },
}

pub(super) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let bytes = serde_json::to_vec(message).map_err(|e| Error::Invalid(format!("a message cannot be written: {e}")))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).step("send to", "the other end")?;
    Ok(())
}

/// Errors: the other end is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<(T, Vec<OwnedFd>)> {
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
    let message = serde_json::from_slice(&bytes[..received.bytes])
        .map_err(|e| Error::Invalid(format!("a message of {} bytes is not understood: {e}", received.bytes)))?;
    Ok((message, fds))
}

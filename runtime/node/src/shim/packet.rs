//! One message a packet over a `SOCK_SEQPACKET` socket: JSON, with descriptors beside it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

/// Most descriptors that ride with one message: three mounts for each of sixteen shares, and a few more.
const MOST_DESCRIPTORS: usize = 64;

/// Sends one message whole, or fails; `WouldBlock` when the other side does not read.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!("more than {MOST_DESCRIPTORS} descriptors with one message")));
    }
    sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message into `buffer`; `None` at the end of the connection. `InvalidData` for what is no such message.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let packet = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if packet.bytes == 0 {
        return Ok(None);
    }
    if packet.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message or its descriptors are too many for one packet"));
    }
    let message = serde_json::from_slice(&buffer[..packet.bytes]).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((message, descriptors)))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::link::ToShim;

    #[test]
    fn a_message_arrives_with_its_descriptors_and_the_end_is_none() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        send(&a, &ToShim::Stop { deadline_ms: 7 }, &[a.as_fd(), b.as_fd()]).unwrap();
        send(&a, &ToShim::Status, &[]).unwrap();
        let mut buffer = [0; 256];
        let (message, descriptors) = receive::<ToShim>(&b, &mut buffer).unwrap().unwrap();
        assert!(matches!(message, ToShim::Stop { deadline_ms: 7 }));
        assert_eq!(descriptors.len(), 2);
        drop(descriptors);
        let (message, descriptors) = receive::<ToShim>(&b, &mut buffer).unwrap().unwrap();
        assert!(matches!(message, ToShim::Status) && descriptors.is_empty());
        drop(a);
        assert!(receive::<ToShim>(&b, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_packet_that_does_not_fit_or_is_no_message_is_refused() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        send(&a, &"x".repeat(300), &[]).unwrap();
        send(&a, &"garbage", &[]).unwrap();
        let mut buffer = [0; 256];
        for _ in 0..2 {
            let error = receive::<ToShim>(&b, &mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}

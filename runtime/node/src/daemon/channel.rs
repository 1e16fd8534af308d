//! The node's end of a connection to a shim: packets of JSON, descriptors beside them ([`crate::link`]).
//!
//! What comes from a shim is not trusted further than its own berth: messages and descriptors are bounded, and a packet that is no
//! message ends the connection. Its end is how a shim's death is told: nothing else holds the other side.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Mutex,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::unix::AsyncFd;

use crate::{
    descriptor::watch_socket,
    link::{FromShim, MAX_MESSAGE, ToShim},
};

/// Most descriptors in one packet, either way.
const MAX_DESCRIPTORS: usize = 64;

pub(crate) struct Channel {
    socket: AsyncFd<OwnedFd>,
    buffer: Mutex<Vec<u8>>,
}

impl Channel {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watch_socket(socket)?, buffer: Mutex::new(vec![0; MAX_MESSAGE]) })
    }

    /// Our end, and the end that becomes a new shim's standard input.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Connects to the control socket of a running shim.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket)
    }

    pub(crate) async fn send(&self, message: &ToShim, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_value(message, descriptors).await
    }

    /// A message of another program of ours than a running shim.
    pub(crate) async fn send_value(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE {
            return Err(io::Error::other(format!("message of {} bytes, the limit is {MAX_MESSAGE}", bytes.len())));
        }
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| send_packet(socket.as_fd(), &bytes, descriptors)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }

    /// The next message; `None` when the shim is gone. Nothing is lost when the wait is given up.
    pub(crate) async fn receive(&self) -> io::Result<Option<(FromShim, Vec<OwnedFd>)>> {
        self.receive_value().await
    }

    pub(crate) async fn receive_value<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                let mut buffer = self.buffer.lock().unwrap_or_else(|e| e.into_inner());
                receive_packet(socket.as_fd(), &mut buffer)
            });
            match received {
                Ok(message) => return message,
                Err(_would_block) => {}
            }
        }
    }
}

fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!("{} descriptors, the limit is {MAX_DESCRIPTORS}", descriptors.len())));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_packet<T: DeserializeOwned>(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
        // A shim that was killed with something unread of ours.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        got => got?,
    };
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other(format!("a packet of the shim passes the limit of {MAX_MESSAGE} bytes")));
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..got.bytes])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Event;

    #[tokio::test]
    async fn messages_and_descriptors_arrive_and_the_end_is_told() {
        let (channel, shim) = Channel::pair().unwrap();
        let ready = serde_json::to_vec(&FromShim::Event(Event::Ready)).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send_packet(shim.as_fd(), &ready, &[null.as_fd()]).unwrap();
        let (message, descriptors) = channel.receive().await.unwrap().unwrap();
        assert!(matches!(message, FromShim::Event(Event::Ready)));
        assert_eq!(descriptors.len(), 1);

        channel.send(&ToShim::Stop { deadline_ms: 7 }, &[]).await.unwrap();
        drop(shim);
        assert!(channel.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_not_a_panic() {
        let (channel, shim) = Channel::pair().unwrap();
        send_packet(shim.as_fd(), b"{", &[]).unwrap();
        assert!(channel.receive().await.is_err());
    }
}

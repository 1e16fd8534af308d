use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Result, Step};

/// Where [`Loopback::door`] is in a berth: a loopback address that nobody uses, and a port that the DNS listener keeps from being had at
/// all addresses anyway.
pub const DOOR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 169, 254, 1)), 53);

/// UDP sockets of [`Loopback::datagrams`].
pub const DATAGRAMS: usize = 64;

/// Sockets of one network, by which a process that has no right there reaches the network's loopback later.
///
/// A socket is for ever of the network that it was made in, and an accepted one of its listener's. So whoever holds `door` and `knocker`
/// has as many fresh TCP sockets there as he wants: knock, accept, disconnect (connect(2) to `AF_UNSPEC`). UDP has no such way, but a UDP
/// socket can be disconnected and used again. All are non-blocking.
#[derive(Debug)]
pub struct Loopback {
    /// Listens. Others of that network may knock too: what is accepted is worth the same, once it is disconnected.
    pub door: TcpListener,
    /// A TCP socket that is not connected.
    pub knocker: OwnedFd,
    /// Neither bound nor connected.
    pub datagrams: Vec<UdpSocket>,
}

impl Loopback {
    /// Makes them in the network that the caller is in.
    pub fn open(door: SocketAddr) -> Result<Self> {
        let socket = |kind| socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
        let datagrams = (0..DATAGRAMS).map(|_| socket(SocketType::DGRAM).map(UdpSocket::from)).collect::<rustix::io::Result<_>>();
        let listener = TcpListener::bind(door).step("bind", "the door to the loopback")?;
        listener.set_nonblocking(true).step("set up", "the door to the loopback")?;
        Ok(Self {
            door: listener,
            knocker: socket(SocketType::STREAM).step("make", "a socket for the loopback")?,
            datagrams: datagrams.step("make", "sockets for the loopback")?,
        })
    }
}

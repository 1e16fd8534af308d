use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, bind, listen, recv, shutdown, socket_with, sockopt},
};

use super::Key;
use crate::shim::docker::Protocol;

/// Connections that wait to be accepted.
const QUEUE: i32 = 128;
/// Most datagrams that were sent before a port was guarded: more do not fit a receive buffer.
const QUEUED: usize = 100_000;

/// A port of 127.0.0.1 that nobody else can have, and the same of ::1, kept empty.
#[derive(Debug)]
pub(super) struct Bound {
    protocol: Protocol,
    socket: Option<OwnedFd>,
    /// None where the host has no IPv6.
    reserve: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) enum Refused {
    Taken,
    Failed(io::Error),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        if error == Errno::ADDRINUSE { Refused::Taken } else { Refused::Failed(error.into()) }
    }
}

impl Bound {
    /// Binds without serving.
    pub(super) fn new((protocol, port): Key) -> Result<Self, Refused> {
        let socket = socket_with(AddressFamily::INET, kind(protocol), FLAGS, None)?;
        if protocol == Protocol::Tcp {
            // Connections of the last container at this port may still linger. Beside a listener it gives nobody a place.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))?;
        Ok(Self { protocol, socket: Some(socket), reserve: reserve(protocol, port)? })
    }

    /// A duplicate for the node.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.socket()?.try_clone()
    }

    /// Serves from now on; a duplicate for the task that does.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let socket = self.socket()?;
        match self.protocol {
            Protocol::Tcp => listen(socket, QUEUE)?,
            // Whoever sent these had not been asked who he is.
            Protocol::Udp => drop((0..QUEUED).take_while(|_| recv(socket, &mut [0; 1], RecvFlags::TRUNC).is_ok()).count()),
        }
        socket.try_clone()
    }

    /// Leaves nothing behind in its place.
    pub(super) fn take(&mut self) -> Self {
        Self { protocol: self.protocol, socket: self.socket.take(), reserve: self.reserve.take() }
    }

    /// Stops serving at once, though the node holds the socket for a moment longer.
    pub(super) fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            // An unconnected UDP socket refuses, and is just not read any more.
            let _ = shutdown(&socket, Shutdown::Both);
        }
    }

    fn socket(&self) -> io::Result<&OwnedFd> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn kind(protocol: Protocol) -> SocketType {
    match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    }
}

fn reserve(protocol: Protocol, port: u16) -> Result<Option<OwnedFd>, Refused> {
    let bound = || -> Result<OwnedFd, Errno> {
        let socket = socket_with(AddressFamily::INET6, kind(protocol), FLAGS, None)?;
        sockopt::set_ipv6_v6only(&socket, true)?;
        bind(&socket, &SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0)))?;
        Ok(socket)
    };
    match bound() {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    /// A port that was free a moment ago.
    fn free() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn n06_beside_a_pending_or_open_port_nobody_listens() {
        let port = free();
        let mut bound = Bound::new((Protocol::Tcp, port)).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "pending: it does not listen");
        let others = ["127.0.0.1", "0.0.0.0", "::1", "::"];
        let listening = |addresses: &[&str]| addresses.iter().filter(|a| TcpListener::bind((**a, port)).is_ok()).count();
        let _served = bound.open().unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(TcpStream::connect(("::1", port)).is_err());
        assert_eq!(listening(&others), 0);
        // Closed for everybody at once, though others hold it too.
        bound.close();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    #[test]
    fn h03_what_is_taken_at_either_loopback_is_taken() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let Ok(other) = TcpListener::bind(address) else { continue };
            let port = other.local_addr().unwrap().port();
            assert!(matches!(Bound::new((Protocol::Tcp, port)), Err(Refused::Taken)), "{address}");
        }
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(other) = UdpSocket::bind(address) else { continue };
            let port = other.local_addr().unwrap().port();
            assert!(matches!(Bound::new((Protocol::Udp, port)), Err(Refused::Taken)), "{address}");
        }
    }

    #[test]
    fn n06_datagrams_that_came_before_the_guard_are_thrown_away() {
        let port = free();
        let bound = Bound::new((Protocol::Udp, port)).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"early", ("127.0.0.1", port)).unwrap();
        let served = UdpSocket::from(bound.open().unwrap());
        client.send_to(b"late", ("127.0.0.1", port)).unwrap();
        let mut buffer = [0; 16];
        let (length, _) = served.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"late");
        assert!(UdpSocket::bind(("0.0.0.0", port)).is_err());
    }
}

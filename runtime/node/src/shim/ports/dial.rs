use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, UdpSocket},
    time::timeout,
};

use super::inside::{Datagrams, Inside};
use crate::shim::docker::Reach;

/// How long the berth may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way into the berth: its own address over its own link, whatever the tenant does to his end of it, or its loopback.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) address: Ipv4Addr,
    /// Host end of the berth's link. Without it, a link that the tenant removed would leave only the host's default route.
    pub(crate) link: String,
    pub(crate) inside: Inside,
}

impl Dialer {
    pub(super) async fn tcp(&self, port: u16, reach: Reach) -> io::Result<std::net::TcpStream> {
        let connected = timeout(PATIENCE, async {
            let (socket, address) = match reach {
                Reach::Berth => (self.outside()?, self.address),
                Reach::Loopback => (self.inside.tcp().await?, Ipv4Addr::LOCALHOST),
            };
            socket.set_nodelay(true)?;
            socket.connect(SocketAddr::from((address, port))).await
        });
        connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.into_std()
    }

    /// `WouldBlock` when there are too many at the loopback already.
    pub(super) async fn udp(&self, port: u16, reach: Reach) -> io::Result<Datagrams> {
        if reach == Reach::Loopback {
            return self.inside.udp(port);
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        self.tie(&socket)?;
        socket.connect((self.address, port)).await?;
        Ok(socket.into())
    }

    fn outside(&self) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        self.tie(&socket)?;
        Ok(socket)
    }

    fn tie(&self, socket: &impl std::os::fd::AsFd) -> io::Result<()> {
        if self.link.is_empty() {
            return if cfg!(test) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) };
        }
        Ok(nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::BindToDevice, &self.link.clone().into())?)
    }
}

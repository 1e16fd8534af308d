use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, UdpSocket},
    time::timeout,
};

use crate::shim::docker::Reach;

/// How long the berth may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way into the berth: its own address over its own link, whatever the tenant does to his end of it.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) address: Ipv4Addr,
    /// Host end of the berth's link. Without it, a link that the tenant removed would leave only the host's default route.
    pub(crate) link: String,
}

impl Dialer {
    /// Why a published port cannot be reached from here.
    pub(super) fn cannot(&self, reach: Reach) -> Option<String> {
        match reach {
            Reach::Berth => None,
            Reach::Loopback => Some("it is published at the berth's own 127.0.0.1 only; publish it without an address".into()),
        }
    }

    pub(super) async fn tcp(&self, port: u16, _reach: Reach) -> io::Result<std::net::TcpStream> {
        let socket = TcpSocket::new_v4()?;
        self.tie(&socket)?;
        socket.set_nodelay(true)?;
        let connected = timeout(PATIENCE, socket.connect(SocketAddr::from((self.address, port)))).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.into_std()
    }

    pub(super) async fn udp(&self, port: u16, _reach: Reach) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        self.tie(&socket)?;
        socket.connect((self.address, port)).await?;
        Ok(socket)
    }

    fn tie(&self, socket: &impl std::os::fd::AsFd) -> io::Result<()> {
        if self.link.is_empty() {
            return if cfg!(test) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) };
        }
        Ok(nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::BindToDevice, &self.link.clone().into())?)
    }
}

//! Sockets of the berth's own network, for what listens at its 127.0.0.1 only (`docker run -p 127.0.0.1:8080:80`).
//!
//! This process may make none there; it lives on what it held before it gave up its rights ([`Loopback`]). No process of the berth ever has one
//! of these sockets in its hands, and none is asked to help: it works the same whatever runs as PID 1.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket as Plain},
    ops::Deref,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use berth_runtime::net::Loopback;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::{
    io::Errno,
    net::{RecvFlags, SocketFlags, accept_with, bind, connect, connect_unspec, recv},
};
use tokio::{
    io::Interest,
    net::{TcpSocket, UdpSocket},
    sync::Mutex as Turn,
    time::timeout,
};

use crate::{descriptor::watch, shim::copy::Stream};

/// How long the way through the door may take. It is a matter of microseconds, unless the tenant has taken his own loopback apart.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most datagrams that wait in a socket: more do not fit its buffer.
const QUEUED: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Inside {
    door: Stream,
    address: SocketAddr,
    /// One knocks at a time.
    knocker: Turn<OwnedFd>,
    datagrams: Store,
}

type Store = Arc<Mutex<Vec<Plain>>>;

impl Inside {
    pub(crate) fn new(Loopback { door, knocker, datagrams }: Loopback) -> io::Result<Self> {
        let address = door.local_addr()?;
        let door = watch(door.into(), Interest::READABLE)?;
        Ok(Self { door, address, knocker: Turn::new(knocker), datagrams: Arc::new(Mutex::new(datagrams)) })
    }

    /// A fresh TCP socket, at 127.0.0.1 and not connected.
    pub(super) async fn tcp(&self) -> io::Result<TcpSocket> {
        let knocker = self.knocker.lock().await;
        // Whoever knocked before may have been cut short.
        connect_unspec(&*knocker)?;
        match connect(&*knocker, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let accepted = timeout(PATIENCE, self.accept()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let _ = connect_unspec(&*knocker);
        let socket = accepted?;
        // What was said on it, by whoever it was, goes too; tcp(7).
        connect_unspec(&socket)?;
        // Not the door's address any more. The port is for connect(2) to choose: two connections to different places may share one, ip(7).
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        Ok(TcpSocket::from_std_stream(TcpStream::from(socket)))
    }

    async fn accept(&self) -> io::Result<OwnedFd> {
        loop {
            let mut ready = self.door.readable().await?;
            let accepted = ready.try_io(|door| Ok(accept_with(door.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?));
            if let Ok(accepted) = accepted {
                return accepted;
            }
        }
    }

    /// A UDP socket that is connected to `port` of 127.0.0.1. `WouldBlock` while all are lent.
    pub(super) fn udp(&self, port: u16) -> io::Result<Datagrams> {
        let original = lock(&self.datagrams).pop().ok_or(io::ErrorKind::WouldBlock)?;
        let lent = Lent { original: Some(original), store: Arc::clone(&self.datagrams) };
        let socket = lent.original.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        // What came for the client before, and what he was refused. Unbound since it was given back, it gets nothing more.
        for _ in 0..QUEUED {
            if recv(socket, &mut [0; 1], RecvFlags::TRUNC) == Err(Errno::AGAIN) {
                break;
            }
        }
        socket.connect((Ipv4Addr::LOCALHOST, port))?;
        Ok(Datagrams { socket: UdpSocket::from_std(socket.try_clone()?)?, _lent: Some(lent) })
    }
}

/// A UDP socket for one client.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    /// Given back after the duplicate above is closed.
    _lent: Option<Lent>,
}

impl From<UdpSocket> for Datagrams {
    fn from(socket: UdpSocket) -> Self {
        Self { socket, _lent: None }
    }
}

impl Deref for Datagrams {
    type Target = UdpSocket;

    fn deref(&self) -> &UdpSocket {
        &self.socket
    }
}

#[derive(Debug)]
struct Lent {
    original: Option<Plain>,
    store: Store,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(original) = self.original.take() {
            let _ = connect_unspec(&original);
            lock(&self.store).push(original);
        }
    }
}

fn lock(store: &Mutex<Vec<Plain>>) -> std::sync::MutexGuard<'_, Vec<Plain>> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
        time::Instant,
    };

    use berth_runtime::net::DATAGRAMS;

    use super::*;

    /// At a door of its own.
    pub(in crate::shim::ports) fn inside() -> Inside {
        Inside::new(Loopback::open("127.169.254.1:0".parse().unwrap()).unwrap()).unwrap()
    }

    /// Answers each connection by what was said and where it came from.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (mut peer, from) in std::iter::from_fn(|| listener.accept().ok()) {
                let mut said = String::new();
                let _ = peer.read_to_string(&mut said);
                let _ = peer.write_all(format!("{said} {}", from.ip()).as_bytes());
            }
        });
        address
    }

    async fn ask(inside: &Inside, server: SocketAddr, text: String) -> io::Result<String> {
        let stream = inside.tcp().await?.connect(server).await?.into_std()?;
        let talk = move || {
            stream.set_nonblocking(false)?;
            (&stream).write_all(text.as_bytes())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = String::new();
            (&stream).read_to_string(&mut answer)?;
            Ok(answer)
        };
        tokio::task::spawn_blocking(talk).await.unwrap()
    }

    #[tokio::test]
    async fn h03_one_door_gives_socket_after_socket_and_at_once() {
        let (inside, server) = (Arc::new(inside()), echo());
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..200 {
            let inside = Arc::clone(&inside);
            asked.spawn(async move { (number, ask(&inside, server, number.to_string()).await.unwrap()) });
        }
        while let Some(answered) = asked.join_next().await {
            let (number, answer) = answered.unwrap();
            assert_eq!(answer, format!("{number} 127.0.0.1"));
        }
    }

    #[tokio::test]
    async fn what_a_stranger_at_the_door_says_goes_nowhere_and_he_keeps_nobody_out() {
        let (inside, server) = (inside(), echo());
        let strangers: Vec<_> = (0..40)
            .map(|number| {
                let mut stranger = TcpStream::connect(inside.address).unwrap();
                stranger.write_all(b"forged").unwrap();
                if number % 2 == 0 {
                    drop(stranger);
                    return None;
                }
                Some(stranger)
            })
            .collect();
        for _ in 0..80 {
            assert_eq!(ask(&inside, server, "mine".into()).await.unwrap(), "mine 127.0.0.1");
        }
        for mut stranger in strangers.into_iter().flatten() {
            stranger.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let heard = stranger.read(&mut [0; 8]);
            assert!(!matches!(heard, Ok(1..)), "{heard:?}");
        }
    }

    #[tokio::test]
    async fn a_loopback_that_is_taken_apart_costs_its_own_connections_only_and_not_for_long() {
        let inside = inside();
        // As if every packet to the door were dropped: nobody knocks.
        let began = Instant::now();
        rustix::net::shutdown(inside.door.get_ref(), rustix::net::Shutdown::Both).unwrap();
        assert!(inside.tcp().await.is_err());
        assert!(began.elapsed() < PATIENCE * 3);
    }

    #[tokio::test]
    async fn h03_udp_sockets_are_lent_given_back_and_clean() {
        let inside = inside();
        let (first, second) = (Plain::bind("127.0.0.1:0").unwrap(), Plain::bind("127.0.0.1:0").unwrap());
        let port = |socket: &Plain| socket.local_addr().unwrap().port();
        let mut lent: Vec<_> = (0..DATAGRAMS).map(|_| inside.udp(port(&first)).unwrap()).collect();
        assert_eq!(inside.udp(port(&first)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let last = lent.pop().unwrap();
        last.send(b"x").await.unwrap();
        let (_, client) = first.recv_from(&mut [0; 8]).unwrap();
        first.send_to(b"for the client before", client).unwrap();
        drop(last);
        first.send_to(b"too late", client).unwrap();
        let next = inside.udp(port(&second)).unwrap();
        next.send(b"y").await.unwrap();
        let (_, client) = second.recv_from(&mut [0; 8]).unwrap();
        assert!(client.ip().is_loopback());
        second.send_to(b"mine", client).unwrap();
        let mut buffer = [0; 64];
        let length = timeout(Duration::from_secs(20), next.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..length], b"mine");
    }
}

//! A network namespace that plays the outside world: the host routes to it over a veth pair, and it knows no way to the berths.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use crate::{berth::Berth, host::Host, run::Run};

/// The outside of one instance; gone when dropped.
pub struct Outside {
    namespace: String,
    link: String,
    /// Address of the outside, and of the host on the link to it.
    pub address: Ipv4Addr,
    pub host_address: Ipv4Addr,
}

impl Outside {
    #[track_caller]
    pub fn create(host: &Host) -> Self {
        let (namespace, link) = host.slot.outside();
        // A /30 of TEST-NET-3 for each slot.
        let net = u8::try_from(host.slot.number * 4).expect("a small number");
        let outside =
            Self { namespace, link, address: Ipv4Addr::new(203, 0, 113, net + 2), host_address: Ipv4Addr::new(203, 0, 113, net + 1) };
        let Self { namespace, link, address, host_address } = &outside;
        let ip = |text: String| drop(Run::new("ip").args(text.split(' ')).ok());
        let here = |text: String| drop(host.run("ip").args(text.split(' ')).ok());
        ip(format!("netns add {namespace}"));
        here(format!("link add {link} type veth peer name out netns {namespace}"));
        here(format!("addr add {host_address}/30 dev {link}"));
        here(format!("link set {link} up"));
        ip(format!("-n {namespace} addr add {address}/30 dev out"));
        ip(format!("-n {namespace} link set out up"));
        ip(format!("-n {namespace} link set lo up"));
        outside
    }

    /// Listens at `port` of the outside; every client is told `hello ADDRESS` with the address it came from.
    #[track_caller]
    pub fn serve_tcp(&self, port: u16) -> Peers {
        let at = SocketAddr::from((self.address, port));
        let listener = self.inside(move || TcpListener::bind(at)).unwrap_or_else(|e| panic!("listen at {at}: {e}"));
        Peers::serve(listener)
    }

    /// A UDP socket of the outside.
    #[track_caller]
    pub fn udp(&self, port: u16) -> UdpSocket {
        let at = SocketAddr::from((self.address, port));
        let socket = self.inside(move || UdpSocket::bind(at)).unwrap_or_else(|e| panic!("bind {at}: {e}"));
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set timeout");
        socket
    }

    /// Does something in the outside's network namespace; what it opens stays there.
    #[track_caller]
    pub fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.namespace)).expect("open the network namespace");
        let entered = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            act()
        });
        entered.join().expect("act outside")
    }

    /// Gives the outside another address, to which the host has a route.
    #[track_caller]
    pub fn also_at(&self, host: &Host, address: &str) {
        Run::new("ip").args(["-n", &self.namespace, "addr", "add", &format!("{address}/32"), "dev", "out"]).ok();
        host.run("ip").args(["route", "add", &format!("{address}/32"), "via", &self.address.to_string(), "dev", &self.link]).ok();
    }

    /// A program in the outside's network namespace.
    pub fn run(&self, program: &str) -> Run {
        Run::new("ip").args(["netns", "exec", &self.namespace, program])
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The far end takes the near one along.
        let _ = Run::new("ip").args(["-n", &self.namespace, "link", "delete", "out"]).output_within();
        let _ = Run::new("ip").args(["netns", "delete", &self.namespace]).output_within();
    }
}

/// A small TCP server and the clients that it saw.
#[derive(Clone)]
pub struct Peers {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Peers {
    /// Serves until the test's process ends.
    #[track_caller]
    pub fn serve(listener: TcpListener) -> Self {
        let peers = Self { address: listener.local_addr().expect("address"), seen: Arc::default() };
        let seen = Arc::clone(&peers.seen);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Ok(peer) = stream.peer_addr() else { continue };
                seen.lock().expect("lock").push(peer);
                let _ = stream.write_all(format!("hello {}\n", peer.ip()).as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                thread::spawn(move || stream.read(&mut [0; 64]));
            }
        });
        peers
    }

    pub fn seen(&self) -> Vec<SocketAddr> {
        self.seen.lock().expect("lock").clone()
    }
}

/// What a connection from inside a berth is answered; `None` when there is none within three seconds.
#[track_caller]
pub fn reach(berth: &Berth, address: &str, port: u16) -> Option<String> {
    let output = berth.exec(&["timeout", "3", "bash", "-c", &format!("cat < /dev/tcp/{address}/{port}")]).output();
    (output.success() && !output.stdout.is_empty()).then(|| output.stdout.trim().to_owned())
}

/// The same from an inner container.
#[track_caller]
pub fn reach_from_container(berth: &Berth, address: &str, port: u16) -> Option<String> {
    let ran = berth.docker_run(&[], &format!("nc -w 3 {address} {port} < /dev/null"));
    (ran.success() && !ran.stdout.is_empty()).then(|| ran.stdout.trim().to_owned())
}

/// Tries many addresses at once, from inside and from an inner container; those that answered.
#[track_caller]
pub fn reached(berth: &Berth, addresses: &[String], port: u16) -> Vec<String> {
    let all = addresses.join(" ");
    let inside =
        format!("for a in {all}; do ( timeout 1 bash -c \"cat < /dev/tcp/$a/{port}\" 2>/dev/null | sed \"s/^/$a: /\" ) & done; wait");
    let container = format!("for a in {all}; do ( nc -w 1 $a {port} < /dev/null 2>/dev/null | sed \"s/^/container: $a: /\" ) & done; wait");
    let (inside, container) = (berth.exec(&["bash", "-c", &inside]).ok(), berth.docker_run(&[], &container));
    assert!(container.success(), "{container:?}");
    inside.lines().chain(container.stdout.lines()).map(str::to_owned).collect()
}

//! Published ports, as far as the node has a part in them: strangers are kept from a port before its shim serves it, for as long as it does.
//!
//! A shim is believed only what it shows: the socket that holds the port on the host's 127.0.0.1. The node keeps it too, so that as long as
//! a guard stands nobody else can have the port behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use berth_protocol::{HostPort, OpenTo, PublishedPort};
use berth_runtime::{error::chain, net, net::nft::Guard};
use rustix::net::{SocketType, getsockname, sockopt};
use tokio::time::sleep_until;

use super::owner::{Life, Owner};
use crate::link::{FromShim, Guarded, ToShim};

/// What a shim may take for an answer that needs no work.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Least time between two changes of the firewall for one berth.
const PACE: Duration = Duration::from_millis(200);
/// When what failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Most ports that one berth may have guarded.
const MOST: usize = 256;
/// Most taken ports that a condition names.
const MOST_NAMED: usize = 5;
/// Below are root's own.
const FIRST: u16 = 1024;

/// What a running berth publishes.
pub(super) struct Published {
    pub(super) ports: Vec<PublishedPort>,
    /// When the firewall is to follow the ports; `None`: it does.
    due: Option<Instant>,
    /// When it last did.
    last: Option<Instant>,
    /// Guarded ports, and the sockets that hold them.
    held: BTreeMap<Guarded, OwnedFd>,
}

impl Published {
    pub(super) fn new(ports: Vec<PublishedPort>) -> Box<Self> {
        Box::new(Self { ports, due: Some(Instant::now()), last: None, held: BTreeMap::new() })
    }
}

/// Returns when the firewall is to follow the ports of a running berth.
pub(super) async fn changed(life: &Life) {
    match life {
        Life::Running(running) if running.ports.due.is_some() => sleep_until(running.ports.due.unwrap_or_else(Instant::now).into()).await,
        _ => std::future::pending().await,
    }
}

impl Owner {
    /// Takes in what the shim says of its ports.
    pub(super) fn ports_told(&mut self, ports: Vec<PublishedPort>) {
        let Life::Running(running) = &mut self.life else { return };
        let next = running.ports.last.map_or_else(Instant::now, |last| last + PACE);
        running.ports.due.get_or_insert(next);
        running.ports.ports = ports;
        self.name_taken();
    }

    /// The condition that names ports which something else has.
    pub(super) fn name_taken(&mut self) {
        let Life::Running(running) = &self.life else { return };
        match taken(&running.ports.ports) {
            Some(message) => self.condition("PortTaken", message),
            None => self.clear("PortTaken"),
        }
    }

    /// Makes the firewall follow the ports, and tells the shim which may open.
    pub(super) async fn guard_ports(&mut self) {
        let done = self.guard_ports_now().await;
        let Life::Running(running) = &mut self.life else { return };
        running.ports.last = Some(Instant::now());
        match done {
            Ok(()) => self.clear("PortsNotGuarded"),
            Err(why) => {
                running.ports.due = Some(Instant::now() + AGAIN);
                self.condition("PortsNotGuarded", format!("published ports do not open on the host: {why}"));
            }
        }
    }

    async fn guard_ports_now(&mut self) -> Result<(), String> {
        let Life::Running(running) = &mut self.life else { return Ok(()) };
        running.ports.due = None;
        let (wanted, pending) = match self.record.policy.ports.open_to {
            OpenTo::User => wanted(&running.ports.ports),
            OpenTo::Host => Default::default(),
        };
        // Kept until the guards are gone: whoever gets the port next is not to be behind them.
        let (held, gone) = std::mem::take(&mut running.ports.held).into_iter().partition::<BTreeMap<_, _>, _>(|(p, _)| wanted.contains(p));
        running.ports.held = held;
        let ask: Vec<Guarded> = wanted.into_iter().filter(|p| pending.contains(p) || !running.ports.held.contains_key(p)).collect();
        for port in ask {
            let (answer, descriptors) =
                self.ask_shim(&ToShim::Held(port.clone()), ANSWER_DEADLINE).await.map_err(|e| format!("its shim: {e}"))?;
            let Life::Running(running) = &mut self.life else { return Ok(()) };
            let shown = match (answer, descriptors.into_iter().next()) {
                (FromShim::Fd, Some(socket)) => socket,
                // Let go of meanwhile, which an event tells.
                _ => {
                    running.ports.held.remove(&port);
                    continue;
                }
            };
            if !holds(&shown, &port).unwrap_or(false) {
                running.ports.held.remove(&port);
                tracing::warn!(user = self.record.user, ?port, "its shim shows a socket that does not hold this port");
                continue;
            }
            running.ports.held.insert(port, shown);
        }
        let Life::Running(running) = &self.life else { return Ok(()) };
        let ports: Vec<Guarded> = running.ports.held.keys().cloned().collect();
        let (owner, shim) = (self.record.uid, self.record.id_base);
        let guards: Vec<Guard> = ports.iter().map(|p| Guard { protocol: p.protocol.clone(), port: p.port, owner, shim }).collect();
        self.blocking(move |host| host.guard(shim, &guards)).await.map_err(|e| chain(&e))?;
        drop(gone);
        if !pending.is_empty() {
            self.ask_shim(&ToShim::Guarded { ports }, ANSWER_DEADLINE).await.map_err(|e| format!("its shim: {e}"))?;
        }
        Ok(())
    }
}

/// Ports that are or want to be open, and those of them that wait.
fn wanted(ports: &[PublishedPort]) -> (BTreeSet<Guarded>, BTreeSet<Guarded>) {
    let valid = |p: &&PublishedPort| p.port >= FIRST && ["tcp", "udp"].contains(&p.protocol.as_str());
    let of = |states: &[HostPort]| -> BTreeSet<Guarded> {
        let ports = ports.iter().take(MOST).filter(valid).filter(|p| states.contains(&p.host));
        ports.map(|p| Guarded { protocol: p.protocol.clone(), port: p.port }).collect()
    };
    (of(&[HostPort::Open, HostPort::Pending]), of(&[HostPort::Pending]))
}

/// True when a socket holds a port of the host's 127.0.0.1.
fn holds(socket: &OwnedFd, port: &Guarded) -> io::Result<bool> {
    let kind = if port.protocol == "tcp" { SocketType::STREAM } else { SocketType::DGRAM };
    let address = SocketAddrV4::try_from(getsockname(socket)?).ok();
    let right = sockopt::socket_type(socket)? == kind && address == Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.port));
    Ok(right && net::on_this_network(socket.as_fd())?)
}

fn taken(ports: &[PublishedPort]) -> Option<String> {
    let mut all = ports.iter().filter_map(|p| match &p.host {
        HostPort::Taken { detail } => Some(format!("{}/{} of {}: {detail}", p.port, p.protocol, p.container)),
        _ => None,
    });
    let mut named = all.by_ref().take(MOST_NAMED).collect::<Vec<_>>();
    let more = all.count();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    (!named.is_empty()).then(|| format!("published ports that are taken on the host's 127.0.0.1: {}", named.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn port(port: u16, host: HostPort) -> PublishedPort {
        PublishedPort { protocol: "tcp".into(), port, container: "web".into(), container_port: 80, host }
    }

    #[test]
    fn h03_taken_ports_are_named_and_only_those_that_can_open_are_guarded() {
        let detail = "a process of root has it".to_owned();
        let ports = [
            port(8080, HostPort::Open),
            port(8081, HostPort::Pending),
            port(8082, HostPort::Taken { detail }),
            port(80, HostPort::Pending),
            PublishedPort { protocol: "x } delete table inet berth".into(), ..port(8083, HostPort::Pending) },
        ];
        let numbers = |set: &BTreeSet<Guarded>| set.iter().map(|g| g.port).collect::<Vec<_>>();
        let (wanted, pending) = wanted(&ports);
        assert_eq!((numbers(&wanted), numbers(&pending)), (vec![8080, 8081], vec![8081]));
        let message = taken(&ports).unwrap();
        assert!(message.ends_with("127.0.0.1: 8082/tcp of web: a process of root has it"), "{message}");
        assert_eq!(taken(&ports[..2]), None);
    }

    #[test]
    fn n06_a_socket_proves_only_the_port_that_it_holds() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let datagram = UdpSocket::bind(("127.0.0.1", number)).ok();
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        let (tcp, udp) = (Guarded { protocol: "tcp".into(), port: number }, Guarded { protocol: "udp".into(), port: number });
        let other = Guarded { protocol: "tcp".into(), port: any.local_addr().unwrap().port() };
        let listener = OwnedFd::from(listener);
        assert!(holds(&listener, &tcp).unwrap());
        assert!(!holds(&listener, &udp).unwrap());
        assert!(!holds(&listener, &other).unwrap());
        assert!(!holds(&OwnedFd::from(any), &other).unwrap());
        if let Some(datagram) = datagram {
            assert!(holds(&OwnedFd::from(datagram), &udp).unwrap());
        }
        assert!(holds(&std::fs::File::open("/dev/null").unwrap().into(), &tcp).is_err());
    }
}

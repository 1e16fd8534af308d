//! Published container ports on the host's 127.0.0.1 (H03), for the user and root only (N06).
//!
//! ```text
//!             bound            the node holds the socket too, and has told the firewall            the container goes
//!  (nothing) ───────► pending ────────────────────────────────────────────────────────────► open ──────────────────► (nothing)
//!      │                 ▲ (at once open, where the profile opens ports to the whole host)
//!      └──► taken ───────┘ free again
//! ```
//!
//! The shim binds and does not listen; the node, which takes no port from anybody who does not hold it ([`Board::show`]), keeps strangers
//! from it; only then it is served. `[::1]` at the same port is reserved and never served, so that no stranger's service stands behind
//! `localhost`. What is served goes to the berth's own address, over the berth's own link and nowhere else; or, where it is published at
//! 127.0.0.1 inside, to that, through sockets of the berth's own network ([`inside`]).

mod bind;
mod board;
mod dial;
mod holder;
mod inside;
mod tcp;
mod udp;

use std::{collections::BTreeMap, net::Ipv4Addr, os::fd::OwnedFd, sync::Arc, time::Duration};

use berth_protocol::{HostPort, OpenTo, Ports as Rules, PublishedPort};
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    docker::{Protocol, Published, Reach},
    pipe::Pool,
    sleep::Sleeper,
    state::State,
};
use crate::link::Event;
use bind::{Bound, Refused};
pub(crate) use board::Board;
pub(crate) use dial::Dialer;
use holder::Holder;
pub(crate) use inside::Inside;

/// Most published ports that are looked after; more are reachable at the berth's address only.
const MOST: usize = 200;
/// TCP connections, and UDP clients, at once in one berth.
pub(crate) const CONNECTIONS: usize = 512;
/// Descriptors that ports may take: four for each port, two for each connection, one for each UDP client, and those to the loopback inside.
pub(crate) const DESCRIPTORS: u64 = (4 * MOST + 3 * CONNECTIONS + berth_runtime::net::DATAGRAMS + 4) as u64;
/// How often a taken port is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// The same while it is only the node that has not let go of it yet.
const RETRY_SOON: Duration = Duration::from_millis(250);
/// No capability to bind below.
const FIRST: u16 = 1024;

pub(super) type Key = (Protocol, u16);

/// What the tasks of all ports share.
pub(super) struct Shared {
    state: Arc<State>,
    sleeper: Arc<Sleeper>,
    dialer: Dialer,
    pipes: Pool,
    connections: Arc<Semaphore>,
    flows: Arc<Semaphore>,
}

/// The ports of one berth.
pub(crate) struct Ports {
    shared: Arc<Shared>,
    /// Uid of the user, and of this process.
    owner: u32,
    own: u32,
    address: Ipv4Addr,
    published: watch::Receiver<Vec<Published>>,
    ports: BTreeMap<Key, Port>,
    told: bool,
}

struct Port {
    reach: Reach,
    state: Stage,
}

enum Stage {
    NotAllowed(String),
    Taken(Holder),
    Pending(Bound),
    Open { bound: Bound, _task: AbortOnDropHandle<()> },
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Stage::Pending(bound) | Stage::Open { bound, .. } = self {
            bound.close();
        }
    }
}

impl Ports {
    pub(crate) fn new(
        state: Arc<State>,
        sleeper: Arc<Sleeper>,
        dialer: Dialer,
        owner: u32,
        own: u32,
        published: watch::Receiver<Vec<Published>>,
    ) -> Self {
        let address = dialer.address;
        let shared = Shared {
            state,
            sleeper,
            dialer,
            pipes: Pool::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            flows: Arc::new(Semaphore::new(CONNECTIONS)),
        };
        Self { shared: Arc::new(shared), owner, own, address, published, ports: BTreeMap::new(), told: false }
    }

    /// Looks after them for ever.
    pub(crate) async fn serve(mut self) {
        let shared = Arc::clone(&self.shared);
        let board = &shared.state.ports;
        let (mut rules, mut rest) = (board.rules(), shared.sleeper.watch());
        let mut in_force = (*rules.borrow_and_update(), false);
        loop {
            let now = (*rules.borrow_and_update(), rest.borrow_and_update().suspended().is_some());
            if now != in_force {
                // What was open under other rules is closed first, its connections too.
                self.ports.clear();
                in_force = now;
            }
            self.settle(in_force.0, in_force.1);
            self.tell();
            let retry = self.retry();
            tokio::select! {
                changed = self.published.changed() => if changed.is_err() { return },
                _ = rules.changed() => {}
                _ = rest.changed() => {}
                () = board.guarded() => {}
                () = async { match retry { Some(retry) => sleep(retry).await, None => std::future::pending().await } } => {}
            }
        }
    }

    /// Makes the ports what they can be now.
    fn settle(&mut self, rules: Rules, suspended: bool) {
        let published = self.published.borrow_and_update().clone();
        if published.len() > MOST && !std::mem::replace(&mut self.told, true) {
            tracing::warn!(most = MOST, published = published.len(), "more ports are published than are brought to the host");
        }
        let wanted: BTreeMap<Key, Reach> = published.iter().take(MOST).map(|p| ((p.protocol, p.port), p.reach)).collect();
        // First what goes: a port may be wanted again at once, differently.
        self.ports.retain(|key, port| wanted.get(key) == Some(&port.reach));
        let board = &self.shared.state.ports;
        board.keep(|key| matches!(self.ports.get(key), Some(Port { state: Stage::Pending(_) | Stage::Open { .. }, .. })));
        for (&key, &reach) in &wanted {
            let known = self.ports.remove(&key).map(|port| port.state);
            let state = match known {
                Some(held @ (Stage::Pending(_) | Stage::Open { .. })) => held,
                _ => self.hold(key, rules, suspended),
            };
            let state = match state {
                Stage::Pending(_) if rules.open_to == OpenTo::Host || board.is_guarded(key) => self.open(key, reach, state),
                other => other,
            };
            self.ports.insert(key, Port { reach, state });
        }
    }

    fn hold(&self, key: Key, rules: Rules, suspended: bool) -> Stage {
        if suspended {
            return Stage::NotAllowed("closed while the berth is suspended".into());
        }
        if let Some(reason) = not_allowed(key.1, rules) {
            return Stage::NotAllowed(reason);
        }
        let bound = match Bound::new(key) {
            Ok(bound) => bound,
            Err(Refused::Taken) => return Stage::Taken(Holder::find(key)),
            Err(Refused::Failed(error)) => return Stage::NotAllowed(format!("this host refuses it ({error})")),
        };
        match bound.share() {
            Ok(shown) => self.shared.state.ports.hold(key, shown),
            Err(error) => return Stage::NotAllowed(format!("this host refuses it ({error})")),
        }
        Stage::Pending(bound)
    }

    /// Serves a pending port from now on.
    fn open(&self, key: Key, reach: Reach, mut state: Stage) -> Stage {
        let Stage::Pending(bound) = &mut state else { return state };
        let served = match bound.open() {
            Ok(socket) => socket,
            Err(_) => return Stage::Taken(Holder::find(key)),
        };
        let task = match self.task(key, reach, served) {
            Ok(task) => AbortOnDropHandle::new(task),
            Err(error) => return Stage::NotAllowed(format!("this host refuses it ({error})")),
        };
        Stage::Open { bound: bound.take(), _task: task }
    }

    fn task(&self, (protocol, port): Key, reach: Reach, socket: OwnedFd) -> std::io::Result<tokio::task::JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        Ok(match protocol {
            Protocol::Tcp => tokio::spawn(tcp::serve(crate::descriptor::watch_socket(socket)?, shared, port, reach)),
            Protocol::Udp => tokio::spawn(udp::serve(udp::socket(socket)?, shared, port, reach)),
        })
    }

    fn retry(&self) -> Option<Duration> {
        let holders = self.ports.values().filter_map(|port| match &port.state {
            Stage::Taken(holder) => Some(*holder),
            _ => None,
        });
        holders.map(|holder| if holder == Holder::Uid(self.own) { RETRY_SOON } else { RETRY }).min()
    }

    /// Tells how things stand, when that is news.
    fn tell(&self) {
        let published = self.published.borrow();
        let ports: Vec<PublishedPort> = published.iter().filter_map(|p| self.shown(p)).collect();
        let news = self.shared.state.containers.send_if_modified(|known| {
            let news = known.ports != ports;
            known.ports.clone_from(&ports);
            news
        });
        if news {
            self.shared.state.tell(Event::Ports { ports });
        }
    }

    fn shown(&self, published: &Published) -> Option<PublishedPort> {
        let port = self.ports.get(&(published.protocol, published.port))?;
        let host = match &port.state {
            Stage::NotAllowed(detail) => HostPort::NotAllowed { detail: detail.clone() },
            Stage::Taken(holder) => {
                HostPort::Taken { detail: holder.sentence(self.owner, self.own, (published.port, port.reach), self.address) }
            }
            Stage::Pending(_) => HostPort::Pending,
            Stage::Open { .. } => HostPort::Open,
        };
        Some(PublishedPort {
            protocol: published.protocol.name().into(),
            port: published.port,
            container: published.container.clone(),
            container_port: published.container_port,
            host,
        })
    }
}

/// Why the profile, or the kernel, keeps a port from the host.
fn not_allowed(port: u16, rules: Rules) -> Option<String> {
    match rules.range {
        None => Some("the profile keeps published ports off the host".into()),
        Some((first, last)) if !(first..=last).contains(&port) => Some(format!("the profile allows {first}-{last} on the host")),
        Some(_) if port < FIRST => Some(format!("ports below {FIRST} of the host are root's")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;

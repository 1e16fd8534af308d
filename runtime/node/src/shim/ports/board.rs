use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use berth_protocol::Ports as Rules;
use tokio::sync::{Notify, watch};

use super::Key;
use crate::{link::Guarded, shim::docker::Protocol};

/// Where the node's word meets the ports: the rules, which sockets the node has been shown, and which of those it guards.
#[derive(Debug, Default)]
pub(crate) struct Board {
    rules: watch::Sender<Rules>,
    held: Mutex<BTreeMap<Key, Held>>,
    changed: Notify,
}

#[derive(Debug)]
struct Held {
    socket: OwnedFd,
    /// A word about a socket that was there before, at the same port, is not about this one.
    shown: bool,
    guarded: bool,
}

impl Board {
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.rules.send_if_modified(|known| std::mem::replace(known, rules) != rules);
    }

    pub(super) fn rules(&self) -> watch::Receiver<Rules> {
        self.rules.subscribe()
    }

    /// The socket that holds a port, for the node to see for itself.
    pub(crate) fn show(&self, port: &Guarded) -> Option<OwnedFd> {
        let mut held = self.held();
        let held = held.get_mut(&key(port)?)?;
        held.shown = true;
        held.socket.try_clone().ok()
    }

    /// The host's firewall keeps strangers from these.
    pub(crate) fn set_guarded(&self, ports: &[Guarded]) {
        let mut held = self.held();
        for port in ports.iter().filter_map(key) {
            if let Some(held) = held.get_mut(&port) {
                held.guarded = held.shown;
            }
        }
        drop(held);
        self.changed.notify_one();
    }

    /// Returns after [`Board::set_guarded`]; one call that came meanwhile is not missed.
    pub(super) async fn guarded(&self) {
        self.changed.notified().await;
    }

    pub(super) fn is_guarded(&self, key: Key) -> bool {
        self.held().get(&key).is_some_and(|held| held.guarded)
    }

    pub(super) fn hold(&self, key: Key, socket: OwnedFd) {
        self.held().insert(key, Held { socket, shown: false, guarded: false });
    }

    pub(super) fn keep(&self, wanted: impl Fn(&Key) -> bool) {
        self.held().retain(|key, _| wanted(key));
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(port: &Guarded) -> Option<Key> {
    Some((Protocol::parse(&port.protocol)?, port.port))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn n06_a_word_about_the_socket_before_does_not_open_the_one_after() {
        let board = Board::default();
        let port = Guarded { protocol: "tcp".into(), port: 8080 };
        let key = (Protocol::Tcp, 8080);
        let socket = || OwnedFd::from(File::open("/dev/null").unwrap());
        assert!(board.show(&port).is_none());
        board.hold(key, socket());
        board.set_guarded(std::slice::from_ref(&port));
        assert!(!board.is_guarded(key), "nobody looked at it");
        assert!(board.show(&port).is_some());
        board.set_guarded(std::slice::from_ref(&port));
        assert!(board.is_guarded(key));
        board.hold(key, socket());
        board.set_guarded(std::slice::from_ref(&port));
        assert!(!board.is_guarded(key), "it is another one");
        board.keep(|_| false);
        assert!(board.show(&port).is_none());
    }
}

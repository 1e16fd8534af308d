use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::Ipv4Addr,
};

use berth_runtime::idmap;

use super::Key;
use crate::shim::docker::{Protocol, Reach};

/// Most bytes of a table of sockets that are read; listening ones come first.
const MOST_TABLE: u64 = 4 << 20;
/// proc_net(5): state of a listening TCP socket.
const LISTENING: &str = "0A";
/// Any address, 127.0.0.1 and their like in the tables of both families.
const LOOPBACK: [&str; 6] = [
    "0100007F",
    "00000000",
    "00000000000000000000000000000000",
    "00000000000000000000000001000000",
    "0000000000000000FFFF00000100007F",
    "0000000000000000FFFF000000000000",
];

/// Who has a port of 127.0.0.1 or ::1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Uid(u32),
    /// It is bound, and not served.
    Unknown,
}

impl Holder {
    pub(super) fn find((protocol, port): Key) -> Self {
        let tables = match protocol {
            Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
            Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        };
        let found = tables.into_iter().find_map(|table| {
            let lines = BufReader::new(File::open(table).ok()?.take(MOST_TABLE)).lines();
            lines.map_while(Result::ok).find_map(|line| uid(&line, protocol, port))
        });
        found.map_or(Holder::Unknown, Holder::Uid)
    }

    /// What the owner of a berth may know of it. `own` is the first id of his berth.
    pub(super) fn sentence(self, owner: u32, own: u32, (port, reach): (u16, Reach), address: Ipv4Addr) -> String {
        let who = match self {
            Holder::Uid(uid) if uid == owner => "a process of your own on this host has it",
            Holder::Uid(uid) if uid == own => "it is just being closed",
            Holder::Uid(0) => "a process of root has it",
            // Ranges begin at multiples of their size.
            Holder::Uid(uid) if uid >= idmap::COUNT && uid % idmap::COUNT == own % idmap::COUNT => "another berth has it",
            Holder::Uid(_) => "another user's process has it",
            Holder::Unknown => "something has reserved it",
        };
        match reach {
            Reach::Berth => format!("{who}; the container is reachable at {address}:{port}"),
            Reach::Loopback => format!("{who}; published without 127.0.0.1 the container is reachable at {address}:{port}"),
        }
    }
}

/// The uid of a line of proc_net(5) that has `port` of the loopback address.
fn uid(line: &str, protocol: Protocol, port: u16) -> Option<u32> {
    let mut words = line.split_whitespace();
    let (address, local_port) = words.nth(1)?.split_once(':')?;
    let state = words.nth(1)?;
    let served = protocol == Protocol::Udp || state == LISTENING;
    let here = served && u16::from_str_radix(local_port, 16) == Ok(port) && LOOPBACK.contains(&address);
    here.then(|| words.nth(3)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn the_holder_is_found_in_the_kernels_tables() {
        let me = nix::unistd::getuid().as_raw();
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "[::ffff:127.0.0.1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert_eq!(Holder::find((Protocol::Tcp, port)), Holder::Uid(me), "{address}");
            let socket = UdpSocket::bind(address).unwrap();
            let port = socket.local_addr().unwrap().port();
            assert_eq!(Holder::find((Protocol::Udp, port)), Holder::Uid(me), "{address}");
        }
        assert_eq!(Holder::find((Protocol::Tcp, 0)), Holder::Unknown);
    }

    #[test]
    fn h03_the_holder_is_named_as_far_as_the_user_may_know() {
        let at = |reach| move |holder: Holder| holder.sentence(1000, 2_000_224_256, (8080, reach), Ipv4Addr::new(10, 213, 0, 9));
        let said = at(Reach::Berth);
        assert!(said(Holder::Uid(1000)).starts_with("a process of your own"));
        assert!(said(Holder::Uid(0)).starts_with("a process of root"));
        assert!(said(Holder::Uid(1001)).starts_with("another user's process"));
        assert!(said(Holder::Uid(2_000_224_256 + 65536)).starts_with("another berth"));
        assert!(said(Holder::Unknown).ends_with("; the container is reachable at 10.213.0.9:8080"));
        assert!(at(Reach::Loopback)(Holder::Unknown).contains("published without 127.0.0.1"));
    }
}

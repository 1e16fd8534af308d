//! Whose a connection from this very host is. All users of a shared host come from 127.0.0.1: counted by address, one of them could keep
//! all others out of the dashboard, and administrators from signing in.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The uid that holds the other end (`peer`) of a connection to `ours`, as the kernel lists it: /proc/net/tcp, tcp6, proc_pid_net(5).
pub(super) fn owner(peer: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
    for (file, ends) in [("/proc/net/tcp", [four(peer), four(ours)]), ("/proc/net/tcp6", [Some(six(peer)), Some(six(ours))])] {
        let [Some(local), Some(remote)] = ends else { continue };
        // Without IPv6 there is no such file.
        let Ok(file) = File::open(file) else { continue };
        if let Some(uid) = search(BufReader::new(file), &local, &remote)? {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

/// Columns: number, local address, remote address, state, queues, timer, retransmissions, uid.
fn search(list: impl BufRead, local: &str, remote: &str) -> io::Result<Option<u32>> {
    for line in list.lines() {
        let line = line?;
        let mut columns = line.split_ascii_whitespace().skip(1);
        if columns.next() == Some(local) && columns.next() == Some(remote) {
            return Ok(columns.nth(4).and_then(|uid| uid.parse().ok()));
        }
    }
    Ok(None)
}

fn four(end: SocketAddr) -> Option<String> {
    match end.ip().to_canonical() {
        IpAddr::V4(ip) => Some(format!("{}:{:04X}", word(ip.octets()), end.port())),
        IpAddr::V6(_) => None,
    }
}

fn six(end: SocketAddr) -> String {
    let ip: Ipv6Addr = match end.ip() {
        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip),
        IpAddr::V6(ip) => ip,
    };
    let octets = ip.octets();
    let (words, _) = octets.as_chunks::<4>();
    format!("{}:{:04X}", words.iter().map(|octets| word(*octets)).collect::<String>(), end.port())
}

/// As the kernel prints what it holds in the network's order: a word of this machine.
fn word(octets: [u8; 4]) -> String {
    format!("{:08X}", u32::from_ne_bytes(octets))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_names_the_owner_of_the_other_end() {
        let own = nix::unistd::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A host may be without IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_server, peer) = listener.accept().unwrap();
            assert_eq!(owner(peer, listener.local_addr().unwrap()).unwrap(), Some(own), "{address}");
            assert_eq!(peer, client.local_addr().unwrap());
            let mut other = peer;
            other.set_port(peer.port() ^ 1);
            assert_eq!(owner(other, listener.local_addr().unwrap()).unwrap(), None);
        }
    }

    #[test]
    fn the_line_of_another_connection_is_not_taken() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                       0: 0100007F:2116 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 1 1\n\
                       1: 0100007F:C350 0100007F:2116 01 00000000:00000000 00:00000000 00000000  1000        0 2 1\n";
        let find = |local, remote| search(list.as_bytes(), local, remote).unwrap();
        assert_eq!(find("0100007F:C350", "0100007F:2116"), Some(1000));
        assert_eq!(find("0100007F:2116", "0100007F:C350"), None);
    }
}

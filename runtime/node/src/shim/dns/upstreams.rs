//! Where queries go: the configured resolvers, or those of the host's resolv.conf as it is now.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// As many as the C library takes from resolv.conf.
const MOST: usize = 3;

/// The upstream resolvers of one shim.
#[derive(Debug)]
pub(crate) struct Upstreams {
    configured: Vec<SocketAddr>,
    file: PathBuf,
    read: Mutex<Option<(Stamp, Vec<SocketAddr>)>>,
    /// How many times a resolver failed: which of them is asked first.
    turn: AtomicUsize,
}

/// Tells one version of a file from the next: device, inode, size, time of change.
type Stamp = (u64, u64, u64, i64, i64);

impl Upstreams {
    /// `configured` may be empty: then the name servers in `file` count.
    pub(crate) fn new(configured: Vec<SocketAddr>, file: PathBuf) -> Self {
        Self { configured, file, read: Mutex::new(None), turn: AtomicUsize::new(0) }
    }

    /// The resolvers in the order to ask them; empty when there is none.
    pub(crate) fn list(&self) -> Vec<SocketAddr> {
        let mut list = if self.configured.is_empty() { self.of_the_host() } else { self.configured.clone() };
        if !list.is_empty() {
            let first = self.turn.load(Ordering::Relaxed) % list.len();
            list.rotate_left(first);
        }
        list
    }

    /// The first of the list did not answer: the next query begins with the one after it.
    pub(crate) fn turn_away(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    fn of_the_host(&self) -> Vec<SocketAddr> {
        let Ok(meta) = fs::metadata(&self.file) else { return Vec::new() };
        let stamp = (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((known, list)) if *known == stamp => list.clone(),
            _ => {
                let list = fs::read_to_string(&self.file).map(|text| parse(&text)).unwrap_or_default();
                *read = Some((stamp, list.clone()));
                list
            }
        }
    }
}

/// Name servers of a resolv.conf(5).
fn parse(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = (words.next()? == "nameserver").then(|| words.next())??.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    servers.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n03_the_hosts_resolvers_are_read_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let upstreams = Upstreams::new(Vec::new(), file.clone());
        assert!(upstreams.list().is_empty());
        fs::write(&file, "# made by hand\nsearch example.org\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1\n").unwrap();
        let (first, second): (SocketAddr, SocketAddr) = ("127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap());
        assert_eq!(upstreams.list(), [first, second]);
        upstreams.turn_away();
        assert_eq!(upstreams.list(), [second, first]);
        fs::write(&file, "nameserver 9.9.9.9\nnameserver 1.1.1.1\n").unwrap();
        assert_eq!(upstreams.list().len(), 2);
        assert!(!upstreams.list().contains(&first));
    }
}

//! Network of a berth: a veth pair routed point to point, one address, no bridge, no ARP; nft in a table of our own.

pub mod firewalls;
pub mod forwarding;
pub mod link;
mod loopback;
mod netlink;
pub mod nft;
pub mod rates;
pub mod source_ports;

use std::{
    fmt, fs,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    str::FromStr,
};

use berth_sys::socket::network_cookie;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Step};
pub use loopback::{DATAGRAMS, DOOR, Loopback};

/// Next hop as seen from inside; every berth has the same, on its own link.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Where the shim answers DNS inside a berth. Not loopback, so that inner containers are handed it too.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 53);
/// Hardware addresses of the host end and the inner end, the same on every (private) pair.
pub const HOST_MAC: [u8; 6] = [0x02, 0xbe, 0x27, 0, 0, 1];
pub const INNER_MAC: [u8; 6] = [0x02, 0xbe, 0x27, 0, 0, 2];

/// The link of one berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Host end, at most 15 bytes: `bt7`.
    pub name: String,
    /// The berth's own address, a /32.
    pub address: Ipv4Addr,
    #[serde(default)]
    pub rates: rates::Rates,
}

/// Pools to pick from: private ranges that hosts and Docker seldom use.
const POOLS: [&str; 6] = ["10.213.0.0/16", "10.117.0.0/16", "172.29.0.0/16", "10.86.0.0/16", "172.24.0.0/16", "192.168.192.0/18"];
/// Pools for the inner Docker's own networks, in the order in which they are tried.
const INNER_POOLS: [&str; 5] = ["172.17.0.0/16", "172.18.0.0/16", "172.20.0.0/16", "172.26.0.0/16", "192.168.128.0/18"];

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Network {
    /// True when every address of `other` is one of this.
    pub fn holds(self, other: Network) -> bool {
        self.prefix <= other.prefix && self.overlaps(other)
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// True when the two share an address.
    pub fn overlaps(self, other: Network) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.base) & mask == u32::from(other.base) & mask
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("{text:?} is no IPv4 network; write it like 10.213.0.0/16"));
        let (base, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let network = Network { base: base.parse().map_err(|_| invalid())?, prefix: prefix.parse().map_err(|_| invalid())? };
        let clean = network.prefix <= 32 && u32::from(network.base) & !network.mask() == 0;
        if clean { Ok(network) } else { Err(invalid()) }
    }
}

/// True when a socket is of the network namespace that the caller is in.
pub fn on_this_network(socket: BorrowedFd<'_>) -> std::io::Result<bool> {
    let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(network_cookie(socket)? == network_cookie(own.as_fd())?)
}

/// The first pool for berths that no route of the host overlaps.
pub fn choose_pool() -> Result<String> {
    first_free(&POOLS, &host_routes()?).ok_or_else(|| {
        Error::Invalid(format!("the host has routes into every candidate ({}); set network.pool in node.toml", POOLS.join(", ")))
    })
}

/// Pools for an inner Docker, which must not hide what the host routes to nor the berths' own pool.
pub fn docker_pools(berths: &str) -> Result<Vec<String>> {
    let mut taken = host_routes()?;
    taken.push(berths.parse()?);
    let free = INNER_POOLS.iter().filter(|p| p.parse::<Network>().is_ok_and(|p| !taken.iter().any(|t| t.overlaps(p))));
    Ok(free.map(|p| (*p).to_owned()).collect())
}

/// The address of the `index`-th berth (from 0) of a pool; the network's first two addresses stay unused.
pub fn address(pool: &str, index: u32) -> Result<Ipv4Addr> {
    let network: Network = pool.parse()?;
    let room = !network.mask();
    match index.checked_add(2) {
        Some(offset) if offset < room => Ok(Ipv4Addr::from(u32::from(network.base) + offset)),
        _ => Err(Error::Invalid(format!("address pool {pool} is used up; set a larger network.pool in node.toml"))),
    }
}

fn first_free(candidates: &[&str], taken: &[Network]) -> Option<String> {
    let free = |c: &&&str| c.parse::<Network>().is_ok_and(|c| !taken.iter().any(|t| t.overlaps(c)));
    candidates.iter().find(free).map(|c| (*c).to_owned())
}

/// IPv4 routes of the host, the default route left out.
fn host_routes() -> Result<Vec<Network>> {
    let text = fs::read_to_string("/proc/net/route").step("read", "/proc/net/route")?;
    Ok(parse_routes(&text))
}

/// proc(5): destination and mask are hexadecimal, in the host's (little endian) order.
fn parse_routes(text: &str) -> Vec<Network> {
    let field = |words: &[&str], index: usize| Some(u32::from_str_radix(words.get(index)?, 16).ok()?.swap_bytes());
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (base, mask) = (field(&words, 1)?, field(&words, 7)?);
        (mask != 0).then(|| Network { base: base.into(), prefix: mask.count_ones() as u8 })
    };
    text.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n02_a_pool_that_the_host_routes_to_is_passed_over() {
        let routes = parse_routes(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
             eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n\
             eth0\t0000D50A\t00000000\t0001\t0\t0\t0\t0000FFFF\n",
        );
        assert_eq!(routes, [Network { base: Ipv4Addr::new(10, 213, 0, 0), prefix: 16 }]);
        assert_eq!(first_free(&POOLS, &routes).as_deref(), Some("10.117.0.0/16"));
        let everything = Network { base: Ipv4Addr::new(0, 0, 0, 0), prefix: 0 };
        assert_eq!(first_free(&POOLS, &[everything]), None);
    }

    #[test]
    fn addresses_start_behind_the_network_and_end_with_it() {
        assert_eq!(address("10.213.0.0/16", 0).unwrap(), Ipv4Addr::new(10, 213, 0, 2));
        assert_eq!(address("10.213.0.0/30", 0).unwrap(), Ipv4Addr::new(10, 213, 0, 2));
        assert!(address("10.213.0.0/30", 1).is_err());
        assert!(address("10.213.0.1/16", 0).is_err());
    }
}

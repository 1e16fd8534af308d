//! Network of a berth: a veth pair routed point to point, one address, no bridge, no ARP; nft in a table of our own.

pub mod link;
pub mod nft;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

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
}

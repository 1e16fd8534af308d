//! Which source ports each berth leaves the host by: a block of its own, so that address, port and time name the user (N05).
//!
//! Blocks lie outside of the ports that the kernel gives to the host's own connections, and never below 1024. They are handed out from the
//! top, so that a host with few berths stays clear of the ports that services are known by.

use std::{collections::BTreeSet, fmt, fs, ops::RangeInclusive, str::FromStr};

use crate::error::{Error, Result};

/// The first port that is not root's own.
const FIRST: u16 = 1024;
/// Fewer are used up by one `docker pull` beside another.
pub const LEAST: u16 = 16;

/// First and last port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u16, pub u16);

impl Block {
    pub fn meets(self, other: Block) -> bool {
        self.0 <= other.1 && other.0 <= self.1
    }

    fn ports(self) -> RangeInclusive<u16> {
        self.0..=self.1
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for Block {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("{text:?} are no source ports; write them like 1024-32767, none below 1024"));
        let (first, last) = text.split_once('-').ok_or_else(invalid)?;
        let block = Block(first.trim().parse().map_err(|_| invalid())?, last.trim().parse().map_err(|_| invalid())?);
        if block.0 >= FIRST && block.0 <= block.1 { Ok(block) } else { Err(invalid()) }
    }
}

/// All blocks of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    range: Block,
    /// Ports of each block.
    size: u16,
}

impl Layout {
    /// `size` is at least [`LEAST`].
    pub fn new(range: Block, size: u16) -> Self {
        Self { range, size: size.max(LEAST) }
    }

    /// In the order in which they are handed out.
    pub fn blocks(&self) -> Vec<Block> {
        let count = (u32::from(self.range.1 - self.range.0) + 1) / u32::from(self.size);
        let block = |place: u32| {
            let last = self.range.1 - u16::try_from(place * u32::from(self.size)).ok()?;
            Some(Block(last - (self.size - 1), last))
        };
        (0..count).filter_map(block).collect()
    }

    /// The block for a new berth. `taken` are those of others; `avoid` is what the kernel gives to the host's own connections; ports that
    /// the host listens at are left alone while there are others.
    pub fn choose(&self, taken: &[Block], avoid: Option<Block>, listening: &BTreeSet<u16>) -> Result<Block> {
        let free = |b: &&Block| !taken.iter().chain(&avoid).any(|t| t.meets(**b));
        let blocks = self.blocks();
        let quiet = blocks.iter().filter(free).find(|b| listening.range(b.ports()).next().is_none());
        quiet.or_else(|| blocks.iter().find(free)).copied().ok_or_else(|| {
            let kept = avoid.map(|a| format!(" outside of the host's own {a}")).unwrap_or_default();
            Error::Invalid(format!(
                "no block of {} source ports is free in {}{kept}, {} berths have one: widen network.source_ports or lower \
                 network.source_ports_per_berth in node.toml",
                self.size,
                self.range,
                taken.len()
            ))
        })
    }
}

/// The ports that the kernel gives to connections of the host's own (`ip_local_port_range`).
pub fn host_range() -> Option<Block> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(str::parse);
    Some(Block(words.next()?.ok()?, words.next()?.ok()?))
}

/// Ports that something on the host has, at addresses that others reach.
pub fn listening() -> BTreeSet<u16> {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    ["tcp", "tcp6", "udp", "udp6"].iter().flat_map(|name| bound(&read(name), name.starts_with("tcp"))).collect()
}

/// proc(5): `sl local_address rem_address st`, addresses in hexadecimal; state `0A` listens.
fn bound(text: &str, tcp: bool) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let listens = !tcp || words.nth(1)? == "0A";
        // 127.0.0.0/8 and ::1, in the machine's order.
        let loopback = (address.len() == 8 && address.ends_with("7F")) || address == "00000000000000000000000001000000";
        (listens && !loopback).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    text.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Layout {
        Layout::new("1024-32767".parse().unwrap(), 128)
    }

    #[test]
    fn n05_blocks_never_meet_and_are_never_privileged() {
        let blocks = usual().blocks();
        assert_eq!((blocks.len(), blocks[0]), (248, Block(32_640, 32_767)));
        assert!(blocks.iter().all(|b| b.0 >= 1024 && b.1 - b.0 == 127));
        assert!(blocks.windows(2).all(|pair| !pair[0].meets(pair[1]) && pair[1] < pair[0]));
        assert!("1000-2000".parse::<Block>().is_err() && "2000-1024".parse::<Block>().is_err());
        assert_eq!(Layout::new(Block(1024, 65_535), 16).blocks().len(), 4032);
    }

    #[test]
    fn n05_a_block_is_nobody_elses_nor_the_hosts() {
        let (layout, none) = (usual(), BTreeSet::new());
        let host = Block(32_700, 60_999);
        assert_eq!(layout.choose(&[], Some(host), &none).unwrap(), Block(32_512, 32_639));
        // Whoever has ports of another layout keeps them.
        let taken = [Block(32_500, 32_512), Block(32_640, 32_700)];
        assert_eq!(layout.choose(&taken, None, &none).unwrap(), Block(32_256, 32_383));
        let mut all = Vec::new();
        while let Ok(block) = layout.choose(&all, None, &none) {
            all.push(block);
        }
        assert_eq!(all.len(), 248);
        let told = layout.choose(&all, None, &none).unwrap_err().to_string();
        assert!(told.contains("248 berths have one: widen network.source_ports"), "{told}");
    }

    #[test]
    fn n05_ports_that_the_host_listens_at_come_last() {
        let layout = Layout::new(Block(2000, 2047), 16);
        let listening = BTreeSet::from([2040, 2000]);
        let first = layout.choose(&[], None, &listening).unwrap();
        assert_eq!(first, Block(2016, 2031));
        assert_eq!(layout.choose(&[first], None, &listening).unwrap(), Block(2032, 2047));
        let text = "  sl  local_address rem_address   st\n   0: 00000000:1F90 00000000:0000 0A 0\n   1: 0100007F:1F91 00000000:0000 0A 0\n\
                    \x20  2: 0200000A:1F92 01020304:01BB 01 0\n";
        assert_eq!(bound(text, true), [0x1F90]);
        assert_eq!(bound(text, false), [0x1F90, 0x1F92]);
    }
}

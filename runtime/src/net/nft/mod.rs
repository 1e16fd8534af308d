//! The nft table of a node: source check, egress policies, isolation, NAT. One transaction each time, through `nft -f -`; other tables are
//! never touched here.

mod text;

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use super::{Network, source_ports::Block};
use crate::error::{Error, Result, Step};

/// Names that differ between two instances on one host.
#[derive(Clone, Debug)]
pub struct Table {
    /// `berth`, or `berth<instance>`.
    pub name: String,
    /// Host ends of all berths' links begin with it.
    pub link_prefix: String,
    /// All berths' addresses, CIDR.
    pub pool: String,
    /// We switched the host's forwarding on: then nothing but berths' packets may be forwarded.
    pub forwarding_is_ours: bool,
}

/// What the table knows of one berth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub link: String,
    pub address: Ipv4Addr,
    /// Host uid of the user, who alone (with root, and his shim for published ports) may connect to the berth's address.
    pub owner: u32,
    /// Host uid of the shim, the berth's base id; `None` while there is none.
    pub shim: Option<u32>,
    /// Every account of the host may connect.
    pub open: bool,
    pub egress: Egress,
    /// Source ports that it leaves the host by; without any it does not leave.
    pub source_ports: Option<Block>,
}

/// What a berth reaches; other berths never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Whatever the host reaches, and the host itself.
    All,
    /// What is nobody's private network; not the host.
    Internet,
    #[default]
    None,
    /// These networks, of which none holds another; the host too where one of its addresses is in them.
    List(Vec<Network>),
}

impl Egress {
    /// A list without what is in another of its networks anyway, which the kernel's sets would refuse.
    pub fn list(mut networks: Vec<Network>) -> Self {
        networks.sort_by_key(|n| (n.prefix, n.base));
        let mut least: Vec<Network> = Vec::new();
        for network in networks {
            if !least.iter().any(|l| l.holds(network)) {
                least.push(network);
            }
        }
        Self::List(least)
    }
}

/// A port of 127.0.0.1 that a shim holds for a container: only its user (and root) may send to it, only the shim may answer from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guard {
    /// `tcp` or `udp`.
    pub protocol: String,
    pub port: u16,
    /// Host uids.
    pub owner: u32,
    pub shim: u32,
}

/// Most connections that one berth may have in the host's tracking table, and which part of that table it is at most.
const CONNECTIONS: u32 = 16_384;
const PART: u32 = 16;

impl Table {
    /// Replaces the whole table by one with just these entries and guards, in one transaction. `blocks` are the source ports that berths
    /// may get while it stands.
    pub fn install(&self, blocks: &[Block], entries: &[Entry], guards: &[Guard]) -> Result<()> {
        let mut blocks = blocks.to_vec();
        blocks.extend(entries.iter().filter_map(|e| e.source_ports));
        blocks.sort();
        blocks.dedup();
        let mut elements = String::new();
        for entry in entries {
            elements.push_str(&self.elements("add", entry));
        }
        for guard in guards {
            elements.push_str(&self.guard_elements("add", guard));
        }
        let before = connections();
        run(&(self.text(&blocks, before) + &elements))?;
        // The first table of all is what brings the tracker, and its size.
        let bound = connections();
        if bound == before { Ok(()) } else { run(&(self.text(&blocks, bound) + &elements)) }
    }

    /// Gives a berth another policy at once, what is open included.
    pub fn egress(&self, address: Ipv4Addr, old: &Egress, new: &Egress) -> Result<()> {
        let (add, delete) = (self.egress_elements("add", address, old), self.egress_elements("delete", address, old));
        run(&(add + &delete + &self.egress_elements("add", address, new)))
    }

    /// Takes some guards away and adds others, in one transaction; gone or there already is success.
    pub fn guard(&self, remove: &[Guard], add: &[Guard]) -> Result<()> {
        let mut text = String::new();
        for guard in remove {
            text += &self.guard_elements("add", guard);
            text += &self.guard_elements("delete", guard);
        }
        for guard in add {
            text += &self.guard_elements("add", guard);
        }
        if text.is_empty() {
            return Ok(());
        }
        run(&text).or_else(|error| if add.is_empty() && !self.present()? { Ok(()) } else { Err(error) })
    }

    /// The ports that are guarded, and the uid of the shim that may answer from each; none where there is no table.
    pub fn guarded(&self) -> Result<Vec<(String, u16, u32)>> {
        Ok(parse_servers(&listed(&["list", "set", "inet", &self.name, "servers"])?.unwrap_or_default()))
    }

    /// Adds a berth; there already is success.
    pub fn add(&self, entry: &Entry) -> Result<()> {
        run(&self.elements("add", entry))
    }

    /// Removes a berth; gone already is success (each element is added before it is deleted, in one transaction), and so is no table.
    pub fn remove(&self, entry: &Entry) -> Result<()> {
        let entry = &Entry { open: true, ..entry.clone() };
        let removed = run(&(self.elements("add", entry) + &self.elements("delete", entry)));
        removed.or_else(|error| if self.present()? { Err(error) } else { Ok(()) })
    }

    /// Removes the table; gone already is success.
    pub fn delete(&self) -> Result<()> {
        run(&format!("add table inet {0}\ndelete table inet {0}\n", self.name))
    }

    /// True when the table is loaded.
    pub fn present(&self) -> Result<bool> {
        Ok(listed(&["list", "set", "inet", &self.name, "berths"])?.is_some())
    }

    /// Opens a berth's address to every account of the host, or closes it again.
    pub fn open(&self, address: Ipv4Addr, open: bool) -> Result<()> {
        let element = format!("element inet {} open {{ {address} }}\n", self.name);
        run(&if open { format!("add {element}") } else { format!("add {element}delete {element}") })
    }

    fn elements(&self, verb: &str, Entry { link, address, owner, shim, open, egress, source_ports }: &Entry) -> String {
        let table = &self.name;
        let mut text = format!("{verb} element inet {table} berths {{ \"{link}\" . {address} }}\n");
        for uid in [Some(*owner), *shim].into_iter().flatten() {
            let _ = writeln!(text, "{verb} element inet {table} owners {{ {address} . {uid} }}");
        }
        if *open {
            let _ = writeln!(text, "{verb} element inet {table} open {{ {address} }}");
        }
        if let Some(block) = source_ports {
            let _ = writeln!(text, "{verb} element inet {table} source_ports {{ {address} : goto {} }}", chain_of(*block));
        }
        text + &self.egress_elements(verb, *address, egress)
    }

    fn egress_elements(&self, verb: &str, address: Ipv4Addr, egress: &Egress) -> String {
        let element = |set: &str, element: String| format!("{verb} element inet {} {set} {{ {element} }}\n", self.name);
        match egress {
            Egress::All => element("everything", address.to_string()),
            Egress::Internet => element("internet", address.to_string()),
            Egress::List(networks) if !networks.is_empty() => {
                let pairs: Vec<String> = networks.iter().map(|network| format!("{address} . {network}")).collect();
                element("listed", pairs.join(", "))
            }
            Egress::None | Egress::List(_) => String::new(),
        }
    }

    fn guard_elements(&self, verb: &str, Guard { protocol, port, owner, shim }: &Guard) -> String {
        let table = &self.name;
        format!(
            "{verb} element inet {table} guarded {{ {protocol} . {port} }}\n\
             {verb} element inet {table} guests {{ {protocol} . {port} . {owner} }}\n\
             {verb} element inet {table} servers {{ {protocol} . {port} . {shim} }}\n"
        )
    }
}

/// The elements of `nft list set`: `tcp . 8080 . 2000224256`.
fn parse_servers(text: &str) -> Vec<(String, u16, u32)> {
    let Some((_, elements)) = text.split_once("elements = {") else { return Vec::new() };
    let elements = elements.split('}').next().unwrap_or_default();
    let parse = |element: &str| {
        let mut parts = element.split(" . ").map(str::trim);
        Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    elements.split(',').filter_map(parse).collect()
}

/// The chain that gives a berth these source ports.
fn chain_of(block: Block) -> String {
    format!("p{}", block.0)
}

/// How many connections one berth may have, so that sixteen berths can be as bad as they like.
fn connections() -> u32 {
    let most = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok().and_then(|text| text.trim().parse::<u32>().ok());
    most.map_or(CONNECTIONS, |most| (most / PART).clamp(1, CONNECTIONS))
}

/// What nft prints; `None` when there is no such object.
pub(super) fn listed(arguments: &[&str]) -> Result<Option<String>> {
    let output = Command::new("nft").args(arguments).stdin(Stdio::null()).output().step("run", "nft (package nftables)")?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

pub(super) fn run(text: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .step("run", "nft (package nftables)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).step("write to", "nft")?;
    }
    let output = child.wait_with_output().step("await", "nft")?;
    if output.status.success() {
        return Ok(());
    }
    let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    stderr.truncate(stderr.char_indices().nth(2000).map_or(stderr.len(), |(at, _)| at));
    Err(Error::Program { program: "nft", status: output.status.to_string(), stderr: stderr.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn table() -> Table {
        Table { name: "berth".into(), link_prefix: "bt".into(), pool: "10.213.0.0/16".into(), forwarding_is_ours: true }
    }

    #[test]
    fn a_removal_adds_first_so_that_it_can_be_repeated() {
        let entry = Entry {
            link: "bt7".into(),
            address: Ipv4Addr::new(10, 213, 0, 9),
            owner: 1000,
            shim: Some(2_000_224_256),
            open: false,
            egress: Egress::Internet,
            source_ports: Some(Block(32_640, 32_767)),
        };
        let text = table().elements("add", &entry);
        assert_eq!(
            text,
            "add element inet berth berths { \"bt7\" . 10.213.0.9 }\n\
             add element inet berth owners { 10.213.0.9 . 1000 }\n\
             add element inet berth owners { 10.213.0.9 . 2000224256 }\n\
             add element inet berth source_ports { 10.213.0.9 : goto p32640 }\n\
             add element inet berth internet { 10.213.0.9 }\n"
        );
        let open = table().elements("add", &Entry { open: true, shim: None, source_ports: None, egress: Egress::None, ..entry });
        assert!(open.ends_with("add element inet berth open { 10.213.0.9 }\n"), "{open}");
    }

    #[test]
    fn n01_a_list_holds_no_network_twice() {
        let networks = |texts: &[&str]| texts.iter().map(|t| t.parse::<Network>().unwrap()).collect::<Vec<_>>();
        let list = Egress::list(networks(&["10.1.0.0/16", "192.0.2.7/32", "10.0.0.0/8", "192.0.2.7/32"]));
        assert_eq!(list, Egress::List(networks(&["10.0.0.0/8", "192.0.2.7/32"])));
        assert_eq!(Egress::list(networks(&["10.1.0.0/16", "0.0.0.0/0"])), Egress::List(networks(&["0.0.0.0/0"])));
        let address = Ipv4Addr::new(10, 213, 0, 9);
        let text = table().egress_elements("add", address, &list);
        assert_eq!(text, "add element inet berth listed { 10.213.0.9 . 10.0.0.0/8, 10.213.0.9 . 192.0.2.7/32 }\n");
        assert_eq!(table().egress_elements("add", address, &Egress::None), "");
    }

    #[test]
    fn n06_guards_that_stand_are_read_back() {
        let listed = "table inet berth {\n\tset servers {\n\t\ttypeof meta l4proto . th sport . meta skuid\n\
                      \t\telements = { udp . 53 . 33,\n\t\t\t     tcp . 8080 . 2000224256 }\n\t}\n}\n";
        assert_eq!(parse_servers(listed), [("udp".into(), 53, 33), ("tcp".into(), 8080, 2_000_224_256)]);
        assert_eq!(parse_servers("table inet berth {\n\tset servers {\n\t\ttypeof meta l4proto . th sport . meta skuid\n\t}\n}\n"), []);
        let guard = Guard { protocol: "tcp".into(), port: 8080, owner: 1000, shim: 2_000_224_256 };
        assert_eq!(
            table().guard_elements("add", &guard),
            "add element inet berth guarded { tcp . 8080 }\nadd element inet berth guests { tcp . 8080 . 1000 }\n\
             add element inet berth servers { tcp . 8080 . 2000224256 }\n"
        );
    }
}

//! The nft table of a node: source check, isolation, NAT. One transaction each time, through `nft -f -`; other tables are never touched.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use super::link;
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

/// Connections that one berth may have in the host's tracking table.
const CONNECTIONS: u32 = 16_384;

impl Table {
    /// Replaces the whole table by one with just these entries and guards, in one transaction.
    pub fn install(&self, entries: &[Entry], guards: &[Guard]) -> Result<()> {
        let mut text = self.text();
        for entry in entries {
            text.push_str(&self.elements("add", entry));
        }
        for guard in guards {
            text.push_str(&self.guard_elements("add", guard));
        }
        run(&text)
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
        if text.is_empty() { Ok(()) } else { run(&text) }
    }

    /// The ports that are guarded, and the uid of the shim that may answer from each; none where there is no table.
    pub fn guarded(&self) -> Result<Vec<(String, u16, u32)>> {
        let output = Command::new("nft")
            .args(["list", "set", "inet", &self.name, "servers"])
            .stdin(Stdio::null())
            .output()
            .step("run", "nft (package nftables)")?;
        Ok(parse_servers(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Adds a berth; there already is success.
    pub fn add(&self, entry: &Entry) -> Result<()> {
        run(&self.elements("add", entry))
    }

    /// Removes a berth; gone already is success (each element is added before it is deleted, in one transaction).
    pub fn remove(&self, entry: &Entry) -> Result<()> {
        let entry = &Entry { open: true, ..entry.clone() };
        run(&(self.elements("add", entry) + &self.elements("delete", entry)))
    }

    /// Removes the table; gone already is success.
    pub fn delete(&self) -> Result<()> {
        run(&format!("add table inet {0}\ndelete table inet {0}\n", self.name))
    }

    /// True when the table is loaded.
    pub fn present(&self) -> Result<bool> {
        let output = Command::new("nft")
            .args(["list", "set", "inet", &self.name, "berths"])
            .stdin(Stdio::null())
            .output()
            .step("run", "nft (package nftables)")?;
        Ok(output.status.success())
    }

    /// Opens a berth's address to every account of the host, or closes it again.
    pub fn open(&self, address: Ipv4Addr, open: bool) -> Result<()> {
        let element = format!("element inet {} open {{ {address} }}\n", self.name);
        run(&if open { format!("add {element}") } else { format!("add {element}delete {element}") })
    }

    fn elements(&self, verb: &str, Entry { link, address, owner, shim, open }: &Entry) -> String {
        let table = &self.name;
        let mut text = format!("{verb} element inet {table} berths {{ \"{link}\" . {address} }}\n");
        for uid in [Some(*owner), *shim].into_iter().flatten() {
            let _ = writeln!(text, "{verb} element inet {table} owners {{ {address} . {uid} }}");
        }
        if *open {
            let _ = writeln!(text, "{verb} element inet {table} open {{ {address} }}");
        }
        text
    }

    fn guard_elements(&self, verb: &str, Guard { protocol, port, owner, shim }: &Guard) -> String {
        let table = &self.name;
        format!(
            "{verb} element inet {table} guarded {{ {protocol} . {port} }}\n\
             {verb} element inet {table} guests {{ {protocol} . {port} . {owner} }}\n\
             {verb} element inet {table} servers {{ {protocol} . {port} . {shim} }}\n"
        )
    }

    /// What the kernel lets pass without a socket to ask (a FIN of a closed one) is told from what somebody begins: a TCP packet with SYN
    /// alone, and every datagram, must name its uid. Tracking is no proof of it: who reuses another's source port continues his "connection".
    fn text(&self) -> String {
        let Table { name, link_prefix, pool, forwarding_is_ours } = self;
        let links = format!("\"{link_prefix}*\"");
        let foreign = match forwarding_is_ours {
            true => format!("iifgroup != {} drop comment \"forwarding is on for berths only\"", link::GROUP),
            false => String::new(),
        };
        format!(
            r#"add table inet {name}
delete table inet {name}
table inet {name} {{
    set berths {{ typeof iifname . ip saddr; }}
    set owners {{ typeof ip daddr . meta skuid; }}
    set open {{ typeof ip daddr; }}
    set guarded {{ typeof meta l4proto . th dport; }}
    set guests {{ typeof meta l4proto . th dport . meta skuid; }}
    set servers {{ typeof meta l4proto . th sport . meta skuid; }}
    set connections {{ typeof ip saddr; size 65535; flags dynamic; }}
    chain from_berth {{
        type filter hook prerouting priority raw; policy accept;
        iifname {links} meta protocol != ip drop
        iifname {links} iifname . ip saddr != @berths drop
    }}
    chain bound {{
        type filter hook prerouting priority mangle; policy accept;
        iifname {links} ct state new add @connections {{ ip saddr ct count over {CONNECTIONS} }} drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        iifname {links} oifname {links} drop
        oifname {links} drop
        iifname {links} ip daddr {{ 127.0.0.0/8, 169.254.0.0/16 }} drop
        iifname {links} accept
        {foreign}
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname {links} ct state established,related accept
        iifname {links} drop
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        oifname != {links} accept
        ip daddr @open accept
        meta skuid 0 accept
        ip daddr . meta skuid @owners accept
        tcp flags & (syn | ack) != syn ct state established,related accept
        meta l4proto != {{ tcp, udp }} ct state established,related accept
        reject
    }}
    chain local {{
        type filter hook output priority filter; policy accept;
        ip daddr 127.0.0.1 meta l4proto . th dport @guarded jump guests
        ip saddr 127.0.0.1 meta l4proto . th sport @guarded jump servers
    }}
    chain guests {{
        meta skuid 0 return
        meta l4proto . th dport . meta skuid @guests return
        tcp flags & (syn | ack) != syn ct state established,related return
        reject
    }}
    chain servers {{
        meta skuid 0 return
        meta l4proto . th sport . meta skuid @servers return
        tcp flags & syn != syn return
        drop
    }}
    chain nat {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {pool} oifname != {links} masquerade
    }}
}}
"#
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

fn run(text: &str) -> Result<()> {
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

    fn table() -> Table {
        Table { name: "berth".into(), link_prefix: "bt".into(), pool: "10.213.0.0/16".into(), forwarding_is_ours: true }
    }

    #[test]
    fn n04_forwarding_that_was_not_ours_is_left_alone() {
        assert!(table().text().contains("forwarding is on for berths only"));
        assert!(!Table { forwarding_is_ours: false, ..table() }.text().contains("berths only"));
    }

    #[test]
    fn a_removal_adds_first_so_that_it_can_be_repeated() {
        let entry =
            Entry { link: "bt7".into(), address: Ipv4Addr::new(10, 213, 0, 9), owner: 1000, shim: Some(2_000_224_256), open: false };
        let text = table().elements("add", &entry);
        assert_eq!(
            text,
            "add element inet berth berths { \"bt7\" . 10.213.0.9 }\n\
             add element inet berth owners { 10.213.0.9 . 1000 }\n\
             add element inet berth owners { 10.213.0.9 . 2000224256 }\n"
        );
        let open = table().elements("add", &Entry { open: true, shim: None, ..entry });
        assert!(open.ends_with("add element inet berth open { 10.213.0.9 }\n"), "{open}");
    }

    #[test]
    fn n06_nothing_that_begins_passes_on_the_word_of_the_connection_tracker() {
        let text = table().text();
        for chain in ["output", "guests", "servers"] {
            let (_, body) = text.split_once(&format!("chain {chain} {{")).unwrap();
            let (body, _) = body.split_once("    }\n").unwrap();
            let tracked: Vec<&str> = body.lines().filter(|l| l.contains("ct state")).collect();
            assert!(
                tracked.iter().all(|l| l.contains("tcp flags & (syn | ack) != syn") || l.contains("l4proto != { tcp, udp }")),
                "{body}"
            );
            let last = body.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap();
            assert!(["reject", "drop"].contains(&last), "{body}");
        }
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

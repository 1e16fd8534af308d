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
    /// Host uid of the user, who alone (with root) may connect to the berth's address.
    pub owner: u32,
}

/// Connections that one berth may have in the host's tracking table.
const CONNECTIONS: u32 = 16_384;

impl Table {
    /// Replaces the whole table by one with just these entries.
    pub fn install(&self, entries: &[Entry]) -> Result<()> {
        let mut text = self.text();
        for entry in entries {
            text.push_str(&self.elements("add", entry));
        }
        run(&text)
    }

    /// Adds a berth; there already is success.
    pub fn add(&self, entry: &Entry) -> Result<()> {
        run(&self.elements("add", entry))
    }

    /// Removes a berth; gone already is success (each element is added before it is deleted, in one transaction).
    pub fn remove(&self, entry: &Entry) -> Result<()> {
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

    fn elements(&self, verb: &str, Entry { link, address, owner }: &Entry) -> String {
        let table = &self.name;
        let mut text = format!("{verb} element inet {table} berths {{ \"{link}\" . {address} }}\n");
        let _ = writeln!(text, "{verb} element inet {table} owners {{ {address} . {owner} }}");
        text
    }

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
        ct state established,related accept
        meta skuid 0 accept
        ip daddr . meta skuid @owners accept
        reject
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
        let entry = Entry { link: "bt7".into(), address: Ipv4Addr::new(10, 213, 0, 9), owner: 1000 };
        let text = table().elements("add", &entry);
        assert_eq!(text, "add element inet berth berths { \"bt7\" . 10.213.0.9 }\nadd element inet berth owners { 10.213.0.9 . 1000 }\n");
    }
}

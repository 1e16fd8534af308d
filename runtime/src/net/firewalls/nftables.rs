//! Tables as `nft list table` shows them. Text, because its JSON changes between versions.

use super::{
    Firewalls,
    chain::{self, Chain, Chains, Need, Rule},
    is_ours,
};
use crate::{error::Result, net::nft};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: String,
    pub(super) name: String,
    pub(super) chains: Chains,
}

/// Every table that forwarded IPv4 packets may pass, our own left out: with hundreds of chains it is the longest of all, and a host without
/// other firewalls has nothing to be read. Without the elements of sets.
pub(super) fn listed() -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for (family, name) in foreign(&nft::listed(&["list", "tables"])?.unwrap_or_default()) {
        // Gone meanwhile is none.
        let text = nft::listed(&["-a", "-s", "-t", "list", "table", &family, &name])?.unwrap_or_default();
        tables.extend(parse(&text));
    }
    Ok(tables)
}

/// Family and name of each table that concerns us, from `nft list tables`.
fn foreign(text: &str) -> Vec<(String, String)> {
    let named = text.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["table", family, name, ..] => Some((family.to_owned(), name.to_owned())),
        _ => None,
    });
    named.filter(|(family, name)| ["ip", "inet"].contains(&family.as_str()) && !is_ours(family, name)).collect()
}

/// Puts our rule into a chain, or moves it to the front, in one transaction.
pub(super) fn open(table: &Table, name: &str, need: Need, ours: &Firewalls) -> Result<()> {
    let place = format!("{} {} {name}", table.family, table.name);
    let mut text = String::new();
    if need == Need::Nothing {
        return Ok(());
    }
    for (_, handle) in table.marked(&ours.mark).into_iter().filter(|(chain, _)| chain == name) {
        text += &format!("delete rule {place} handle {handle}\n");
    }
    nft::run(&(text + &format!("insert rule {place} ct original ip saddr {} accept comment \"{}\"\n", ours.pool, ours.mark)))
}

pub(super) fn close(table: &Table, name: &str, handle: u64) -> Result<()> {
    nft::run(&format!("delete rule {} {} {name} handle {handle}\n", table.family, table.name))
}

impl Table {
    /// The chains that may drop what is forwarded, and what each needs.
    pub(super) fn forwarding(&self, mark: &str) -> Vec<(String, Need)> {
        let ours = |rule: &Rule| is_marked(rule, mark);
        let names = self.chains.iter().filter(|(_, chain)| chain.forwards).map(|(name, _)| name.clone());
        names.filter_map(|name| chain::need(&self.chains, &name, ours).map(|need| (name, need))).collect()
    }

    /// Chain and handle of each rule of ours.
    pub(super) fn marked(&self, mark: &str) -> Vec<(String, u64)> {
        let of = |(name, chain): (&String, &Chain)| {
            let handles = chain.rules.iter().filter(|rule| is_marked(rule, mark)).filter_map(|rule| rule.handle);
            handles.map(|handle| (name.clone(), handle)).collect::<Vec<_>>()
        };
        self.chains.iter().flat_map(of).collect()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &str> {
        self.chains.values().flat_map(|chain| &chain.rules).map(|rule| rule.text.as_str())
    }
}

fn is_marked(rule: &Rule, mark: &str) -> bool {
    rule.text.contains("ct original ") && rule.text.ends_with(&format!("accept comment \"{mark}\""))
}

/// One tab before a chain, two before a rule; sets and what else there is in a table are passed over.
fn parse(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut inside: Option<String> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.len() - line.trim_start_matches('\t').len(), words.as_slice()) {
            (0, ["table", family, name, ..]) => {
                tables.push(Table { family: (*family).to_owned(), name: (*name).to_owned(), ..Table::default() });
                inside = None;
            }
            (1, ["chain", name, ..]) => inside = Some((*name).to_owned()),
            (1, _) => inside = None,
            (2, [..]) if !words.is_empty() => {
                if let (Some(table), Some(name)) = (tables.last_mut(), &inside) {
                    take(table.chains.entry(name.clone()).or_default(), line.trim());
                }
            }
            _ => {}
        }
    }
    tables
}

fn take(chain: &mut Chain, line: &str) {
    if line.starts_with("type ") && line.contains(" hook ") {
        chain.forwards = line.contains(" hook forward ");
        chain.policy_drops = line.contains("policy drop;");
        return;
    }
    let (text, handle) = match line.rsplit_once(" # handle ") {
        Some((text, handle)) => (text, handle.trim().parse().ok()),
        None => (line, None),
    };
    chain.rules.push(Rule { handle, text: text.to_owned() });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "table inet firewalld { # handle 6\n\tset s { # handle 9\n\t\ttype ipv4_addr\n\t}\n\n\tchain filter_FORWARD { # handle 1\n\
        \t\ttype filter hook forward priority filter + 10; policy accept;\n\t\tct state established,related accept # handle 2\n\
        \t\tjump filter_FORWARD_POLICIES # handle 3\n\t\treject with icmpx admin-prohibited # handle 4\n\t}\n\n\
        \tchain filter_INPUT { # handle 5\n\t\ttype filter hook input priority filter + 10; policy accept;\n\t\tdrop # handle 7\n\t}\n}\n\
        # Warning: table ip filter is managed by iptables-nft, do not touch!\n\
        table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\
        \t\tct original ip saddr 10.213.0.0/16 accept comment \"berth\" # handle 12\n\t}\n}\n";

    #[test]
    fn n04_tables_of_others_that_forwarded_packets_pass_are_looked_at() {
        let text = "table inet berth\ntable inet firewalld\ntable ip6 filter\ntable ip filter\ntable inet bertht0\ntable bridge x\n";
        let of = |(family, name): &(String, String)| format!("{family} {name}");
        assert_eq!(foreign(text).iter().map(of).collect::<Vec<_>>(), ["inet firewalld", "ip filter"]);
    }

    #[test]
    fn n04_foreign_chains_are_read_as_they_are_listed() {
        let tables = parse(LISTED);
        assert_eq!(tables.iter().map(|t| format!("{} {}", t.family, t.name)).collect::<Vec<_>>(), ["inet firewalld", "ip filter"]);
        assert_eq!(tables[0].forwarding("berth"), [("filter_FORWARD".to_owned(), Need::Rule)]);
        assert_eq!(tables[1].forwarding("berth"), [("FORWARD".to_owned(), Need::Nothing)]);
        assert_eq!(tables[1].forwarding("berth2"), [("FORWARD".to_owned(), Need::Rule)], "another instance needs its own");
        assert_eq!(tables[1].marked("berth"), [("FORWARD".to_owned(), 12)]);
        assert_eq!(tables[0].marked("berth"), []);
    }
}

//! The text of the table: what it decides is said here, whom it is about is in its sets. A start, a stop or a change of policy changes
//! elements and never a rule.

use std::fmt::Write as _;

use super::{Table, chain_of};
use crate::net::{link, source_ports::Block};

/// What is nobody's on the internet: this network, private, shared by carriers, loopback, link-local (the metadata address of clouds is
/// one), protocol assignments, benchmarks, multicast and reserved (RFC 6890).
const NOT_THE_INTERNET: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, \
                                192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3";

impl Table {
    /// The whole table without elements. `blocks` are those that a berth may have, `connections` how many each may hold in the host's tracking table.
    ///
    /// What the kernel lets pass without a socket to ask (a FIN of a closed one) is told from what somebody begins: a TCP packet with SYN
    /// alone, and every datagram, must name its uid. Tracking is no proof of it: who reuses another's source port continues his "connection".
    ///
    /// What a berth sends is held against its policy packet by packet, and so is what it is answered: a change of policy ends what is open
    /// too. `invalid` packets go no further, because translation leaves them as they are, with the port they have inside (N05).
    pub(super) fn text(&self, blocks: &[Block], connections: u32) -> String {
        let Table { name, link_prefix, pool, forwarding_is_ours } = self;
        let links = format!("\"{link_prefix}*\"");
        let group = link::GROUP;
        let foreign = match forwarding_is_ours {
            true => format!("iifgroup != {group} oifgroup != {group} drop comment \"forwarding is on for berths only\""),
            false => String::new(),
        };
        let mut leaving = String::new();
        for block in blocks {
            let _ = write!(
                leaving,
                "    chain {} {{\n        meta l4proto {{ tcp, udp, icmp, sctp, dccp, udplite }} masquerade to :{block}\n        masquerade\n    }}\n",
                chain_of(*block)
            );
        }
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
    set everything {{ typeof ip saddr; }}
    set internet {{ typeof ip saddr; }}
    set listed {{ typeof ip saddr . ip daddr; flags interval; }}
    set not_the_internet {{ typeof ip daddr; flags interval; elements = {{ {NOT_THE_INTERNET} }} }}
    set hops {{ typeof ip saddr . rt ip nexthop; size 131072; flags dynamic,timeout; timeout 30s; }}
    set new_hops {{ typeof ip saddr; size 65535; flags dynamic,timeout; timeout 1m; }}
    map source_ports {{ typeof ip saddr : verdict; }}
{leaving}    chain from_berth {{
        type filter hook prerouting priority raw; policy accept;
        iifname {links} meta protocol != ip drop
        iifname {links} iifname . ip saddr != @berths drop
        iifname {links} ip daddr 127.0.0.0/8 drop
    }}
    chain bound {{
        type filter hook prerouting priority mangle; policy accept;
        iifname {links} ct state new add @connections {{ ip saddr ct count over {connections} }} drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname {links} goto leave
        oifname {links} goto enter
        {foreign}
    }}
    chain leave {{
        oifgroup {group} drop
        ct state invalid drop
        ip saddr @everything goto hop
        ip saddr @internet ip daddr != @not_the_internet goto hop
        ip saddr . ip daddr @listed goto hop
        reject with icmpx admin-prohibited
    }}
    chain hop {{
        ct state established,related accept
        meta oiftype != ether accept comment "a tunnel asks for no neighbours, and every address is its own next hop there"
        ip saddr . rt ip nexthop @hops accept
        add @new_hops {{ ip saddr limit rate over 5/second burst 64 packets }} drop
        update @hops {{ ip saddr . rt ip nexthop }} accept
        drop
    }}
    chain enter {{
        icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} ct state related accept
        ct direction original drop
        ct state != {{ established, related }} drop
        ip daddr @everything accept
        ip daddr @internet ip saddr != @not_the_internet accept
        ip daddr . ip saddr @listed accept
        drop
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname {links} goto host
    }}
    chain host {{
        ct direction reply ct state established,related accept
        meta l4proto {{ tcp, udp }} th sport < 1024 drop
        ip saddr @everything accept
        ip saddr . ip daddr @listed accept
        reject with icmpx admin-prohibited
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        oifname != {links} accept
        ct direction reply ct state established,related accept
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
        type nat hook postrouting priority srcnat - 5; policy accept;
        meta nfproto != ipv4 accept
        ip saddr != {pool} accept
        oifname {links} accept
        ip saddr vmap @source_ports
        drop
    }}
}}
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::table, *};

    fn chain<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
        let (_, body) = text.split_once(&format!("chain {name} {{")).unwrap();
        let (body, _) = body.split_once("    }\n").unwrap();
        body.lines().map(str::trim).filter(|l| !l.is_empty()).collect()
    }

    #[test]
    fn n04_forwarding_that_was_not_ours_is_left_alone() {
        assert!(table().text(&[], 1).contains("forwarding is on for berths only"));
        assert!(!Table { forwarding_is_ours: false, ..table() }.text(&[], 1).contains("berths only"));
    }

    #[test]
    fn n05_every_block_has_a_way_out_and_nothing_else_leaves() {
        let text = table().text(&[Block(32_640, 32_767), Block(2000, 2015)], 1);
        assert!(text.contains("chain p2000 {\n        meta l4proto { tcp, udp, icmp, sctp, dccp, udplite } masquerade to :2000-2015\n"));
        assert!(text.contains("masquerade to :32640-32767\n"));
        assert_eq!(chain(&text, "nat").last(), Some(&"drop"));
        // A comparison of IPv4 addresses is true of no packet of IPv6.
        assert_eq!(chain(&text, "nat")[1], "meta nfproto != ipv4 accept", "the host's own IPv6 is none of ours");
        assert!(chain(&text, "leave").contains(&"ct state invalid drop"));
    }

    #[test]
    fn n06_nothing_that_begins_passes_on_the_word_of_the_connection_tracker() {
        let text = table().text(&[], 1);
        for name in ["output", "guests", "servers"] {
            let body = chain(&text, name);
            let tracked = body.iter().filter(|l| l.contains("ct state") && !l.contains("ct direction reply"));
            let safe = |l: &&str| l.contains("tcp flags & (syn | ack) != syn") || l.contains("l4proto != { tcp, udp }");
            assert!(tracked.copied().all(|l| safe(&l)), "{body:?}");
            assert!(["reject", "drop"].contains(body.last().unwrap()), "{body:?}");
        }
    }

    #[test]
    fn n01_what_no_policy_allows_does_not_pass() {
        let text = table().text(&[], 1);
        for (name, last) in
            [("leave", "reject with icmpx admin-prohibited"), ("host", "reject with icmpx admin-prohibited"), ("enter", "drop")]
        {
            assert_eq!(chain(&text, name).last(), Some(&last));
        }
        assert_eq!(chain(&text, "leave")[0], format!("oifgroup {} drop", link::GROUP), "other berths come before every policy");
    }
}

//! Other firewalls, and what is left of what all berths share on the network.

use berth_protocol::Check;
use berth_runtime::{
    error::chain,
    net::{firewalls::Found, source_ports},
};

use super::{failed, ok, warning};
use crate::daemon::node::Node;

/// Puts our rule where it is missing, which is what is looked for. Tables of iptables-legacy tell nobody of a change.
pub(super) fn firewalls(node: &Node) -> Check {
    const NAME: &str = "other firewalls";
    let found = match node.host.firewalls().open() {
        Ok(found) => found,
        Err(error) => return failed(NAME, chain(&error), "see what nft list ruleset says, and berth logs"),
    };
    let (open, shut): (Vec<&Found>, Vec<&Found>) = found.iter().partition(|f| f.open.is_ok());
    let places: Vec<&str> = open.iter().map(|f| f.place.as_str()).collect();
    let shut: Vec<String> = shut.iter().map(|f| format!("{} ({})", f.place, f.open.as_ref().err().map_or("", String::as_str))).collect();
    match (places.as_slice(), shut.as_slice()) {
        ([], []) => ok(NAME, "none drops what is forwarded"),
        (places, []) => {
            ok(NAME, format!("an accept rule with the comment {:?} lets berths through {}", node.host.table.name, places.join(", ")))
        }
        (_, shut) => {
            let fix = format!("let connections from {} through there, in both directions", node.host.table.pool);
            failed(NAME, format!("berths do not get through {}", shut.join(", ")), fix)
        }
    }
}

pub(super) fn source_ports(node: &Node) -> Check {
    const NAME: &str = "source ports";
    let network = &node.host.config.network;
    let blocks = node.host.port_layout().blocks();
    let host = source_ports::host_range();
    let usable = blocks.iter().filter(|b| !host.is_some_and(|h| h.meets(**b))).count();
    let statuses = node.statuses();
    let (with, without): (Vec<_>, Vec<_>) = statuses.iter().partition(|s| s.source_ports.is_some());
    let detail =
        format!("{} of {usable} blocks of {} ports in {} are in use", with.len(), network.source_ports_per_berth, network.source_ports);
    let fix = "widen network.source_ports or lower network.source_ports_per_berth in node.toml, and restart berth-node";
    if !without.is_empty() {
        let users: Vec<&str> = without.iter().map(|s| s.user.as_str()).collect();
        return failed(NAME, format!("{detail}; these have none and reach nothing outside: {}", users.join(", ")), fix);
    }
    match (usable, usable.saturating_sub(with.len())) {
        (0, _) => {
            let taken = host.map(|h| h.to_string()).unwrap_or_default();
            failed(NAME, format!("{} lies within the host's own {taken}: no berth can be made", network.source_ports), fix)
        }
        (_, 0) => warning(NAME, format!("{detail}: no further berth can be made"), fix),
        _ => ok(NAME, detail),
    }
}

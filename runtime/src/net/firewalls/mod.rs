//! Other firewalls of the host. An accept in our own table does not help a packet that another chain of hook `forward` drops, so each such
//! chain gets one accept rule, marked by its comment, in front of whatever may drop; and loses it when the node is taken away (N04).
//!
//! Chains that drop nothing are left alone, and what they let through still passes our own table first: the rule opens nothing that a
//! berth's policy does not. It covers the pool's connections in both directions. Tables of `iptables-nft` are changed by that program alone,
//! which would refuse to list a table with foreign rules; tables of `iptables-legacy` tell nobody of a change, so whoever starts a berth
//! looks at them ([`look`](Firewalls::open)).

mod chain;
mod iptables;
mod nftables;
mod watch;

use crate::{
    error::{Result, chain},
    net::nft,
};
use chain::Need;
use iptables::Iptables;
pub use watch::Watch;

/// What our rules say.
#[derive(Clone, Debug)]
pub struct Firewalls {
    /// Comment by which they are known: the name of our own table.
    pub mark: String,
    /// Addresses of the berths, CIDR.
    pub pool: String,
}

/// A chain of another firewall that may drop what berths send or get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `ip filter FORWARD of iptables`, `inet firewalld filter_FORWARD`.
    pub place: String,
    /// Whether our rule is in it now; otherwise why not.
    pub open: Result<(), String>,
}

impl Firewalls {
    /// Puts our rule where it is missing, and tells of every chain that needs it. Nothing to do changes nothing.
    pub fn open(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for table in nftables::listed()? {
            for (name, need) in table.forwarding(&self.mark) {
                let place = format!("{} {} {name}", table.family, table.name);
                match iptables::nft_owner(&table, &name) {
                    Some(program) => found.extend(self.open_iptables(&program, &table.name)?),
                    None => found.push(Found { place, open: told(nftables::open(&table, &name, need, self)) }),
                }
            }
        }
        if let Some(program) = Iptables::legacy() {
            found.extend(self.open_iptables(&program, "filter")?);
        }
        Ok(found)
    }

    fn open_iptables(&self, program: &Iptables, table: &str) -> Result<Option<Found>> {
        let place = format!("{table} FORWARD of {}", program.name());
        let open = match program.need(table, &self.mark)? {
            None => return Ok(None),
            Some(Need::Nothing) => Ok(()),
            Some(need) => told(program.open(table, need, self)),
        };
        Ok(Some(Found { place, open }))
    }

    /// True when a firewall is in force that tells nobody of its changes, so that somebody has to look now and then.
    pub fn silent() -> bool {
        Iptables::legacy().is_some()
    }

    /// Takes all our rules out again; goes past errors and returns the first.
    pub fn close(&self) -> Result<()> {
        let mut done = Ok(());
        for table in nftables::listed()? {
            for (name, handle) in table.marked(&self.mark) {
                done = done.and(nftables::close(&table, &name, handle));
            }
        }
        for program in [Iptables::nft(), Iptables::legacy()].into_iter().flatten() {
            for table in program.tables() {
                done = done.and(program.close(&table, self));
            }
        }
        done
    }

    /// True when somebody else on the host translates addresses, which nobody does who does not forward.
    pub fn others_forward(&self) -> Result<bool> {
        let translates = |rule: &str| ["masquerade", "snat", "dnat", "MASQUERADE", "SNAT", "DNAT"].iter().any(|w| chain::says(rule, w));
        if nftables::listed()?.iter().flat_map(|table| table.rules()).any(translates) {
            return Ok(true);
        }
        let legacy = Iptables::legacy_translates().map(|program| program.rules("nat")).transpose()?;
        Ok(legacy.is_some_and(|rules| rules.lines().any(translates)))
    }
}

fn told(done: Result<()>) -> Result<(), String> {
    done.map_err(|error| chain(&error))
}

/// True for the table of any node on this host.
fn is_ours(family: &str, name: &str) -> bool {
    family == "inet" && (name == "berth" || name.starts_with("berth"))
}

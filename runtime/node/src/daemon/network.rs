//! What the node's firewall table says of each berth, and the rules in other firewalls that let berths through.

use std::{
    sync::{Arc, PoisonError, RwLockReadGuard},
    time::Duration,
};

use berth_protocol::{Egress, Limits, OpenTo};
use berth_runtime::{
    error::{Result, chain},
    net::{
        self, Network,
        firewalls::{Firewalls, Found, Watch},
        nft,
        rates::Rates,
    },
};
use tokio::time::sleep;

use super::{
    host::Host,
    node::Node,
    record::{Corrupt, Phase, Record},
};

/// How long a rule set that changes is left to settle before it is looked at: firewalls reload in many steps.
const PACE: Duration = Duration::from_millis(500);
/// When watching is tried anew after it failed.
const AGAIN: Duration = Duration::from_secs(60);

impl Host {
    /// Switches forwarding on and installs the whole nft table.
    pub(crate) fn install_network(&mut self, records: &[Record], corrupt: &[Corrupt]) -> Result<()> {
        net::forwarding::adopt(&self.layout.forwarding())?;
        self.table.forwarding_is_ours = net::forwarding::enable(&self.table.name)?;
        let guards = self.standing_guards(records)?;
        self.install(records, corrupt, &guards)
    }

    fn install(&self, records: &[Record], corrupt: &[Corrupt], guards: &[nft::Guard]) -> Result<()> {
        let mut entries: Vec<nft::Entry> = records.iter().filter(|r| r.phase == Phase::Present).map(entry).collect();
        for found in corrupt {
            if let (Some(index), Some(uid)) = (found.index, found.uid)
                && let Ok((link, address)) = self.link(index)
            {
                let shim = found.id.and_then(|id| self.id_base(id));
                // Its policy is not known, so it reaches nothing.
                let (egress, source_ports) = (nft::Egress::None, found.source_ports);
                entries.push(nft::Entry { link, address, owner: uid, shim, open: false, egress, source_ports });
            }
        }
        self.table.install(&self.port_layout().blocks(), &entries, guards)
    }

    /// Held from a change of the table to its record.
    pub(super) fn telling(&self) -> RwLockReadGuard<'_, ()> {
        self.told.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the table anew when somebody took it away: whoever loads a rule set of his own begins with `flush ruleset`. Blocking.
    fn restore_table(&self) -> Result<()> {
        if self.table.present()? {
            return Ok(());
        }
        let _alone = self.told.write().unwrap_or_else(PoisonError::into_inner);
        let (records, corrupt) = self.records.load()?;
        self.guards.with_all(|guards| self.install(&records, &corrupt, guards))?;
        tracing::warn!(table = self.table.name, "somebody had removed our nft table; it is back");
        Ok(())
    }

    pub(crate) fn firewalls(&self) -> Firewalls {
        Firewalls { mark: self.table.name.clone(), pool: self.table.pool.clone() }
    }

    /// Puts our rule into other firewalls where it is missing. Blocking; what cannot be mended is logged, and told by `doctor`.
    pub(crate) fn open_firewalls(&self) -> Vec<Found> {
        match self.firewalls().open() {
            Ok(found) => {
                for Found { place, open } in &found {
                    if let Err(why) = open {
                        tracing::error!(place, why, "another firewall drops what berths send, and our rule cannot be put there");
                    }
                }
                found
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "other firewalls cannot be looked at");
                Vec::new()
            }
        }
    }
}

/// What the table is told of a berth.
pub(super) fn entry(record: &Record) -> nft::Entry {
    nft::Entry {
        link: record.link.clone(),
        address: record.address,
        owner: record.uid,
        shim: Some(record.id_base),
        open: record.policy.ports.open_to == OpenTo::Host,
        egress: egress(&record.policy.egress),
        source_ports: record.block(),
    }
}

/// A list that cannot be read as one, which no request brings in, reaches nothing.
pub(super) fn egress(policy: &Egress) -> nft::Egress {
    match policy {
        Egress::All => nft::Egress::All,
        Egress::Internet => nft::Egress::Internet,
        Egress::None => nft::Egress::None,
        Egress::List { .. } => match policy.networks() {
            Ok(networks) => nft::Egress::list(networks.iter().map(|n| Network { base: n.address, prefix: n.prefix }).collect()),
            Err(_) => nft::Egress::None,
        },
    }
}

pub(super) fn rates(limits: &Limits) -> Rates {
    Rates { from_berth: limits.network.egress_bits, to_berth: limits.network.ingress_bits }
}

/// Keeps our rule in other firewalls until the node stops: they drop it when they reload, and come and go while we run.
pub(super) async fn serve(node: Arc<Node>) {
    loop {
        let watched = watch(&node);
        let stopped = tokio::select! {
            biased;
            () = node.stop.cancelled() => true,
            error = watched => {
                tracing::warn!(%error, "changes of the rule set are not heard of for a while");
                false
            }
        };
        if stopped {
            return;
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

async fn watch(node: &Arc<Node>) -> std::io::Error {
    let mut watch = match Watch::open() {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        // After the watch has begun, so that no change falls between. Our own is heard of too, and then there is nothing to do.
        let looking = Arc::clone(node);
        let _ = tokio::task::spawn_blocking(move || looking.host.open_firewalls()).await;
        if let Err(error) = watch.changed().await {
            return error;
        }
        // Without our table berths are neither translated nor kept apart: that does not wait.
        let restoring = Arc::clone(node);
        match tokio::task::spawn_blocking(move || restoring.host.restore_table()).await {
            Ok(Err(error)) => tracing::error!(error = chain(&error), "our nft table is gone and cannot be made anew"),
            _ => sleep(PACE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n01_a_policy_that_cannot_be_read_reaches_nothing() {
        assert_eq!(egress(&Egress::default()), nft::Egress::Internet);
        assert_eq!(egress(&Egress::List { cidrs: vec!["10.0.0.1/8".into()] }), nft::Egress::None);
        let list = Egress::List { cidrs: vec!["10.1.0.0/16".into(), "10.0.0.0/8".into(), "192.0.2.1".into()] };
        let networks = ["10.0.0.0/8", "192.0.2.1/32"].map(|n| n.parse().unwrap()).to_vec();
        assert_eq!(egress(&list), nft::Egress::List(networks));
    }
}

//! Which ports of 127.0.0.1 are guarded, and for whom: the same in memory as in the kernel, changed by one transaction at a time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use berth_protocol::OpenTo;
use berth_runtime::{error::Result, net::nft::Guard};

use super::{
    host::Host,
    record::{Phase, Record},
};
use crate::link::Guarded;

/// By protocol and port, of which only one shim of the host can hold each.
#[derive(Debug, Default)]
pub(crate) struct Guards(Mutex<BTreeMap<Guarded, Guard>>);

impl Guards {
    /// Nobody changes them meanwhile.
    pub(super) fn with_all<T>(&self, act: impl FnOnce(&[Guard]) -> T) -> T {
        let guards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(&guards.values().cloned().collect::<Vec<_>>())
    }
}

impl Host {
    /// Makes the guards of the shim with uid `shim` exactly these. Blocking; nothing to change costs nothing.
    pub(crate) fn guard(&self, shim: u32, wanted: &[Guard]) -> Result<()> {
        let mut guards = self.guards.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (remove, add) = difference(&guards, shim, wanted);
        if remove.is_empty() && add.is_empty() {
            return Ok(());
        }
        self.table.guard(&remove, &add)?;
        for guard in &remove {
            guards.remove(&key(guard));
        }
        guards.extend(add.into_iter().map(|guard| (key(&guard), guard)));
        Ok(())
    }

    /// What a former daemon guarded for shims that may still run; each owner goes through his, once he knows whether it does.
    pub(super) fn standing_guards(&self, records: &[Record]) -> Result<Vec<Guard>> {
        let owners: BTreeMap<u32, u32> = records
            .iter()
            .filter(|r| r.phase == Phase::Present && r.policy.ports.open_to == OpenTo::User)
            .map(|r| (r.id_base, r.uid))
            .collect();
        let standing = self.table.guarded()?.into_iter();
        let kept = standing.filter_map(|(protocol, port, shim)| Some(Guard { protocol, port, owner: *owners.get(&shim)?, shim }));
        let kept: Vec<Guard> = kept.collect();
        *self.guards.0.lock().unwrap_or_else(PoisonError::into_inner) = kept.iter().map(|g| (key(g), g.clone())).collect();
        Ok(kept)
    }
}

/// What is to go and what is to come. A port that another shim had is taken from it: whoever asks holds it now.
fn difference(known: &BTreeMap<Guarded, Guard>, shim: u32, wanted: &[Guard]) -> (Vec<Guard>, Vec<Guard>) {
    let wanted: BTreeMap<Guarded, &Guard> = wanted.iter().map(|g| (key(g), g)).collect();
    let stale = |(key, guard): &(&Guarded, &Guard)| match wanted.get(*key) {
        Some(wanted) => *wanted != *guard,
        None => guard.shim == shim,
    };
    let remove = known.iter().filter(stale).map(|(_, guard)| guard.clone()).collect();
    let add = wanted.into_iter().filter(|(key, guard)| known.get(key) != Some(*guard)).map(|(_, guard)| guard.clone()).collect();
    (remove, add)
}

fn key(guard: &Guard) -> Guarded {
    Guarded { protocol: guard.protocol.clone(), port: guard.port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(port: u16, owner: u32, shim: u32) -> Guard {
        Guard { protocol: "tcp".into(), port, owner, shim }
    }

    #[test]
    fn n06_only_a_shims_own_guards_go_and_a_port_has_one_holder() {
        let known: BTreeMap<_, _> = [guard(1, 10, 100), guard(2, 10, 100), guard(3, 20, 200)].into_iter().map(|g| (key(&g), g)).collect();
        assert_eq!(difference(&known, 100, &[guard(1, 10, 100), guard(4, 10, 100)]), (vec![guard(2, 10, 100)], vec![guard(4, 10, 100)]));
        assert_eq!(difference(&known, 100, &[]).0, [guard(1, 10, 100), guard(2, 10, 100)]);
        // The other shim died while nobody looked, and this one has its port.
        let taken = [guard(1, 10, 100), guard(2, 10, 100), guard(3, 10, 100)];
        assert_eq!(difference(&known, 100, &taken), (vec![guard(3, 20, 200)], vec![guard(3, 10, 100)]));
    }
}

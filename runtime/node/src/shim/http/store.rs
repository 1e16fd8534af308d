//! Memory for what has to be kept of a message for a while: all connections of a shim together have a bound.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that all connections may keep together.
const MOST: usize = 2 << 20;

/// The account that every [`Store`] of a shim draws on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget(Arc<AtomicUsize>);

/// Bytes on account.
#[derive(Debug)]
pub(crate) struct Store {
    budget: Budget,
    bytes: Vec<u8>,
    charged: usize,
    most: usize,
}

impl Budget {
    /// An empty store for at most so many bytes.
    pub(crate) fn store(&self, most: usize) -> Store {
        Store { budget: self.clone(), bytes: Vec::new(), charged: 0, most }
    }

    /// True when half of it is in use: whoever can do without, should.
    pub(crate) fn tight(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MOST / 2
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Store {
    /// Keeps `bytes` too; false, and nothing is kept, past a bound.
    #[must_use]
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> bool {
        if self.bytes.len() + bytes.len() > self.most || self.budget.0.load(Ordering::Relaxed) + bytes.len() > MOST {
            return false;
        }
        self.hold(bytes);
        true
    }

    /// Keeps `bytes` whatever the bounds: for what was read already.
    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.budget.0.fetch_add(bytes.len(), Ordering::Relaxed);
        self.charged += bytes.len();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self) {
        self.budget.0.fetch_sub(std::mem::take(&mut self.charged), Ordering::Relaxed);
        self.bytes = Vec::new();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stores_together_have_a_bound_and_what_is_dropped_counts_no_more() {
        let budget = Budget::default();
        let mut stores: Vec<Store> = (0..32).map(|_| budget.store(MOST / 32)).collect();
        assert!(stores.iter_mut().all(|store| store.keep(&[0; MOST / 32])));
        assert!(!stores[0].keep(b"x") && !budget.store(10).keep(b"x") && budget.tight());
        stores.truncate(1);
        assert!(!budget.tight() && budget.store(10).keep(b"x"));
        stores[0].clear();
        assert_eq!(budget.used(), 0);
    }
}

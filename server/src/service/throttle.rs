//! How often somebody may try. Each key has a bucket that fills at a steady pace; all of them together are bounded.
//!
//! A sign-in is counted three times: for its source; for account and source together, when it fails; for the account whatever the source,
//! when it fails. The last would let a stranger lock an administrator out, so it is wide, refills within minutes, and is not asked for
//! sources from which this account has signed in before. Root on the unix socket is never counted.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use super::Error;
use crate::domain::Source;

/// `burst` at once, then one each `every` milliseconds.
#[derive(Clone, Copy, Debug)]
struct Rule {
    burst: i64,
    every: i64,
}

/// Attempts of one source, right or wrong.
const SOURCE: Rule = Rule { burst: 20, every: 3_000 };
/// Failures for one account from one source.
const PAIR: Rule = Rule { burst: 5, every: 30_000 };
/// Failures for one account from sources it has never signed in from.
const ACCOUNT: Rule = Rule { burst: 50, every: 10_000 };
/// Exchanges of one API token.
const EXCHANGE: Rule = Rule { burst: 20, every: 3_000 };
/// Links of one host account.
const LINK: Rule = Rule { burst: 10, every: 6_000 };
/// Rows of failed attempts in the audit trail: of one source, and of all.
const ROWS_OF_SOURCE: Rule = Rule { burst: 1, every: 60_000 };
const ROWS: Rule = Rule { burst: 60, every: 60_000 };

/// Keys that are known at a time.
const MOST: usize = 8_192;
const MOST_KNOWN: usize = 1_024;
const MOST_SILENT: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Source(Source),
    Pair(String, Source),
    Account(String),
    Exchange(String),
    Link(u32),
    RowsOf(Source),
    Rows,
}

#[derive(Default)]
pub(super) struct Throttle {
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// When each bucket is full again.
    full_at: HashMap<Key, i64>,
    /// Sources from which an account has signed in, and when.
    known: HashMap<(String, Source), i64>,
    /// Failures that no row of the audit trail tells of yet.
    silent: HashMap<Source, u64>,
}

impl Throttle {
    /// Counts an attempt to sign in before anything is computed, so that many at once count as many.
    pub(super) fn sign_in(&self, account: &str, source: Source, now: i64) -> Result<(), Error> {
        let source = source.group();
        if source == Source::Uid(0) {
            return Ok(());
        }
        let mut buckets = self.lock();
        buckets.take(Key::Source(source), SOURCE, now)?;
        buckets.take(Key::Pair(account.to_owned(), source), PAIR, now)?;
        match buckets.known.contains_key(&(account.to_owned(), source)) {
            true => Ok(()),
            false => buckets.take(Key::Account(account.to_owned()), ACCOUNT, now),
        }
    }

    /// It was the right password: the failures before it are forgotten, the source is known from now on.
    pub(super) fn signed_in(&self, account: &str, source: Source, now: i64) {
        let source = source.group();
        let mut buckets = self.lock();
        buckets.full_at.remove(&Key::Pair(account.to_owned(), source));
        if let Some(full_at) = buckets.full_at.get_mut(&Key::Account(account.to_owned())) {
            *full_at -= ACCOUNT.every;
        }
        bound(&mut buckets.known, MOST_KNOWN, |since| *since);
        buckets.known.insert((account.to_owned(), source), now);
    }

    /// Counts an attempt that is about a secret, not about an account: a token or a link, each of which has too many bits to be guessed.
    pub(super) fn attempt(&self, source: Source, now: i64) -> Result<(), Error> {
        if source == Source::Uid(0) {
            return Ok(());
        }
        self.lock().take(Key::Source(source.group()), SOURCE, now)
    }

    pub(super) fn exchange(&self, token: &str, now: i64) -> Result<(), Error> {
        self.lock().take(Key::Exchange(token.to_owned()), EXCHANGE, now)
    }

    pub(super) fn link(&self, uid: u32, now: i64) -> Result<(), Error> {
        self.lock().take(Key::Link(uid), LINK, now)
    }

    /// Whether this failed attempt gets a row in the audit trail; the count is of those of the same source that got none.
    pub(super) fn row(&self, source: Source, now: i64) -> Option<u64> {
        let source = source.group();
        let mut buckets = self.lock();
        let allowed = buckets.take(Key::RowsOf(source), ROWS_OF_SOURCE, now).is_ok() && buckets.take(Key::Rows, ROWS, now).is_ok();
        if allowed {
            return Some(buckets.silent.remove(&source).unwrap_or_default());
        }
        if buckets.silent.len() < MOST_SILENT || buckets.silent.contains_key(&source) {
            *buckets.silent.entry(source).or_default() += 1;
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn take(&mut self, key: Key, rule: Rule, now: i64) -> Result<(), Error> {
        let span = rule.burst * rule.every;
        // Further away than an empty bucket is from full: the clock went back, and what was counted says nothing any more.
        let known = self.full_at.get(&key).copied().filter(|full_at| *full_at <= now + span);
        let full_at = known.unwrap_or(now).max(now);
        let next = full_at + rule.every;
        if next - now > span {
            let wait = (next - now - span).unsigned_abs();
            return Err(Error::Throttled { seconds: wait.div_ceil(1_000).max(1) });
        }
        if self.full_at.len() >= MOST && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
            // Those that are nearly full again lose the least.
            bound(&mut self.full_at, MOST, |full_at| *full_at);
        }
        self.full_at.insert(key, next);
        Ok(())
    }
}

/// Makes room for one: the quarter with the least `order` goes.
fn bound<K: Hash + Eq + Clone, V>(map: &mut HashMap<K, V>, most: usize, order: impl Fn(&V) -> i64) {
    if map.len() < most {
        return;
    }
    let mut orders: Vec<i64> = map.values().map(&order).collect();
    let (_, middle, _) = orders.select_nth_unstable(most / 4);
    let middle = *middle;
    map.retain(|_, value| order(value) > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> Source {
        Source::Address(std::net::Ipv4Addr::from(n).into())
    }

    fn wait(result: Result<(), Error>) -> Option<u64> {
        match result {
            Ok(()) => None,
            Err(Error::Throttled { seconds }) => Some(seconds),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_few_failures_are_free_then_one_each_half_minute() {
        let throttle = Throttle::default();
        for _ in 0..PAIR.burst {
            assert_eq!(wait(throttle.sign_in("alice", source(1), 0)), None);
        }
        assert_eq!(wait(throttle.sign_in("alice", source(1), 0)), Some(30));
        assert_eq!(wait(throttle.sign_in("alice", source(1), 29_999)), Some(1));
        assert_eq!(wait(throttle.sign_in("alice", source(1), 30_000)), None);
        assert_eq!(wait(throttle.sign_in("alice", source(1), 30_001)), Some(30));
        // Another account, and another source, are not concerned.
        assert_eq!(wait(throttle.sign_in("bob", source(1), 30_001)), None);
        assert_eq!(wait(throttle.sign_in("alice", source(2), 30_001)), None);
    }

    #[test]
    fn a_stranger_with_many_addresses_does_not_lock_out_who_has_signed_in_before() {
        let throttle = Throttle::default();
        throttle.signed_in("alice", source(1), 0);
        let refused = (100..400).filter(|n| wait(throttle.sign_in("alice", source(*n), 0)).is_some()).count();
        assert_eq!(refused, 300 - ACCOUNT.burst as usize);
        assert_eq!(wait(throttle.sign_in("alice", source(1), 0)), None);
        assert_eq!(wait(throttle.sign_in("alice", Source::Uid(0), 0)), None);
        // From a new address she waits seconds, not hours.
        assert!(wait(throttle.sign_in("alice", source(2), 0)).is_some_and(|seconds| seconds <= 10));
    }

    #[test]
    fn the_right_password_forgets_the_failures() {
        let throttle = Throttle::default();
        for _ in 0..4 {
            throttle.sign_in("alice", source(1), 0).unwrap();
        }
        throttle.signed_in("alice", source(1), 0);
        for _ in 0..PAIR.burst {
            assert_eq!(wait(throttle.sign_in("alice", source(1), 0)), None);
        }
    }

    #[test]
    fn s06_a_million_sources_stay_within_bounds() {
        let throttle = Throttle::default();
        for n in 0..50_000 {
            let _ = throttle.sign_in(&format!("name{n}"), source(n), i64::from(n));
            throttle.signed_in(&format!("name{n}"), source(n), i64::from(n));
            throttle.row(source(n), i64::from(n));
        }
        let buckets = throttle.lock();
        assert!(buckets.full_at.len() <= MOST && buckets.known.len() <= MOST_KNOWN && buckets.silent.len() <= MOST_SILENT);
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let throttle = Throttle::default();
        for _ in 0..5 {
            throttle.sign_in("alice", source(1), 1_000_000_000).unwrap();
        }
        assert!(wait(throttle.sign_in("alice", source(1), 1_000_000_000)).is_some());
        assert_eq!(wait(throttle.sign_in("alice", source(1), 0)), None);
    }

    #[test]
    fn failures_are_told_of_once_a_minute_with_their_count() {
        let throttle = Throttle::default();
        assert_eq!(throttle.row(source(1), 0), Some(0));
        assert_eq!(throttle.row(source(1), 1), None);
        assert_eq!(throttle.row(source(1), 2), None);
        assert_eq!(throttle.row(source(1), 60_000), Some(2));
    }
}

//! Which pieces of work are under way, and which wait before they are tried again.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// To be tried again after a pause.
    Retry,
}

/// Bounded by the number of berths and unfinished image operations.
#[derive(Default)]
pub(super) struct Slots(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    running: HashMap<Uuid, Work>,
    paused: HashMap<Uuid, Pause>,
}

struct Work {
    urgent: bool,
    /// Images have no generations.
    image: bool,
    abort: CancellationToken,
}

struct Pause {
    attempts: u32,
    generation: i64,
    until: Instant,
}

impl Slots {
    /// Takes the piece of work, unless it is under way, or paused and not changed since. Who takes it ends when the token is cancelled:
    /// urgent work does not wait for what is under way, but takes its place once that has ended.
    pub(super) fn take(&self, id: Uuid, generation: i64, urgent: bool, now: Instant) -> Option<CancellationToken> {
        let mut inner = self.lock();
        if inner.paused.get(&id).is_some_and(|pause| pause.generation == generation && pause.until > now) {
            return None;
        }
        match inner.running.entry(id) {
            Entry::Occupied(under_way) => {
                if urgent && !under_way.get().urgent {
                    under_way.get().abort.cancel();
                }
                None
            }
            Entry::Vacant(free) => {
                Some(free.insert(Work { urgent, image: generation == 0, abort: CancellationToken::new() }).abort.clone())
            }
        }
    }

    pub(super) fn finish(&self, id: Uuid, generation: i64, outcome: Outcome, now: Instant) {
        let mut inner = self.lock();
        inner.running.remove(&id);
        match outcome {
            Outcome::Done => {
                inner.paused.remove(&id);
            }
            Outcome::Retry => {
                let attempts = inner.paused.get(&id).filter(|pause| pause.generation == generation).map_or(0, |pause| pause.attempts) + 1;
                let pause = FIRST_PAUSE.saturating_mul(1 << attempts.min(8)).min(LONGEST_PAUSE);
                inner.paused.insert(id, Pause { attempts, generation, until: now + pause });
            }
        }
    }

    pub(super) fn is_running(&self, id: Uuid) -> bool {
        self.lock().running.contains_key(&id)
    }

    /// When the first pause ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.paused.iter().filter(|(id, _)| !inner.running.contains_key(id)).map(|(_, pause)| pause.until).min()
    }

    pub(super) fn paused(&self) -> usize {
        self.lock().paused.len()
    }

    /// Ends all pauses: what they waited for has come back.
    pub(super) fn resume(&self) {
        let now = Instant::now();
        self.lock().paused.values_mut().for_each(|pause| pause.until = now);
    }

    /// Ends work on images that is no longer asked for; which that is, once.
    pub(super) fn abort_images(&self, wanted: &HashSet<Uuid>) -> Vec<Uuid> {
        let inner = self.lock();
        let gone = inner.running.iter().filter(|(id, work)| work.image && !wanted.contains(id) && !work.abort.is_cancelled());
        gone.map(|(id, work)| (*id, work.abort.cancel()).0).collect()
    }

    /// Forgets pauses of work that is no longer asked for.
    pub(super) fn retain(&self, wanted: &HashSet<Uuid>) {
        self.lock().paused.retain(|id, _| wanted.contains(id));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_pauses_grow_until_something_changes() {
        let (slots, id, now) = (Slots::default(), Uuid::nil(), Instant::now());
        assert!(slots.take(id, 1, false, now).is_some());
        assert!(slots.take(id, 2, false, now).is_none(), "it is under way");
        slots.finish(id, 1, Outcome::Retry, now);
        assert!(slots.take(id, 1, false, now).is_none(), "it pauses");
        assert!(slots.take(id, 1, false, now + Duration::from_secs(1)).is_some());
        slots.finish(id, 1, Outcome::Retry, now);
        assert!(slots.take(id, 1, false, now + Duration::from_secs(1)).is_none(), "the second pause is longer");
        assert!(slots.take(id, 2, false, now).is_some(), "a new intent does not wait");
        slots.finish(id, 2, Outcome::Done, now);
        assert_eq!(slots.next(), None);
    }

    #[test]
    fn urgent_work_ends_what_is_under_way_but_not_other_urgent_work() {
        let (slots, id, now) = (Slots::default(), Uuid::nil(), Instant::now());
        let slow = slots.take(id, 1, false, now).unwrap();
        assert!(slots.take(id, 2, false, now).is_none() && !slow.is_cancelled());
        assert!(slots.take(id, 2, true, now).is_none() && slow.is_cancelled());
        slots.finish(id, 1, Outcome::Retry, now);
        let urgent = slots.take(id, 2, true, now).unwrap();
        assert!(slots.take(id, 3, true, now).is_none() && !urgent.is_cancelled());
    }
}

//! Waiting awake for a moment. An idle processor sleeps, and to wake it costs more than Docker takes for a short answer; where answers
//! came at once before, the next is looked for a moment before the event loop waits for it.
//!
//! Bounds: [`MOMENT`] at a time, [`SHARE`] of one processor in the long run, only where the last waits were short, and never beside
//! many connections or on one processor. Every look yields: whoever else can run does.

use std::{
    cell::RefCell,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::{sched_getaffinity, sched_yield},
};

use super::copy::Direction;

/// Longest wait.
const MOMENT: Duration = Duration::from_micros(80);
/// A wait that took the event loop no longer could have been waited for here.
const SOON: Duration = Duration::from_micros(250);
/// One part of so many of a processor's time, and how much of it can be saved up.
const SHARE: u32 = 5;
const SAVED: Duration = Duration::from_millis(200);
/// Connections beside which nobody waits awake.
const MOST_OPEN: u32 = 8;
/// Short waits in a row that are needed, and that count at most; what a wait in vain takes away.
const ENOUGH: u32 = 3;
const MOST: u32 = 8;
const VAIN: u32 = 4;

/// What one thread knows of its connections' waits.
#[derive(Debug)]
struct Known {
    several: bool,
    open: u32,
    /// After something went up, and down.
    short: [u32; 2],
    saved: Duration,
    at: Instant,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known {
        // Not what a quota allows: whoever answers has another one.
        several: sched_getaffinity(None).is_ok_and(|set| set.count() > 1),
        open: 0,
        short: [0; 2],
        saved: SAVED,
        at: Instant::now(),
    });
}

/// One connection's waits.
#[derive(Debug)]
pub(super) struct Waits {
    /// The last short message, and when it had been passed on.
    last: Option<(Direction, Instant)>,
}

impl Waits {
    pub(super) fn new() -> Self {
        KNOWN.with_borrow_mut(|known| known.open += 1);
        Self { last: None }
    }

    /// A message was passed on.
    pub(super) fn carried(&mut self, direction: Direction) {
        let now = Instant::now();
        if let Some((last, at)) = self.last.replace((direction, now))
            && last != direction
        {
            KNOWN.with_borrow_mut(|known| known.learn(last, now.saturating_duration_since(at)));
        }
    }

    /// Something else than a short message was passed on: a stream is not waited for.
    pub(super) fn streams(&mut self) {
        self.last = None;
    }

    /// Waits for one of two sockets, if that is worth it; true when one has something.
    pub(super) fn wait(&self, a: &OwnedFd, b: &OwnedFd) -> bool {
        let Some((last, at)) = self.last else { return false };
        KNOWN.with_borrow_mut(|known| {
            let began = Instant::now();
            if began.saturating_duration_since(at) >= MOMENT || !known.worth(last, began) {
                return false;
            }
            loop {
                let found = ready(a, b);
                let spent = began.elapsed();
                if found || spent >= MOMENT {
                    known.spend(last, spent, found);
                    return found;
                }
                sched_yield();
            }
        })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // The thread may be at its end.
        let _ = KNOWN.try_with(|known| known.borrow_mut().open -= 1);
    }
}

impl Known {
    fn short(&mut self, last: Direction) -> &mut u32 {
        &mut self.short[usize::from(last == Direction::Down)]
    }

    fn learn(&mut self, last: Direction, waited: Duration) {
        let short = self.short(last);
        *short = if waited <= SOON { (*short + 1).min(MOST) } else { short.saturating_sub(1) };
    }

    fn worth(&mut self, last: Direction, now: Instant) -> bool {
        if !self.several || self.open > MOST_OPEN || *self.short(last) < ENOUGH {
            return false;
        }
        self.saved = (self.saved + now.saturating_duration_since(self.at) / SHARE).min(SAVED);
        self.at = now;
        self.saved >= MOMENT
    }

    fn spend(&mut self, last: Direction, spent: Duration, found: bool) {
        // What others ran meanwhile is not ours.
        self.saved = self.saved.saturating_sub(spent.min(MOMENT));
        if !found {
            let short = self.short(last);
            *short = short.saturating_sub(VAIN);
        }
    }
}

fn ready(a: &OwnedFd, b: &OwnedFd) -> bool {
    let mut both = [PollFd::new(a, PollFlags::IN), PollFd::new(b, PollFlags::IN)];
    poll(&mut both, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known { several: true, open: 1, short: [0; 2], saved: SAVED, at: Instant::now() }
    }

    #[test]
    fn only_short_waits_make_it_worth_and_one_in_vain_ends_it() {
        let mut known = known();
        let now = known.at;
        assert!(!known.worth(Direction::Up, now));
        (0..ENOUGH).for_each(|_| known.learn(Direction::Up, SOON));
        assert!(known.worth(Direction::Up, now) && !known.worth(Direction::Down, now));
        known.spend(Direction::Up, MOMENT, false);
        assert!(!known.worth(Direction::Up, now));
        (0..MOST).for_each(|_| known.learn(Direction::Up, SOON));
        (0..MOST).for_each(|_| known.learn(Direction::Up, SOON * 2));
        assert!(!known.worth(Direction::Up, now));
    }

    #[test]
    fn it_takes_its_share_of_a_processor_and_no_more() {
        let mut known = known();
        (0..MOST).for_each(|_| known.learn(Direction::Up, SOON));
        let (began, second) = (known.at, Duration::from_secs(1));
        let (mut now, mut spent) = (began, Duration::ZERO);
        while now < began + second {
            if known.worth(Direction::Up, now) {
                known.spend(Direction::Up, MOMENT, true);
                spent += MOMENT;
            }
            now += MOMENT;
        }
        assert!(spent <= SAVED + second / SHARE && spent > second / SHARE, "{spent:?}");
    }

    #[test]
    fn beside_many_connections_and_on_one_processor_nobody_waits() {
        for (several, open) in [(true, MOST_OPEN + 1), (false, 1)] {
            let mut known = Known { several, open, ..known() };
            (0..MOST).for_each(|_| known.learn(Direction::Up, SOON));
            assert!(!known.worth(Direction::Up, known.at));
        }
    }
}

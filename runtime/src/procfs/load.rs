//! Load averages of a berth, by what can be known when somebody asks; nothing is done while nobody does, or while it is frozen.
//!
//! The kernel counts every five seconds what runs or waits, and lets older counts fade: by e in one, five, fifteen minutes. Here a count
//! is made when somebody looks, and stands for the five seconds before. What lies further back, to the last look, is made up for by what
//! the control group counted meanwhile:
//!
//! - so many threads *ran* on average: time used ÷ time passed, exactly;
//! - in the part of the time in which the quota held them back, as many *wanted* to run as do now.
//!
//! Whoever looks every few seconds (`top`) sees what the kernel would show; the first look after an hour sees the hour's use, and the
//! crowd of now if the quota was used up all the time. What waited because others used the host is not seen then.

use std::time::Duration;

/// The kernel's.
const EVERY: f64 = 5.0;
const MINUTES: [f64; 3] = [60.0, 300.0, 900.0];

/// What is there at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Look {
    /// Any clock that goes on in sleep.
    pub(super) at: Duration,
    /// Threads that run, wait to run, or wait for a disk.
    pub(super) active: u64,
    pub(super) used_usec: u64,
    pub(super) throttled_periods: u64,
    pub(super) period_usec: u64,
}

/// The averages as of the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Averages {
    last: Look,
    loads: [f64; 3],
}

impl Averages {
    /// Of a berth that begins at `at`, with nothing in it.
    pub(super) fn begin(at: Duration) -> Self {
        Self { last: Look { at, ..Look::default() }, loads: [0.0; 3] }
    }

    /// Goes on to `now`.
    pub(super) fn look(&mut self, now: Look) -> [f64; 3] {
        let passed = now.at.saturating_sub(self.last.at).as_secs_f64();
        let (before, recent) = ((passed - EVERY).max(0.0), passed.min(EVERY));
        if before > 0.0 {
            let ran = seconds(now.used_usec.saturating_sub(self.last.used_usec)) / passed;
            let throttled = now.throttled_periods.saturating_sub(self.last.throttled_periods);
            let held_back = (seconds(throttled.saturating_mul(now.period_usec)) / passed).min(1.0);
            self.fade(before, ran + held_back * (now.active as f64 - ran).max(0.0));
        }
        self.fade(recent, now.active as f64);
        self.last = now;
        self.loads
    }

    fn fade(&mut self, seconds: f64, towards: f64) {
        for (load, minutes) in self.loads.iter_mut().zip(MINUTES) {
            *load = towards + (*load - towards) * (-seconds / minutes).exp();
        }
    }
}

fn seconds(usec: u64) -> f64 {
    usec as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, active: u64, used: u64, throttled_periods: u64) -> Look {
        Look { at: Duration::from_secs(at), active, used_usec: used * 1_000_000, throttled_periods, period_usec: 100_000 }
    }

    fn near(loads: [f64; 3], expected: [f64; 3]) {
        assert!(loads.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.02), "{loads:?}, not {expected:?}");
    }

    #[test]
    fn p02_seen_every_five_seconds_it_is_the_kernels_own_average() {
        let mut averages = Averages::begin(Duration::from_secs(1000));
        let mut kernel = [0.0; 3];
        for n in 1..=60 {
            let loads = averages.look(look(1000 + 5 * n, 3, 5 * n, 0));
            for (load, minutes) in kernel.iter_mut().zip(MINUTES) {
                let e = (-EVERY / minutes).exp();
                *load = *load * e + 3.0 * (1.0 - e);
            }
            near(loads, kernel);
        }
        near(kernel, [2.98, 1.90, 0.85]);
        // And fades when nothing runs any more.
        near(averages.look(look(1360, 0, 300, 0)), [2.98 / std::f64::consts::E, 1.55, 0.79]);
    }

    #[test]
    fn what_nobody_saw_is_made_up_from_the_time_used() {
        let mut averages = Averages::begin(Duration::ZERO);
        // One thread, all of an hour; but for the last moment.
        near(averages.look(look(3600, 1, 3600, 0)), [1.0, 1.0, 0.98]);
        // Asleep, frozen or idle for an hour: nothing is left.
        near(averages.look(look(7200, 0, 3600, 0)), [0.0; 3]);
        // Ten threads all the time, and a quota of half a CPU: it was used up in every period.
        near(averages.look(look(10800, 10, 5400, 36_000)), [10.0, 10.0, 9.82]);
        // Not held back, ten that are there just now were not there all the time.
        let loads = averages.look(look(14400, 10, 5400, 36_000));
        assert!(loads[0] < 1.0, "{loads:?}");
    }

    #[test]
    fn odd_looks_give_odd_figures_but_no_wrong_ones() {
        let mut averages = Averages::begin(Duration::from_secs(10));
        near(averages.look(look(5, 7, 0, 0)), [0.0; 3]);
        near(averages.look(look(5, 7, 0, 0)), [0.0; 3]);
        let loads = averages.look(look(100, 1, 0, u64::MAX));
        assert!(loads.iter().all(|load| (0.0..=1.0).contains(load)), "{loads:?}");
    }
}

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// A daemon that ran this long has recovered; its next end starts from [`FIRST`] again.
const STEADY: Duration = Duration::from_secs(60);

/// How long to wait before a daemon is started again: doubling, bounded.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after an end that came `ran` after the start.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= STEADY {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_over_after_a_steady_run() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..4).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800]);
        let longest = (0..1000).map(|_| backoff.after(Duration::from_secs(1))).max().unwrap();
        assert_eq!(longest, LONGEST);
        assert_eq!(backoff.after(STEADY), FIRST);
    }
}

//! Percentiles, and ratios that survive a host whose speed drifts.

use std::time::Duration;

/// Times of one thing, in rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    rounds: Vec<Vec<u64>>,
}

impl Samples {
    /// One round of nanoseconds.
    pub(super) fn push(&mut self, round: Vec<u64>) {
        self.rounds.push(round);
    }

    pub(super) fn push_one(&mut self, time: Duration) {
        self.push(nanoseconds(time));
    }

    pub(super) fn count(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// Nanoseconds at `percent` of all rounds together; panics without a sample.
    pub(super) fn percentile(&self, percent: f64) -> f64 {
        percentile(&self.rounds.concat(), percent) as f64
    }

    pub(super) fn p50(&self) -> f64 {
        self.percentile(50.0)
    }

    pub(super) fn p99(&self) -> f64 {
        self.percentile(99.0)
    }

    /// How far apart the quartiles are.
    pub(super) fn spread(&self) -> f64 {
        self.percentile(75.0) - self.percentile(25.0)
    }

    /// Median over the rounds of how this one's median of a round stands to the peer's of the same round.
    pub(super) fn ratio_to(&self, peer: &Samples) -> f64 {
        assert_eq!(self.rounds.len(), peer.rounds.len(), "rounds are interleaved");
        let of_round = |(own, peer): (&Vec<u64>, &Vec<u64>)| percentile(own, 50.0) as f64 / percentile(peer, 50.0) as f64;
        median(self.rounds.iter().zip(&peer.rounds).map(of_round).collect())
    }
}

/// A round of one time.
pub(super) fn nanoseconds(time: Duration) -> Vec<u64> {
    vec![u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)]
}

/// The smallest value that at least `percent` of all are not above (nearest rank).
fn percentile(values: &[u64], percent: f64) -> u64 {
    assert!(!values.is_empty(), "nothing was measured");
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rounds: &[&[u64]]) -> Samples {
        let mut samples = Samples::default();
        rounds.iter().for_each(|round| samples.push(round.to_vec()));
        samples
    }

    #[test]
    fn a_percentile_is_one_of_the_values_by_nearest_rank() {
        let values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!([50.0, 99.0, 100.0, 0.0].map(|p| percentile(&values, p)), [50, 99, 100, 1]);
        assert_eq!(percentile(&[7], 99.0), 7);
        assert_eq!(percentile(&[1, 2, 3, 4], 50.0), 2);
        assert_eq!(percentile(&[1, 2, 3, 4, 5], 50.0), 3);
    }

    #[test]
    fn rounds_are_pooled_for_percentiles() {
        let all = samples(&[&[10, 30], &[20]]);
        assert_eq!((all.count(), all.p50(), all.p99()), (3, 20.0, 30.0));
        assert!((samples(&[&[10, 20], &[30, 100]]).spread() - 20.0).abs() < 1e-9, "one that is far out moves nothing");
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_so_that_a_drift_of_the_host_cancels_out() {
        let direct = samples(&[&[100], &[200], &[400]]);
        let other = samples(&[&[150], &[300], &[600]]);
        assert!((other.ratio_to(&direct) - 1.5).abs() < 1e-9);
        // One bad round of three moves nothing.
        let hiccup = samples(&[&[150], &[300], &[60_000]]);
        assert!((hiccup.ratio_to(&direct) - 1.5).abs() < 1e-9);
        let even = samples(&[&[100], &[200]]);
        assert!((even.ratio_to(&samples(&[&[100], &[100]])) - 1.5).abs() < 1e-9);
    }

    #[test]
    #[should_panic(expected = "rounds are interleaved")]
    fn unequal_rounds_have_no_ratio() {
        samples(&[&[1]]).ratio_to(&samples(&[&[1], &[2]]));
    }

    #[test]
    #[should_panic(expected = "nothing was measured")]
    fn no_samples_have_no_percentile() {
        Samples::default().p50();
    }
}

//! Samples of use, and the points of a chart that come of them.

/// What a berth used at one time; counters run since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSample {
    pub at: i64,
    pub cpu_usec: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub pids: u64,
    pub io_read_bytes: u64,
    pub io_write_bytes: u64,
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
}

/// What a berth used up to a time, since the point before. Rates are a second's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsagePoint {
    pub at: i64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub pids: u64,
    /// Nothing for the first sample after a start or a gap.
    pub rates: Option<Rates>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    pub io_read_bps: u64,
    pub io_write_bps: u64,
    pub egress_bps: u64,
    pub ingress_bps: u64,
}

/// Samples further apart tell nothing of the time between them.
const GAP: i64 = 150_000;

/// At most `most` points: neighbours are put together, the largest memory, disk and number of processes of each lot kept, rates averaged.
pub fn points(samples: &[UsageSample], most: usize) -> Vec<UsagePoint> {
    let size = samples.len().div_ceil(most.max(1)).max(1);
    let mut points = Vec::with_capacity(samples.len().div_ceil(size));
    let mut before: Option<&UsageSample> = None;
    for lot in samples.chunks(size) {
        let (mut sum, mut elapsed) = (Rates::default(), 0_u64);
        for sample in lot {
            if let Some((grown, millis)) = before.and_then(|before| growth(before, sample)) {
                sum = Rates {
                    cpu_millis: sum.cpu_millis + grown.cpu_millis,
                    io_read_bps: sum.io_read_bps + grown.io_read_bps,
                    io_write_bps: sum.io_write_bps + grown.io_write_bps,
                    egress_bps: sum.egress_bps + grown.egress_bps,
                    ingress_bps: sum.ingress_bps + grown.ingress_bps,
                };
                elapsed += millis;
            }
            before = Some(sample);
        }
        let most = |of: fn(&UsageSample) -> u64| lot.iter().map(of).max().unwrap_or_default();
        let a_second = |grown: u64| u64::try_from(u128::from(grown) * 1000 / u128::from(elapsed.max(1))).unwrap_or(u64::MAX);
        points.push(UsagePoint {
            at: lot.last().map_or(0, |last| last.at),
            memory_bytes: most(|one| one.memory_bytes),
            disk_bytes: most(|one| one.disk_bytes),
            pids: most(|one| one.pids),
            rates: (elapsed > 0).then(|| Rates {
                // Microseconds of CPU in a second are millionths of a CPU.
                cpu_millis: a_second(sum.cpu_millis) / 1000,
                io_read_bps: a_second(sum.io_read_bps),
                io_write_bps: a_second(sum.io_write_bps),
                egress_bps: a_second(sum.egress_bps),
                ingress_bps: a_second(sum.ingress_bps),
            }),
        });
    }
    points
}

/// By how much the counters grew, and in how many milliseconds; nothing when the berth was started anew between, or not looked at.
fn growth(before: &UsageSample, after: &UsageSample) -> Option<(Rates, u64)> {
    let elapsed = u64::try_from(after.at - before.at).ok().filter(|elapsed| *elapsed > 0 && after.at - before.at <= GAP)?;
    let grown = Rates {
        cpu_millis: after.cpu_usec.checked_sub(before.cpu_usec)?,
        io_read_bps: after.io_read_bytes.checked_sub(before.io_read_bytes)?,
        io_write_bps: after.io_write_bytes.checked_sub(before.io_write_bytes)?,
        egress_bps: after.egress_bytes.checked_sub(before.egress_bytes)?,
        ingress_bps: after.ingress_bytes.checked_sub(before.ingress_bytes)?,
    };
    Some((grown, elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minute: i64, cpu_seconds: u64, memory: u64) -> UsageSample {
        UsageSample { at: minute * 60_000, cpu_usec: cpu_seconds * 1_000_000, memory_bytes: memory, ..UsageSample::default() }
    }

    #[test]
    fn counters_become_rates_and_a_restart_or_a_gap_is_none() {
        let samples = [sample(0, 0, 5), sample(1, 30, 7), sample(2, 1, 6), sample(3, 61, 6), sample(9, 62, 6)];
        let cpu: Vec<_> = points(&samples, 100).iter().map(|point| point.rates.map(|rates| rates.cpu_millis)).collect();
        assert_eq!(cpu, [None, Some(500), None, Some(1000), None]);
    }

    #[test]
    fn many_samples_become_few_points_that_keep_the_peaks() {
        let samples: Vec<_> = (0..1440).map(|minute| sample(minute, minute as u64 * 60, if minute == 700 { 99 } else { 1 })).collect();
        let few = points(&samples, 300);
        assert_eq!(few.len(), 288);
        assert_eq!(few.iter().map(|point| point.memory_bytes).max(), Some(99));
        assert!(few.iter().skip(1).all(|point| point.rates.unwrap().cpu_millis == 1000));
        assert_eq!(few.last().unwrap().at, 1439 * 60_000);
        assert!(points(&[], 300).is_empty());
    }
}

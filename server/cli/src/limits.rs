//! Limits on the command line: Docker's flags where Docker has them, its 1024-based sizes, bits per second as `tc` writes them.

use berth_api::Egress;
use clap::Args;

use crate::{
    failure::Failure,
    units::{Cpus, EgressWord, OrNone, OrProfile, Rate, Shares, Size},
};

/// Limits of a new berth or profile.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArguments {
    /// CPUs, for instance 1.5
    #[arg(long, value_name = "N")]
    pub cpus: Option<Cpus>,
    /// Share of a busy host against other berths, 1 to 10000 [usual: 100]
    #[arg(long, value_name = "N", conflicts_with = "cpu_shares")]
    pub cpu_weight: Option<u32>,
    /// The same in Docker's figures: 1024 is a weight of 100
    #[arg(long, value_name = "N")]
    pub cpu_shares: Option<Shares>,
    /// Memory, page cache included, for instance 4g
    #[arg(long, short = 'm', value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Slow the berth down and take memory back from here on, before the limit is reached, or none
    #[arg(long, value_name = "SIZE")]
    pub memory_high: Option<OrNone<Size>>,
    /// Memory and swap together, as Docker counts them; needs --memory. The same as --memory: no swap
    #[arg(long, value_name = "SIZE", requires = "memory", conflicts_with = "swap")]
    pub memory_swap: Option<Size>,
    /// Swap alone, on top of the memory, or none
    #[arg(long, value_name = "SIZE")]
    pub swap: Option<OrNone<Size>>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<u32>,
    /// Disk for images, volumes, build cache and files together, for instance 20g
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<Size>,
    /// Files and directories on that disk, or none: as many as its size gives
    #[arg(long, value_name = "N")]
    pub inodes: Option<OrNone<u64>>,
    /// Bytes read from disks in a second, for instance 50m, or none: as many as they give
    #[arg(long, value_name = "SIZE")]
    pub io_read_bps: Option<OrNone<Size>>,
    /// Bytes written
    #[arg(long, value_name = "SIZE")]
    pub io_write_bps: Option<OrNone<Size>>,
    /// Reading operations in a second, or none
    #[arg(long, value_name = "N")]
    pub io_read_iops: Option<OrNone<u64>>,
    /// Writing operations
    #[arg(long, value_name = "N")]
    pub io_write_iops: Option<OrNone<u64>>,
    /// Rate of what leaves the berth, for instance 100mbit, or none: as fast as the host
    #[arg(long, value_name = "RATE")]
    pub net_egress: Option<OrNone<Rate>>,
    /// Rate of what reaches it
    #[arg(long, value_name = "RATE")]
    pub net_ingress: Option<OrNone<Rate>>,
    /// What it reaches: all, internet (no private networks, nothing of the host), none, or networks: 192.0.2.0/24,…
    #[arg(long, value_name = "WHAT")]
    pub egress: Option<EgressWord>,
}

/// Limits of a berth that is there; the word profile goes back to the profile's.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits (profile: what the profile says)")]
pub(crate) struct ChangeArguments {
    /// CPUs, for instance 1.5
    #[arg(long, value_name = "N")]
    pub cpus: Option<OrProfile<Cpus>>,
    /// Share of a busy host against other berths, 1 to 10000 [usual: 100]
    #[arg(long, value_name = "N", conflicts_with = "cpu_shares")]
    pub cpu_weight: Option<OrProfile<u32>>,
    /// The same in Docker's figures: 1024 is a weight of 100
    #[arg(long, value_name = "N")]
    pub cpu_shares: Option<OrProfile<Shares>>,
    /// Memory, page cache included, for instance 4g
    #[arg(long, short = 'm', value_name = "SIZE")]
    pub memory: Option<OrProfile<Size>>,
    /// Slow the berth down and take memory back from here on, before the limit is reached, or none
    #[arg(long, value_name = "SIZE")]
    pub memory_high: Option<OrProfile<OrNone<Size>>>,
    /// Memory and swap together, as Docker counts them; needs --memory. The same as --memory: no swap
    #[arg(long, value_name = "SIZE", requires = "memory", conflicts_with = "swap")]
    pub memory_swap: Option<Size>,
    /// Swap alone, on top of the memory, or none
    #[arg(long, value_name = "SIZE")]
    pub swap: Option<OrProfile<OrNone<Size>>>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<OrProfile<u32>>,
    /// Disk, for instance 20g; not below what is in use
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<OrProfile<Size>>,
    /// Files and directories on that disk, or none: as many as its size gives
    #[arg(long, value_name = "N")]
    pub inodes: Option<OrProfile<OrNone<u64>>>,
    /// Bytes read from disks in a second, for instance 50m, or none: as many as they give
    #[arg(long, value_name = "SIZE")]
    pub io_read_bps: Option<OrProfile<OrNone<Size>>>,
    /// Bytes written
    #[arg(long, value_name = "SIZE")]
    pub io_write_bps: Option<OrProfile<OrNone<Size>>>,
    /// Reading operations in a second, or none
    #[arg(long, value_name = "N")]
    pub io_read_iops: Option<OrProfile<OrNone<u64>>>,
    /// Writing operations
    #[arg(long, value_name = "N")]
    pub io_write_iops: Option<OrProfile<OrNone<u64>>>,
    /// Rate of what leaves the berth, for instance 100mbit, or none: as fast as the host
    #[arg(long, value_name = "RATE")]
    pub net_egress: Option<OrProfile<OrNone<Rate>>>,
    /// Rate of what reaches it
    #[arg(long, value_name = "RATE")]
    pub net_ingress: Option<OrProfile<OrNone<Rate>>>,
    /// What it reaches: all, internet (no private networks, nothing of the host), none, or networks: 192.0.2.0/24,…
    #[arg(long, value_name = "WHAT")]
    pub egress: Option<OrProfile<EgressWord>>,
}

/// Limits as requests name them: with `Option`s for new things, with `Option<Option>` for a change of what a berth has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named<Small, Large> {
    pub cpu_millis: Small,
    pub cpu_weight: Small,
    pub memory_bytes: Large,
    pub memory_high_bytes: Large,
    pub swap_bytes: Large,
    pub pids: Small,
    pub disk_bytes: Large,
    pub inodes: Large,
    pub io_read_bps: Large,
    pub io_write_bps: Large,
    pub io_read_iops: Large,
    pub io_write_iops: Large,
    pub network_egress_bits: Large,
    pub network_ingress_bits: Large,
}

/// A request with these limits; the fields have the same names in all of them.
macro_rules! with_limits {
    ($limits:expr, $kind:ident { $($rest:tt)* }) => {{
        let limits = $limits;
        $kind {
            cpu_millis: limits.cpu_millis,
            cpu_weight: limits.cpu_weight,
            memory_bytes: limits.memory_bytes,
            memory_high_bytes: limits.memory_high_bytes,
            swap_bytes: limits.swap_bytes,
            pids: limits.pids,
            disk_bytes: limits.disk_bytes,
            inodes: limits.inodes,
            io_read_bps: limits.io_read_bps,
            io_write_bps: limits.io_write_bps,
            io_read_iops: limits.io_read_iops,
            io_write_iops: limits.io_write_iops,
            network_egress_bits: limits.network_egress_bits,
            network_ingress_bits: limits.network_ingress_bits,
            $($rest)*
        }
    }};
}

pub(crate) use with_limits;

impl LimitArguments {
    pub(crate) fn named(&self) -> Result<Named<Option<u32>, Option<u64>>, Failure> {
        let swap = match (self.memory, self.memory_swap) {
            (Some(memory), Some(both)) => Some(swap_of(memory, both)?),
            _ => self.swap.map(u64::from),
        };
        Ok(Named {
            cpu_millis: self.cpus.map(|cpus| cpus.0),
            cpu_weight: self.cpu_weight.or(self.cpu_shares.map(|shares| shares.weight())),
            memory_bytes: self.memory.map(|size| size.0),
            memory_high_bytes: self.memory_high.map(u64::from),
            swap_bytes: swap,
            pids: self.pids_limit,
            disk_bytes: self.disk.map(|size| size.0),
            inodes: self.inodes.map(u64::from),
            io_read_bps: self.io_read_bps.map(u64::from),
            io_write_bps: self.io_write_bps.map(u64::from),
            io_read_iops: self.io_read_iops.map(u64::from),
            io_write_iops: self.io_write_iops.map(u64::from),
            network_egress_bits: self.net_egress.map(u64::from),
            network_ingress_bits: self.net_ingress.map(u64::from),
        })
    }

    pub(crate) fn egress(&self) -> Option<Egress> {
        self.egress.clone().map(|word| word.0)
    }
}

/// For a change: `Some(None)` goes back to the profile.
type Changed<T> = Option<Option<T>>;

impl ChangeArguments {
    pub(crate) fn named(&self) -> Result<Named<Changed<u32>, Changed<u64>>, Failure> {
        fn large<T: Copy>(value: Option<OrProfile<T>>, number: impl FnOnce(T) -> u64) -> Changed<u64> {
            value.map(|value| value.into_change(number))
        }
        let swap = match (self.memory, self.memory_swap) {
            (Some(OrProfile::Value(memory)), Some(both)) => Some(Some(swap_of(memory, both)?)),
            (_, Some(_)) => return Err(Failure::usage("--memory-swap needs a --memory of its own", "name the swap alone: --swap 1g")),
            _ => large(self.swap, u64::from),
        };
        let shares = self.cpu_shares.map(|shares| shares.into_change(|shares| shares.weight()));
        Ok(Named {
            cpu_millis: self.cpus.map(|cpus| cpus.into_change(|cpus| cpus.0)),
            cpu_weight: self.cpu_weight.map(|weight| weight.into_change(|weight| weight)).or(shares),
            memory_bytes: large(self.memory, |size| size.0),
            memory_high_bytes: large(self.memory_high, u64::from),
            swap_bytes: swap,
            pids: self.pids_limit.map(|pids| pids.into_change(|pids| pids)),
            disk_bytes: large(self.disk, |size| size.0),
            inodes: large(self.inodes, u64::from),
            io_read_bps: large(self.io_read_bps, u64::from),
            io_write_bps: large(self.io_write_bps, u64::from),
            io_read_iops: large(self.io_read_iops, u64::from),
            io_write_iops: large(self.io_write_iops, u64::from),
            network_egress_bits: large(self.net_egress, u64::from),
            network_ingress_bits: large(self.net_ingress, u64::from),
        })
    }

    pub(crate) fn egress(&self) -> Changed<Egress> {
        self.egress.clone().map(|word| word.into_change(|word| word.0))
    }
}

/// Docker's `--memory-swap` counts both.
fn swap_of(memory: Size, both: Size) -> Result<u64, Failure> {
    both.0.checked_sub(memory.0).ok_or_else(|| {
        let detail = format!("--memory-swap ({} bytes) is less than --memory ({} bytes); it counts both", both.0, memory.0);
        Failure::usage(detail, "write memory and swap together, or the swap alone: --swap 1g")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::arguments::{Arguments, Command};

    fn set(line: &[&str]) -> super::ChangeArguments {
        let line = ["berth", "set", "a"].into_iter().chain(line.iter().copied());
        let Command::Set { limits, .. } = Arguments::try_parse_from(line).unwrap().command else { panic!() };
        limits
    }

    #[test]
    fn swap_is_counted_as_docker_counts_it_or_alone() {
        for (line, swap) in [
            (&["--memory", "4g", "--memory-swap", "6g"][..], Some(Some(2 << 30))),
            (&["--memory", "4g", "--memory-swap", "4g"], Some(Some(0))),
            (&["--swap", "1g"], Some(Some(1 << 30))),
            (&["--swap", "none"], Some(Some(0))),
            (&["--swap", "profile"], Some(None)),
            (&["--memory", "4g"], None),
        ] {
            assert_eq!(set(line).named().ok().unwrap().swap_bytes, swap, "{line:?}");
        }
        for line in [&["--memory", "4g", "--memory-swap", "3g"][..], &["--memory", "profile", "--memory-swap", "3g"]] {
            assert_eq!(set(line).named().err().unwrap().code(), 2, "{line:?}");
        }
        for line in [
            &["--memory-swap", "4g"][..],
            &["--memory", "1g", "--memory-swap", "4g", "--swap", "1g"],
            &["--cpu-weight", "5", "--cpu-shares", "5"],
        ] {
            let line = ["berth", "set", "a"].into_iter().chain(line.iter().copied());
            assert!(Arguments::try_parse_from(line).is_err());
        }
    }

    #[test]
    fn every_limit_can_be_set_taken_away_and_given_back() {
        let named = set(&["--io-read-bps", "10m", "--io-write-iops", "none", "--net-egress", "100mbit", "--inodes", "profile"])
            .named()
            .ok()
            .unwrap();
        assert_eq!((named.io_read_bps, named.io_write_iops), (Some(Some(10 << 20)), Some(Some(0))));
        assert_eq!((named.network_egress_bits, named.inodes, named.pids), (Some(Some(100_000_000)), Some(None), None));
        for (shares, weight) in [("1024", 100), ("512", 50), ("2", 1), ("262144", 10_000)] {
            assert_eq!(set(&["--cpu-shares", shares]).named().ok().unwrap().cpu_weight, Some(Some(weight)), "{shares}");
        }
    }
}

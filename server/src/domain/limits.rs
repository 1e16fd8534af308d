use serde::{Deserialize, Serialize};

/// Quota of one berth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub cpu_millis: u32,
    pub memory_bytes: u64,
    pub pids: u32,
    pub disk_bytes: u64,
}

/// A limit outside of what a Docker daemon can live with, or a kernel can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    #[error("{field} is {value}, the least is {bound}")]
    TooLow { field: &'static str, value: u64, bound: u64 },
    #[error("{field} is {value}, the most is {bound}")]
    TooHigh { field: &'static str, value: u64, bound: u64 },
}

impl Limits {
    /// The node holds the same figures (`berth_protocol::Limits::LEAST`); a test compares them.
    pub const LEAST: Limits = Limits { cpu_millis: 50, memory_bytes: 256 << 20, pids: 64, disk_bytes: 1 << 30 };
    /// 4096 CPUs, 16 TiB of memory, the kernel's PID_MAX_LIMIT, 1 PiB of disk: sums over 8,000 berths still fit a BIGINT.
    pub const MOST: Limits = Limits { cpu_millis: 4_096_000, memory_bytes: 1 << 44, pids: 1 << 22, disk_bytes: 1 << 50 };

    pub fn validate(&self) -> Result<(), InvalidLimits> {
        for ((field, value), ((_, least), (_, most))) in
            self.fields().into_iter().zip(Self::LEAST.fields().into_iter().zip(Self::MOST.fields()))
        {
            if value < least {
                return Err(InvalidLimits::TooLow { field, value, bound: least });
            }
            if value > most {
                return Err(InvalidLimits::TooHigh { field, value, bound: most });
            }
        }
        Ok(())
    }

    fn fields(&self) -> [(&'static str, u64); 4] {
        [
            ("cpu_millis", u64::from(self.cpu_millis)),
            ("memory_bytes", self.memory_bytes),
            ("pids", u64::from(self.pids)),
            ("disk_bytes", self.disk_bytes),
        ]
    }
}

/// The limits in which a berth differs from its profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLimits {
    pub cpu_millis: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u32>,
    pub disk_bytes: Option<u64>,
}

impl OwnLimits {
    /// The profile's limits with these in their place.
    pub fn over(&self, profile: Limits) -> Limits {
        Limits {
            cpu_millis: self.cpu_millis.unwrap_or(profile.cpu_millis),
            memory_bytes: self.memory_bytes.unwrap_or(profile.memory_bytes),
            pids: self.pids.unwrap_or(profile.pids),
            disk_bytes: self.disk_bytes.unwrap_or(profile.disk_bytes),
        }
    }

    /// Names of the limits that are set.
    pub fn names(&self) -> Vec<&'static str> {
        [
            ("cpu_millis", self.cpu_millis.is_some()),
            ("memory_bytes", self.memory_bytes.is_some()),
            ("pids", self.pids.is_some()),
            ("disk_bytes", self.disk_bytes.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_name_the_field() {
        assert_eq!(Limits::LEAST.validate(), Ok(()));
        assert_eq!(Limits::MOST.validate(), Ok(()));
        let low = Limits { memory_bytes: 1, ..Limits::LEAST };
        assert_eq!(low.validate().unwrap_err().to_string(), "memory_bytes is 1, the least is 268435456");
        let high = Limits { disk_bytes: u64::MAX, ..Limits::LEAST };
        assert!(matches!(high.validate(), Err(InvalidLimits::TooHigh { field: "disk_bytes", .. })));
    }

    #[test]
    fn own_limits_win_over_the_profile() {
        let own = OwnLimits { pids: Some(100), ..OwnLimits::default() };
        assert_eq!(own.over(Limits::LEAST), Limits { pids: 100, ..Limits::LEAST });
        assert_eq!(own.names(), ["pids"]);
    }
}

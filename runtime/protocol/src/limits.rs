use serde::{Deserialize, Serialize};

/// Quota of one berth. A berth always has all four, from its first instant (Q07).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Thousandths of a CPU: 1500 is one and a half.
    pub cpu_millis: u32,
    /// Bytes of memory, page cache included.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes of the berth's disk: root file system, images, volumes and build cache together.
    pub disk_bytes: u64,
}

/// A limit below what a Docker daemon can live with; the message names the value and the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, the least is {least}")]
pub struct InvalidLimits {
    pub field: &'static str,
    pub value: u64,
    pub least: u64,
}

impl Limits {
    pub const LEAST: Limits = Limits { cpu_millis: 50, memory_bytes: 256 << 20, pids: 64, disk_bytes: 1 << 30 };

    /// Checks each limit against [`Limits::LEAST`].
    pub fn validate(&self) -> Result<(), InvalidLimits> {
        let least = Self::LEAST;
        for (field, value, least) in [
            ("cpu_millis", u64::from(self.cpu_millis), u64::from(least.cpu_millis)),
            ("memory_bytes", self.memory_bytes, least.memory_bytes),
            ("pids", u64::from(self.pids), u64::from(least.pids)),
            ("disk_bytes", self.disk_bytes, least.disk_bytes),
        ] {
            if value < least {
                return Err(InvalidLimits { field, value, least });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_accepted_and_one_less_is_not() {
        assert_eq!(Limits::LEAST.validate(), Ok(()));
        let small = Limits { disk_bytes: (1 << 30) - 1, ..Limits::LEAST };
        assert_eq!(small.validate().unwrap_err().field, "disk_bytes");
    }
}

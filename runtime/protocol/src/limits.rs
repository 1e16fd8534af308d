use serde::{Deserialize, Serialize};

/// Quota of one berth. A berth always has the first four kinds (cpu, memory, pids, disk), from its first instant (Q07).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Thousandths of a CPU: 1500 is one and a half.
    pub cpu_millis: u32,
    /// Share of a busy host against other berths, 1–10000; 100 unless said otherwise.
    #[serde(default = "usual_weight")]
    pub cpu_weight: u32,
    /// Bytes of memory, page cache included.
    pub memory_bytes: u64,
    /// Bytes of memory above which the berth is throttled and its memory reclaimed; `None`: only the limit itself.
    #[serde(default)]
    pub memory_high_bytes: Option<u64>,
    /// Bytes of swap on top of the memory; 0: none.
    #[serde(default)]
    pub swap_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes of the berth's disk: root file system, images, volumes and build cache together.
    pub disk_bytes: u64,
    /// Files and directories on that disk; `None`: as many as its size gives.
    #[serde(default)]
    pub inodes: Option<u64>,
    #[serde(default)]
    pub io: IoLimits,
    #[serde(default)]
    pub network: NetworkLimits,
}

/// What a berth may read from and write to the host's block devices; `None`: as much as these give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IoLimits {
    /// Bytes per second.
    pub read_bps: Option<u64>,
    pub write_bps: Option<u64>,
    /// Operations per second.
    pub read_iops: Option<u64>,
    pub write_iops: Option<u64>,
}

/// Rates of the berth's network; `None`: as fast as the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkLimits {
    /// Bits per second that leave the berth.
    pub egress_bits: Option<u64>,
    /// Bits per second that reach it.
    pub ingress_bits: Option<u64>,
}

/// A limit outside of what a Docker daemon can live with, or a kernel can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    #[error("{field} is {value}, the least is {bound}")]
    TooLow { field: &'static str, value: u64, bound: u64 },
    #[error("{field} is {value}, the most is {bound}")]
    TooHigh { field: &'static str, value: u64, bound: u64 },
    #[error("memory_high_bytes is {high}, more than the memory_bytes of {memory}")]
    HighAboveMemory { high: u64, memory: u64 },
}

fn usual_weight() -> u32 {
    Limits::USUAL_WEIGHT
}

impl Limits {
    pub const USUAL_WEIGHT: u32 = 100;
    /// The least of each limit that must be there; those that need not be are absent.
    pub const LEAST: Limits = Limits {
        cpu_millis: 50,
        cpu_weight: 1,
        memory_bytes: 256 << 20,
        memory_high_bytes: None,
        swap_bytes: 0,
        pids: 64,
        disk_bytes: 1 << 30,
        inodes: None,
        io: IoLimits { read_bps: None, write_bps: None, read_iops: None, write_iops: None },
        network: NetworkLimits { egress_bits: None, ingress_bits: None },
    };
    /// Least and most of each limit, by name; one that is absent has none. The most: 4096 CPUs, 16 TiB of memory and of swap, the kernel's
    /// PID_MAX_LIMIT, 1 PiB of disk, ext4's count of inodes, 1 TiB/s, a thousand million operations and a Tbit/s.
    pub fn bounds(&self) -> [(&'static str, Option<u64>, u64, u64); 14] {
        const MEMORY: u64 = 1 << 44;
        const BPS: (u64, u64) = (1 << 20, 1 << 40);
        const IOPS: (u64, u64) = (50, 1_000_000_000);
        const BITS: (u64, u64) = (100_000, 1_000_000_000_000);
        let least = Self::LEAST;
        let Self { io, network, .. } = *self;
        [
            ("cpu_millis", Some(self.cpu_millis.into()), least.cpu_millis.into(), 4_096_000),
            ("cpu_weight", Some(self.cpu_weight.into()), least.cpu_weight.into(), 10_000),
            ("memory_bytes", Some(self.memory_bytes), least.memory_bytes, MEMORY),
            ("memory_high_bytes", self.memory_high_bytes, 128 << 20, MEMORY),
            ("swap_bytes", Some(self.swap_bytes), 0, MEMORY),
            ("pids", Some(self.pids.into()), least.pids.into(), 1 << 22),
            ("disk_bytes", Some(self.disk_bytes), least.disk_bytes, 1 << 50),
            ("inodes", self.inodes, 16_384, u32::MAX as u64),
            ("io_read_bps", io.read_bps, BPS.0, BPS.1),
            ("io_write_bps", io.write_bps, BPS.0, BPS.1),
            ("io_read_iops", io.read_iops, IOPS.0, IOPS.1),
            ("io_write_iops", io.write_iops, IOPS.0, IOPS.1),
            ("network_egress_bits", network.egress_bits, BITS.0, BITS.1),
            ("network_ingress_bits", network.ingress_bits, BITS.0, BITS.1),
        ]
    }

    /// Checks each limit against its least and its most; the error names the field, its value and the bound.
    pub fn validate(&self) -> Result<(), InvalidLimits> {
        for (field, value, least, most) in self.bounds() {
            match value {
                Some(value) if value < least => return Err(InvalidLimits::TooLow { field, value, bound: least }),
                Some(value) if value > most => return Err(InvalidLimits::TooHigh { field, value, bound: most }),
                _ => {}
            }
        }
        match self.memory_high_bytes {
            Some(high) if high > self.memory_bytes => Err(InvalidLimits::HighAboveMemory { high, memory: self.memory_bytes }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_accepted_and_one_less_is_not() {
        assert_eq!(Limits::LEAST.validate(), Ok(()));
        let small = Limits { disk_bytes: (1 << 30) - 1, ..Limits::LEAST };
        assert!(matches!(small.validate(), Err(InvalidLimits::TooLow { field: "disk_bytes", bound: 0x4000_0000, .. })));
        let weight = |cpu_weight| Limits { cpu_weight, ..Limits::LEAST }.validate();
        assert_eq!((weight(1), weight(10_000)), (Ok(()), Ok(())));
        assert_eq!(weight(0).unwrap_err().to_string(), "cpu_weight is 0, the least is 1");
        assert_eq!(weight(10_001).unwrap_err().to_string(), "cpu_weight is 10001, the most is 10000");
    }

    #[test]
    fn what_need_not_be_there_is_bounded_when_it_is() {
        let io = |read_bps| Limits { io: IoLimits { read_bps, ..IoLimits::default() }, ..Limits::LEAST }.validate();
        assert_eq!((io(None), io(Some(1 << 20))), (Ok(()), Ok(())));
        assert!(matches!(io(Some(0)), Err(InvalidLimits::TooLow { field: "io_read_bps", value: 0, .. })));
        let network = NetworkLimits { egress_bits: Some(99_999), ingress_bits: None };
        let slow = Limits { network, ..Limits::LEAST };
        assert!(matches!(slow.validate(), Err(InvalidLimits::TooLow { field: "network_egress_bits", .. })));
    }

    #[test]
    fn throttling_begins_at_the_limit_or_below() {
        let high = |high| Limits { memory_high_bytes: Some(high), ..Limits::LEAST }.validate();
        assert_eq!((high(128 << 20), high(256 << 20)), (Ok(()), Ok(())));
        assert_eq!(high((256 << 20) + 1), Err(InvalidLimits::HighAboveMemory { high: (256 << 20) + 1, memory: 256 << 20 }));
    }

    #[test]
    fn records_of_before_load_with_what_was_so_then() {
        let old = r#"{"cpu_millis":50,"memory_bytes":268435456,"pids":64,"disk_bytes":1073741824}"#;
        let read: Limits = serde_json::from_str(old).unwrap();
        assert_eq!(read, Limits { cpu_weight: Limits::USUAL_WEIGHT, ..Limits::LEAST });
    }
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Quota of a berth or a profile. A limit that is absent does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Thousandths of a CPU; at least 50.
    pub cpu_millis: u32,
    /// Share of a busy host against other berths, 1 to 10000; 100 is usual.
    pub cpu_weight: u32,
    /// Bytes of memory, page cache included; at least 256 MiB.
    pub memory_bytes: u64,
    /// Bytes above which the berth is throttled and its memory reclaimed; at least 128 MiB, at most the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_high_bytes: Option<u64>,
    /// Bytes of swap on top of the memory.
    pub swap_bytes: u64,
    /// Processes and threads; at least 64.
    pub pids: u32,
    /// Bytes of the berth's disk; at least 1 GiB.
    pub disk_bytes: u64,
    /// Files and directories on it; at least 16384. Without it as many as the disk's size gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Bytes per second from and to block devices; at least 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_bps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_bps: Option<u64>,
    /// Operations per second; at least 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_iops: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_iops: Option<u64>,
    /// Bits per second that leave the berth; at least 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_egress_bits: Option<u64>,
    /// Bits per second that reach it; at least 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_ingress_bits: Option<u64>,
}

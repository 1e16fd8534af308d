use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{BerthState, Limits};

/// Use of a berth. Counters run since its start; of one that does not run only the disk's figures say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Usage {
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    pub pids: u64,
    /// CPU time in microseconds.
    pub cpu_usec: u64,
    /// Microseconds in which its quota of CPU held it back, summed over its CPUs.
    pub throttled_usec: u64,
    /// Processes killed because the memory ran out.
    pub oom_kills: u64,
    /// Bytes that the disk occupies on the host.
    pub disk_bytes: u64,
    /// What `df` says inside; absent while the disk is not mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskUsage>,
    pub io: IoUsage,
    pub network: NetworkUsage,
    /// Absent where the kernel tells none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Bytes and inodes, in use and in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskUsage {
    pub used_bytes: u64,
    /// The limit in force, which may be lower than the quota while the host's own disk is nearly full.
    pub limit_bytes: u64,
    pub used_inodes: u64,
    pub limit_inodes: u64,
}

/// From and to block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IoUsage {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
}

/// Bytes from the berth and to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkUsage {
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
}

/// How much of the time tasks of the berth waited (PSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pressure {
    pub cpu: Stall,
    pub memory: Stall,
    pub io: Stall,
}

/// Hundredths of a percent of the last ten and of the last sixty seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stall {
    /// At least one task waited.
    pub some_avg10: u32,
    pub some_avg60: u32,
    /// All tasks that could have run waited.
    pub full_avg10: u32,
    pub full_avg60: u32,
}

/// What a berth that is up uses, and of how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BerthUsage {
    pub user: String,
    pub id: Uuid,
    pub state: BerthState,
    /// When the node read it; milliseconds since the epoch.
    pub at: i64,
    pub limits: Limits,
    pub usage: Usage,
}

/// The berths that are up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageList {
    pub items: Vec<BerthUsage>,
}

/// What a berth used up to a time, since the point before; rates are a second's, and absent for the first point after a start or a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsagePoint {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// The most of the time that the point stands for; so are disk and processes.
    pub memory_bytes: u64,
    /// Taken on the host.
    pub disk_bytes: u64,
    pub pids: u64,
    /// Thousandths of a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Bytes from block devices, and to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_bps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_bps: Option<u64>,
    /// Bytes from the berth to the network, and to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_bps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_bps: Option<u64>,
}

/// Points of a chart, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageChart {
    pub items: Vec<UsagePoint>,
}

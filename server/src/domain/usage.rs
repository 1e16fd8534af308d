//! What a berth uses of its host. Counters run since the berth's start.

use serde::{Deserialize, Serialize};

use super::{BerthId, State};

/// Of a berth that does not run only the disk's figures say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    pub pids: u64,
    /// Microseconds.
    pub cpu_usec: u64,
    /// Microseconds in which its quota of CPU held it back.
    pub throttled_usec: u64,
    pub oom_kills: u64,
    /// Bytes that the disk occupies on the host.
    pub disk_bytes: u64,
    /// As `df` says inside; nothing while the disk is not mounted.
    pub disk: Option<DiskUsage>,
    pub io: IoUsage,
    pub network: NetworkUsage,
    /// Nothing where the kernel tells none.
    pub pressure: Option<Pressure>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    pub used_bytes: u64,
    pub limit_bytes: u64,
    pub used_inodes: u64,
    pub limit_inodes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoUsage {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
}

/// Seen from the berth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUsage {
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
}

/// How much of the time tasks of the berth waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu: Stall,
    pub memory: Stall,
    pub io: Stall,
}

/// Hundredths of a percent of the last ten and of the last sixty seconds; some: at least one task waited, full: all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    pub some_avg10: u32,
    pub some_avg60: u32,
    pub full_avg10: u32,
    pub full_avg60: u32,
}

/// What a berth that is up used when the node was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub user: String,
    pub id: BerthId,
    pub state: State,
    /// Milliseconds since the epoch.
    pub at: i64,
    pub usage: Usage,
}

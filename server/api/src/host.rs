use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The host and what it has to give, with the sums of what berths were promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    pub hostname: String,
    pub version: String,
    pub kernel: String,
    /// `v2` or `hybrid`.
    pub cgroup: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Size and free bytes of the file system that holds the berths' disks.
    pub disk_bytes: u64,
    pub disk_free_bytes: u64,
    /// Sums of the limits of all berths.
    pub promised_cpu_millis: u64,
    pub promised_memory_bytes: u64,
    pub promised_disk_bytes: u64,
    pub berths: u64,
}

/// A host account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    /// True below `UID_MIN` of /etc/login.defs, and for `nobody`.
    pub system: bool,
    /// True when a berth is assigned.
    pub berth: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckLevel {
    Ok,
    Warning,
    Failed,
}

/// One line of the doctor's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    pub name: String,
    pub level: CheckLevel,
    pub detail: String,
    /// What to do when it is not ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// The doctor's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// True when no check failed.
    pub healthy: bool,
    pub checks: Vec<Check>,
}

/// Answer of `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: String,
}

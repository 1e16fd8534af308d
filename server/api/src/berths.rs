use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Egress, Grant, Headroom, Limits, Policy, PortRange, Usage, Warning, explicit};

/// State of a berth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BerthState {
    Stopped,
    Starting,
    Running,
    Frozen,
    Stopping,
    Suspended,
    Failed,
}

/// What is asked for and not yet reached; `present` leaves the state as it is (a stopped berth starts on its next connection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WantedState {
    Present,
    Running,
    Stopped,
    Deleted,
}

/// Why a berth is not as wanted, or what its user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// CamelCase name.
    pub kind: String,
    pub message: String,
    /// Milliseconds since the epoch.
    pub since: i64,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// That an administrator has barred the berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suspension {
    pub reason: String,
    /// Account of whoever gave the reason.
    pub by: String,
    /// Milliseconds since the epoch.
    pub since: i64,
}

/// When and why a berth fell asleep by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sleep {
    /// Milliseconds since the epoch.
    pub since: i64,
    pub reason: String,
}

/// A port that a container in the berth publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishedPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// At the berth's own address, always.
    pub port: u16,
    /// Name of the container.
    pub container: String,
    pub container_port: u16,
    /// Whether the same port is at the host's 127.0.0.1 too.
    pub host: HostPortState,
    /// Why it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostPortState {
    Open,
    Pending,
    /// Something else has the port.
    Taken,
    /// The profile does not allow it.
    NotAllowed,
}

/// The image that a berth stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageRef {
    /// `sha256:…`
    pub digest: String,
    /// The name it had when the berth was assigned.
    pub name: String,
}

/// A user's berth: what is wanted, and what the node last reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Berth {
    pub id: Uuid,
    pub user: String,
    pub uid: u32,
    pub profile: String,
    pub image: ImageRef,
    /// The limits in force: the profile's, with the berth's own where it has some.
    pub limits: Limits,
    /// Names of the limits that are the berth's own, and `egress` where that is.
    pub own_limits: Vec<String>,
    /// What was granted on top of them for a while; the limits in force have it.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// When the assignment ends, and the berth is suspended; milliseconds since the epoch. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    pub wanted: WantedState,
    pub state: BerthState,
    /// True when the inner Docker answers.
    pub docker_ready: bool,
    pub conditions: Vec<Condition>,
    /// How it joins the host; the profile's, with the berth's own egress where it has one.
    pub policy: Policy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// While it is frozen, or since it was stopped for being idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Sleep>,
    /// Last use that counts (not a poll of an editor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<i64>,
    /// Containers that run in it; absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_containers: Option<u32>,
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// Ports by which its connections leave the host, and nobody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<PortRange>,
    /// The berth's own IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Path of the user's Docker socket on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// First host id of the berth's range, and how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_base: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_count: Option<u32>,
    /// Host pid of the berth's first process while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When the node last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// One page of berths, ordered by user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BerthList {
    pub items: Vec<Berth>,
    /// Pass as `cursor` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Assigns a berth to a host user. Limits and the egress that are left out are the profile's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBerth {
    pub user: String,
    /// Unless set, that of the first rule that matches the user, or `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Name or digest; the default image unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// 0: none. So are all limits that may be absent.
    pub memory_high_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_bps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_bps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_iops: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_iops: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_egress_bits: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_ingress_bits: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// When the assignment ends, and the berth is suspended; milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Accept a system account. Uid 0 is never accepted.
    #[serde(default)]
    pub allow_system: bool,
    /// Start it at once; otherwise it starts on its first connection.
    #[serde(default = "yes")]
    pub start: bool,
}

fn yes() -> bool {
    true
}

/// Changes a berth. What is left out stays; a limit or an egress of `null` goes back to the profile's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BerthChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u32>)]
    pub cpu_millis: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u32>)]
    pub cpu_weight: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub memory_bytes: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    /// 0: none, whatever the profile says. So are all limits that may be absent.
    pub memory_high_bytes: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub swap_bytes: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u32>)]
    pub pids: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub disk_bytes: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub inodes: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub io_read_bps: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub io_write_bps: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub io_read_iops: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub io_write_iops: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub network_egress_bits: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u64>)]
    pub network_ingress_bits: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<Egress>)]
    pub egress: Option<Option<Egress>>,
    /// When the assignment ends; `null`: never.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<i64>)]
    pub until: Option<Option<i64>>,
}

/// What a change would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangePreview {
    pub changes: Vec<FieldChange>,
    pub warnings: Vec<Warning>,
    /// What is promised of the host, before and after.
    pub headroom: Vec<Headroom>,
}

/// A value that a change would replace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// `profile`, or the name of a limit or of a part of the policy.
    pub field: String,
    pub before: serde_json::Value,
    pub after: serde_json::Value,
    /// Why the berth takes it on only when it starts anew; absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// Bars a berth, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendBerth {
    /// One line of at most 500 characters, which the user is shown.
    pub reason: String,
}

/// Gives a berth a fresh root file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RebuildBerth {
    /// Docker's images, containers and volumes go too.
    #[serde(default)]
    pub wipe: bool,
}

/// Runs a command inside a running berth; the connection is upgraded to `berth-exec` and carries frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecBerth {
    pub argv: Vec<String>,
    /// `NAME=value`, added to a small default environment.
    #[serde(default)]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Uid inside; 0 unless set.
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    /// Allocate a terminal inside the berth.
    #[serde(default)]
    pub tty: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_in_a_change_is_not_the_same_as_absent() {
        let change: BerthChange = serde_json::from_str(r#"{"cpu_millis":null,"pids":100}"#).unwrap();
        assert_eq!((change.cpu_millis, change.memory_bytes, change.pids), (Some(None), None, Some(Some(100))));
        assert_eq!(serde_json::to_string(&change).unwrap(), r#"{"cpu_millis":null,"pids":100}"#);
    }

    #[test]
    fn a_new_berth_starts_unless_told_otherwise() {
        assert!(serde_json::from_str::<NewBerth>(r#"{"user":"a"}"#).unwrap().start);
        assert!(serde_json::from_str::<NewBerth>(r#"{"user":"a","cpus":1}"#).is_err());
    }
}

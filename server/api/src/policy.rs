use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::explicit;

/// How a berth joins its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    pub home: HomeAccess,
    /// Further directories of the host, at the same path inside.
    pub paths: Vec<SharedPath>,
    /// Ports of containers that may appear at the host's 127.0.0.1; `null`: none.
    pub ports: Option<PortRange>,
    pub ports_open_to: OpenTo,
    /// Seconds without use and without running containers until the berth is frozen; `null`: never.
    pub freeze_after: Option<u32>,
    /// Likewise, until it is stopped.
    pub stop_after: Option<u32>,
    pub egress: Egress,
    pub restart: Restart,
}

/// What becomes of a berth that ended unasked: its shim was killed, its first process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// It is started again, after a pause that grows while it keeps ending.
    OnFailure,
    /// It waits for the next connection.
    Never,
}

/// What of the network a berth reaches; names resolve in each case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Everything that the host reaches, but no other berth.
    All,
    /// No private ranges, no service of the host, no metadata address of a cloud.
    Internet,
    None,
    /// These IPv4 networks only, for instance `192.0.2.0/24`; 1 to 64 of them.
    List(Vec<String>),
}

/// The user's home inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HomeAccess {
    Rw,
    Ro,
    None,
}

/// A directory of the host that a berth gets too, as far as its user may use it himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedPath {
    /// Absolute, without `.` and `..`; at most 1024 bytes.
    pub path: String,
    #[serde(default)]
    pub read_only: bool,
}

/// Both ends included; from 1024 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// Who on the host reaches published ports, and the berth's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenTo {
    /// The user and root.
    User,
    /// Every account of the host.
    Host,
}

/// What is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<HomeAccess>,
    /// All of them, at most 16; an empty list takes them away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<SharedPath>>,
    /// `null`: none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<PortRange>)]
    pub ports: Option<Option<PortRange>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports_open_to: Option<OpenTo>,
    /// Seconds, from 10 to a year; `null`: never.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u32>)]
    pub freeze_after: Option<Option<u32>>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u32>)]
    pub stop_after: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

impl PolicyChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

use serde::{Deserialize, Serialize};

/// How a berth joins its host; comes from the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub home: HomeAccess,
    /// Further directories of the host, at the same path inside.
    pub paths: Vec<SharedPath>,
    pub ports: Ports,
    pub idle: Idle,
}

/// The user's home inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HomeAccess {
    #[default]
    Rw,
    Ro,
    None,
}

/// A directory of the host that the user's berth gets too, as far as the user may use it himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPath {
    /// Absolute, without `.` and `..`; no component of it may be a symbolic link.
    pub path: String,
    pub read_only: bool,
}

/// Published container ports on the host's 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// First and last port, both ≥ 1024; `None`: no port appears on the host.
    pub range: Option<(u16, u16)>,
    pub open_to: OpenTo,
}

impl Default for Ports {
    fn default() -> Self {
        Self { range: Some((1024, 65535)), open_to: OpenTo::User }
    }
}

/// Who on the host reaches published ports, and the berth's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTo {
    /// The user and root.
    #[default]
    User,
    /// Every account of the host.
    Host,
}

/// When a berth that nobody uses, and in which no container runs, goes to sleep. Seconds; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idle {
    pub freeze_after: Option<u32>,
    pub stop_after: Option<u32>,
}

impl Default for Idle {
    fn default() -> Self {
        Self { freeze_after: Some(15 * 60), stop_after: Some(12 * 3600) }
    }
}

/// A port that a container in the berth publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// At the berth's own address.
    pub port: u16,
    /// Name of the container.
    pub container: String,
    pub container_port: u16,
    /// At the host's 127.0.0.1, same number.
    pub host: HostPort,
}

/// Whether a published port is at the host's 127.0.0.1 too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HostPort {
    Open,
    /// Waits for the node.
    Pending,
    /// Something else has it: a sentence.
    Taken {
        detail: String,
    },
    /// The profile does not allow it: a sentence.
    NotAllowed {
        detail: String,
    },
}

/// Why a berth sleeps, is frozen or was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleep {
    /// Milliseconds since the epoch.
    pub since: i64,
    /// A sentence.
    pub reason: String,
}

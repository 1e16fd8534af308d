//! A berth: what is wanted of it, and what the node last reported.
//!
//! `generation` counts the changes of intent, `applied` is the one that the node has carried out. Once that is done, `wanted` falls back
//! to present: a berth that was stopped as asked wakes on its user's next connection, and nobody stops it until somebody asks anew.
//! A suspension lies beside `wanted` and overrides it; while it lasts `wanted` stays as it is, so that a resume takes it up.

use serde::{Deserialize, Serialize};

use super::{
    BerthId, Egress, Ensure, EnsureWanted, Grant, HostPolicy, Limits, OwnLimits, PortRange, Problem, ProfileId, Rebuild, Usage, UserId,
    UserName,
};

/// What is asked for and not yet reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// There, in whatever state; a new one stays stopped until its first connection.
    Present,
    Running,
    Stopped,
    Deleted,
}

impl Wanted {
    pub const ALL: [Wanted; 4] = [Self::Present, Self::Running, Self::Stopped, Self::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        }
    }
}

/// State on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Stopped,
    Starting,
    Running,
    Frozen,
    Stopping,
    Suspended,
    Failed,
}

impl State {
    pub const ALL: [State; 7] = [Self::Stopped, Self::Starting, Self::Running, Self::Frozen, Self::Stopping, Self::Suspended, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Stopping => "stopping",
            Self::Suspended => "suspended",
            Self::Failed => "failed",
        }
    }

    /// True while there are processes of the berth.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Frozen | Self::Stopping)
    }
}

/// Why a berth is not as wanted, or what its user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub kind: String,
    pub message: String,
    /// Milliseconds since the epoch.
    pub since: i64,
}

impl Condition {
    /// What helps, where that is known.
    pub fn next_step(&self, user: &UserName) -> Option<String> {
        Some(match self.kind.as_str() {
            "PendingRestart" | "LimitsNotApplied" => format!("berth restart {user}"),
            "HostDiskLow" => {
                "remove inside what is not needed: docker system prune; an administrator: free space on the host's file system of the disks"
                    .to_owned()
            }
            "DiskNotGrown" => format!("an administrator: the log of berth-node; it is tried again at: berth restart {user}"),
            "InodesFixed" => format!("set the number that it has: berth set {user} --inodes …; another needs a berth that is made anew"),
            "DockerNotReady" | "StartFailed" => format!("see what it says: berth logs {user}; to try again: berth restart {user}"),
            "ShimDied" => format!("it starts again on the next connection, or with: berth start {user}"),
            "SocketFailed" | "SweepFailed" | "UndoFailed" | "DeleteFailed" | "RecordCorrupt" => {
                "an administrator: berth doctor, and the log of berth-node".to_owned()
            }
            "HomeNotMapped" | "PathNotMapped" => {
                format!(
                    "work in a directory of the berth instead (berth shell {user}), or ask an administrator; it is tried again at: berth restart {user}"
                )
            }
            "PortTaken" => {
                "publish another port, or end what holds it; the condition says where the container is reachable meanwhile".to_owned()
            }
            "PortsNotGuarded" => "an administrator: berth doctor, and the log of berth-node".to_owned(),
            _ => return None,
        })
    }
}

/// In what a berth differs from its profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    #[serde(flatten)]
    pub limits: OwnLimits,
    #[serde(default)]
    pub egress: Option<Egress>,
}

impl Own {
    /// Names of what is set.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = self.limits.names();
        names.extend(self.egress.as_ref().map(|_| "egress"));
        names
    }
}

/// What the node reported of a berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub user: String,
    pub id: BerthId,
    pub state: State,
    pub docker_ready: bool,
    pub conditions: Vec<Condition>,
    pub image: String,
    pub limits: Limits,
    pub uid: u32,
    pub id_base: u32,
    pub id_count: u32,
    pub address: String,
    pub socket: String,
    pub pid: Option<u32>,
    pub started_at: Option<i64>,
    pub usage: Option<Usage>,
    /// Why an administrator barred it, as the node holds it.
    #[serde(default)]
    pub suspended: Option<String>,
    /// While it is frozen, or since it was stopped for being idle.
    #[serde(default)]
    pub sleep: Option<Sleep>,
    #[serde(default)]
    pub last_used_at: Option<i64>,
    /// Nothing while that is not known.
    #[serde(default)]
    pub running_containers: Option<u32>,
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// By which its connections leave the host.
    #[serde(default)]
    pub source_ports: Option<PortRange>,
}

impl Status {
    pub fn used_memory(&self) -> u64 {
        self.usage.filter(|_| self.state.is_up()).map_or(0, |usage| usage.memory_bytes)
    }

    pub fn used_disk(&self) -> u64 {
        self.usage.map_or(0, |usage| usage.disk_bytes)
    }

    /// The part of which a change is told: not figures of use.
    pub fn told(&self) -> Self {
        Self { usage: None, last_used_at: None, ..self.clone() }
    }
}

/// When and why a berth fell asleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleep {
    pub since: i64,
    pub reason: String,
}

/// A port that a container in the berth publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub protocol: String,
    /// At the berth's own address.
    pub port: u16,
    pub container: String,
    pub container_port: u16,
    /// At the host's 127.0.0.1, same number.
    pub host: HostPort,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HostPort {
    Open,
    Pending,
    Taken { detail: String },
    NotAllowed { detail: String },
}

/// That an administrator has barred a berth: nothing runs in it and nothing wakes it until he resumes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    pub reason: String,
    /// Account of whoever gave the reason.
    pub by: String,
    /// Milliseconds since the epoch.
    pub since: i64,
}

impl Suspension {
    /// Characters; the reason is one line.
    pub const LONGEST_REASON: usize = 500;
}

/// A berth as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Berth {
    pub id: BerthId,
    pub user_id: UserId,
    pub user: UserName,
    pub uid: u32,
    pub profile_id: ProfileId,
    pub profile: String,
    pub image: String,
    pub image_name: String,
    pub own: Own,
    /// The profile's limits with the berth's own in their place.
    pub base: Limits,
    /// What was granted on top of them for a while.
    pub grants: Vec<Grant>,
    /// The limits in force: the base with the grants.
    pub limits: Limits,
    /// The profile's, with the berth's own egress where it has one.
    pub policy: HostPolicy,
    pub suspension: Option<Suspension>,
    /// When the assignment ends.
    pub until: Option<i64>,
    /// It is suspended because the assignment has ended.
    pub ended: bool,
    /// Somebody named the profile; otherwise a rule decided, or none did.
    pub profile_named: bool,
    pub allow_system: bool,
    pub wanted: Wanted,
    /// Set by a restart: a berth that has run since before this is stopped first.
    pub restart_after: Option<i64>,
    /// When a fresh root file system was last asked for; grows, whatever the clock does.
    pub rebuild_at: Option<i64>,
    /// That is still wanted, with what Docker keeps gone or not.
    pub rebuild_wipe: Option<bool>,
    pub generation: i64,
    pub applied: i64,
    /// Nothing until the node has reported.
    pub status: Option<Status>,
    /// Why the last attempt to carry out the intent failed.
    pub problem: Option<(Problem, i64)>,
    pub observed_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Berth {
    /// The state that the node reported; before its first word, what is under way.
    pub fn shown_state(&self) -> State {
        match (&self.status, self.wanted) {
            (Some(status), _) => status.state,
            (None, _) if self.problem.is_some() => State::Failed,
            (None, Wanted::Running) => State::Starting,
            (None, Wanted::Deleted) => State::Stopping,
            (None, Wanted::Present | Wanted::Stopped) => State::Stopped,
        }
    }

    /// Bytes in use when the node last reported; none of a berth that is not up.
    pub fn used_memory(&self) -> u64 {
        self.status.as_ref().map_or(0, Status::used_memory)
    }

    /// Bytes that its disk takes on the host.
    pub fn used_disk(&self) -> u64 {
        self.status.as_ref().map_or(0, Status::used_disk)
    }

    /// Milliseconds since the epoch; 0: never, or not known.
    pub fn last_used_at(&self) -> i64 {
        self.status.as_ref().and_then(|status| status.last_used_at).unwrap_or_default()
    }

    /// What the node is asked for.
    pub fn ensure(&self, wanted: EnsureWanted) -> Ensure {
        Ensure {
            id: self.id,
            image: self.image.clone(),
            limits: self.limits,
            wanted,
            allow_system: self.allow_system,
            policy: self.policy.clone(),
            suspended: self.suspension.as_ref().map(|suspension| suspension.reason.clone()),
            rebuild: self.rebuild_at.zip(self.rebuild_wipe).map(|(at, wipe)| Rebuild { at, wipe }),
        }
    }
}

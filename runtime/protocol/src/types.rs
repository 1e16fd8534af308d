use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Limits, Policy, PublishedPort, Sleep};

/// Identity of a berth; names its directory, cgroup and record. Made by the server (UUIDv7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BerthId(pub Uuid);

impl fmt::Display for BerthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the server wants of a berth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Present; its state is left as it is (a new one stays stopped and wakes on the first connection).
    Present,
    Running,
    Stopped,
}

/// Intent for one berth. Repeating it is harmless; a changed `limits` is applied to a running berth at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensure {
    pub id: BerthId,
    /// Digest of an unpacked image, `sha256:…`.
    pub image: String,
    pub limits: Limits,
    pub wanted: Wanted,
    /// Accept an account below the host's `UID_MIN`. Uid 0 is never accepted.
    pub allow_system: bool,
    /// Ports and idle times apply to a running berth at once, home and paths at its next start.
    #[serde(default)]
    pub policy: Policy,
    /// Barred by an administrator, and why (a sentence): frozen if it runs, not to be woken; overrides `wanted`.
    #[serde(default)]
    pub suspended: Option<String>,
    /// A fresh root file system, once, before what is wanted; not while it is barred.
    #[serde(default)]
    pub rebuild: Option<Rebuild>,
}

/// A berth's root file system is to be as the image is; what its Docker keeps stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebuild {
    /// When it was asked for, milliseconds since the epoch: one that was carried out, or a later one, makes it nothing.
    pub at: i64,
    /// Docker's images, containers and volumes go too.
    pub wipe: bool,
}

/// State of a berth as the node sees it.
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

/// Why a berth is not as wanted, or what its user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// CamelCase name: `StartFailed`, `DockerNotReady`, `RecordCorrupt`, `PendingRestart`, …
    pub kind: String,
    /// One sentence for a person.
    pub message: String,
    /// Milliseconds since the epoch.
    pub since: i64,
}

/// What is true of one berth on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BerthStatus {
    pub user: String,
    pub id: BerthId,
    pub state: State,
    /// True when the inner Docker answers.
    pub docker_ready: bool,
    pub conditions: Vec<Condition>,
    pub image: String,
    pub limits: Limits,
    pub uid: u32,
    /// First host id of the berth's range, and how many.
    pub id_base: u32,
    pub id_count: u32,
    /// The berth's own IPv4 address.
    pub address: String,
    /// Path of the user's Docker socket on the host.
    pub socket: String,
    /// Host pid of the berth's PID 1 while it runs.
    pub pid: Option<u32>,
    /// Milliseconds since the epoch.
    pub started_at: Option<i64>,
    pub usage: Option<Usage>,
    /// Why an administrator barred it.
    #[serde(default)]
    pub suspended: Option<String>,
    /// When and why it fell asleep, while it is frozen or since it was stopped for being idle.
    #[serde(default)]
    pub sleep: Option<Sleep>,
    /// Last use that counts (not a poll of an editor); milliseconds since the epoch.
    #[serde(default)]
    pub last_used_at: Option<i64>,
    /// Inner containers that run; `None` while that is not known.
    #[serde(default)]
    pub running_containers: Option<u32>,
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// First and last of the ports by which its connections leave the host.
    #[serde(default)]
    pub source_ports: Option<(u16, u16)>,
}

/// Use of a berth, read from the kernel when asked for. Of one that does not run only the disk's figures say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    pub pids: u64,
    /// CPU time since the start, in microseconds.
    pub cpu_usec: u64,
    /// Time since the start in which it was held back by its quota of CPU, in microseconds, summed over its CPUs.
    pub throttled_usec: u64,
    /// Processes killed since the start because the memory ran out.
    pub oom_kills: u64,
    /// Bytes that the disk occupies on the host.
    pub disk_bytes: u64,
    /// Bytes and inodes in use and their limit, as `df` says inside; `None` while the disk is not mounted.
    pub disk: Option<DiskUsage>,
    /// From and to block devices since the start.
    pub io: IoUsage,
    /// Through the berth's link since the start.
    pub network: NetworkUsage,
    /// `None` where the kernel or its cgroup version tells none.
    pub pressure: Option<Pressure>,
}

/// What `df` and `df -i` say inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    pub used_bytes: u64,
    /// Used and still available together: the limit in force, which the low-water guard may have lowered.
    pub limit_bytes: u64,
    pub used_inodes: u64,
    pub limit_inodes: u64,
}

/// Bytes and operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoUsage {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
}

/// Bytes, seen from the berth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUsage {
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
}

/// Pressure stall information (PSI): how much of the time tasks of the berth waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu: Stall,
    pub memory: Stall,
    pub io: Stall,
}

/// Hundredths of a percent of the last ten and of the last sixty seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// In which at least one task waited.
    pub some_avg10: u32,
    pub some_avg60: u32,
    /// In which all tasks that could have run waited.
    pub full_avg10: u32,
    pub full_avg60: u32,
}

/// What a berth that is up uses right now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BerthUsage {
    pub user: String,
    pub id: BerthId,
    pub state: State,
    /// When it was read; milliseconds since the epoch.
    pub at: i64,
    pub usage: Usage,
}

/// A part of a change that a berth does not take on at once: mostly when it starts anew, until when it has the condition `PendingRestart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// `disk_bytes`, `inodes`, `home`, `paths`, …
    pub field: String,
    /// Why, in one sentence.
    pub reason: String,
}

/// A host account, looked up by the node through NSS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    /// True below `UID_MIN` of /etc/login.defs, and for `nobody`.
    pub system: bool,
}

/// Asks about many accounts at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub names: Vec<String>,
    /// Names of groups of which the answer tells who belongs to them; one that the host does not know has no members.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl Asked {
    pub const MOST_NAMES: usize = 1_000;
    pub const MOST_GROUPS: usize = 100;
}

/// What the name service says of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    /// `None`: there is no such account, or `problem` says why that is not known.
    pub user: Option<HostUser>,
    /// Those of the groups asked about that he belongs to.
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// The host and what it has to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub protocol: u32,
    pub version: String,
    pub hostname: String,
    pub kernel: String,
    /// `v2` or `hybrid`.
    pub cgroup: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Size and free bytes of the file system that holds the berths' disks.
    pub disk_bytes: u64,
    pub disk_free_bytes: u64,
    pub run_dir: String,
}

/// Runs a command inside a running berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    pub argv: Vec<String>,
    /// `NAME=value`, added to a small default environment.
    #[serde(default)]
    pub env: Vec<String>,
    #[serde(default)]
    pub cwd: Option<String>,
    /// Uid inside; 0 unless set.
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    /// Allocate a terminal inside the berth.
    #[serde(default)]
    pub tty: bool,
    /// Columns and rows of that terminal.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
}

/// An unpacked image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// `sha256:…` over the imported bytes (root tar) or of the manifest (OCI).
    pub digest: String,
    pub name: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Bytes on the host's disk.
    pub size_bytes: u64,
    /// Users whose berths stand on it.
    pub used_by: Vec<String>,
}

/// Builds the default image by the fixed recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    pub name: String,
    /// `bookworm`, `trixie` or `sid`.
    pub suite: String,
}

/// One line of an image build or import; the last is `done` or `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ImageProgress {
    Log { line: String },
    Done { image: ImageInfo },
    Failed { problem: Problem },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckLevel {
    Ok,
    Warning,
    Failed,
}

/// One line of `berth doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub level: CheckLevel,
    pub detail: String,
    /// What to do when it is not ok.
    pub fix: Option<String>,
}

/// Asks for a throw-away berth with a container in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeepCheck {
    /// Digest of the berth's image, `sha256:…`.
    pub image: String,
}

/// A refusal or failure: stable snake_case `code`, a sentence, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

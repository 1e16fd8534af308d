use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{BerthChange, NewBerth, Problem, Warning};

/// Assigns up to 1,000 berths in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBerths {
    pub berths: Vec<NewBerth>,
    /// Assign none when any of them is refused.
    #[serde(default)]
    pub all_or_none: bool,
    /// Tell what would become of it, and assign none.
    #[serde(default)]
    pub dry_run: bool,
}

/// Changes up to 1,000 berths alike, or all of a profile, in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BerthsChange {
    /// Whose berths; either this or `of_profile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// All berths of this profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_profile: Option<String>,
    pub change: BerthChange,
    /// Change none when any of them is refused.
    #[serde(default)]
    pub all_or_none: bool,
    /// Tell what would become of it, and change none.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of one of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// The operation carries it out.
    Accepted,
    /// It could be done; this was a dry run.
    Checked,
    Refused,
    /// It could be done, but another was refused and all or none was asked for.
    HeldBack,
    /// Left as it is: a person named its profile, and no rule changes that.
    Kept,
}

/// One of many, in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    pub user: String,
    pub state: EntryState,
    /// The profile before, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_before: Option<String>,
    /// The profile after; of one that is kept, what the rules would give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<Uuid>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What of one resource is promised to berths, and may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Headroom {
    /// `cpu_millis`, `memory_bytes` or `disk_bytes`.
    pub resource: String,
    /// What the host has.
    pub capacity: u64,
    /// What may be promised by the policy of the server; absent: any amount, with a warning above the capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<u64>,
    /// What all berths together were promised before the change, and after it.
    pub promised: u64,
    pub after: u64,
}

/// What became of each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryReport {
    pub entries: Vec<Entry>,
    /// How many were accepted and how many refused.
    pub accepted: u64,
    pub refused: u64,
    /// With all that were accepted, or could be.
    pub headroom: Vec<Headroom>,
    pub warnings: Vec<Warning>,
}

/// What a claim came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BerthClaim {
    pub user: String,
    /// The operation that makes the berth; absent: there is one already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<crate::Operation>,
}

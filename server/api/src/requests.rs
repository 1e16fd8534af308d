use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Operation, Problem, Warning};

/// How much of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So much on top of what the berth has; such amounts of several grants add up.
    Add(u64),
    /// At least so much; of several grants the largest counts.
    To(u64),
}

/// Limits that can be asked for; at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<Amount>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    Open,
    Denied,
    Cancelled,
    /// Nobody decided before its end.
    Lapsed,
    /// Approved; the node has not applied it yet.
    Approved,
    Active,
    /// The node has not taken it away yet.
    Ending,
    /// Ended, and the node cannot take it away: the disk is in use. Tried again as use falls.
    Overdue,
    Ended,
}

/// What a user asked for beyond his berth's limits, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Request {
    pub id: Uuid,
    pub user: String,
    pub state: RequestState,
    pub asked: Amounts,
    /// Milliseconds since the epoch.
    pub asked_until: i64,
    pub reason: String,
    /// What was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Amounts>,
    /// As asked, or as approved.
    pub until: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<i64>,
    /// What whoever decided had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word: Option<String>,
    /// Why it could not be applied, or cannot be taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// One page of requests, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestList {
    pub items: Vec<Request>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Asks for more, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRequest {
    /// Whose berth; the caller's unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub amounts: Amounts,
    /// Milliseconds since the epoch.
    pub until: i64,
    /// One line of at most 500 characters.
    pub reason: String,
}

/// Approves a request; what is left out is as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    #[serde(default)]
    pub amounts: Amounts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// One line of at most 500 characters, which the user is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word: Option<String>,
}

/// Denies a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DenyRequest {
    /// One line of at most 500 characters, which the user is shown.
    pub word: String,
}

/// The approval is stored; the operation applies it. When the node refuses, the request is open again and says why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovedRequest {
    pub request: Request,
    pub operation: Operation,
    pub warnings: Vec<Warning>,
}

/// A request that holds: it lies over the berth's limits until its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    pub request: Uuid,
    pub amounts: Amounts,
    /// Milliseconds since the epoch.
    pub until: i64,
    /// It has ended, and the node cannot take it away.
    pub overdue: bool,
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One record of the audit trail; `kind` says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AuditRecord {
    Action(AuditAction),
    Call(AuditCall),
}

/// Who asked Berth for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditAction {
    pub id: Uuid,
    /// Milliseconds since the epoch.
    pub at: i64,
    pub actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_uid: Option<u32>,
    pub role: String,
    /// The API operation, for instance `create_berth`.
    pub action: String,
    /// `berth`, `image` or `profile`.
    pub subject_kind: String,
    /// Name of the user, image or profile that it is about.
    pub subject: String,
    /// What was asked for, without secrets.
    #[schema(value_type = Object)]
    pub details: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One Docker API call that came through a user's socket. Names, paths and the command are the user's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditCall {
    pub id: Uuid,
    /// When its head was complete; milliseconds since the epoch.
    pub at: i64,
    pub berth_id: Uuid,
    /// Whose berth it is.
    pub user: String,
    /// Who called: the user's uid, or root's.
    pub uid: u32,
    /// Process that connected, and its name.
    pub pid: u32,
    pub command: String,
    /// Empty when it could not be parsed.
    pub method: String,
    /// Version of the API that it asked for: `1.45`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Path without the version, with those query parameters that hold no secret.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// HTTP status; absent when none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes on the wire, heads included; of an upgraded call, all that followed.
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub duration_ms: u64,
    pub outcome: CallOutcome,
    /// How many calls there is no record of, because nobody had fetched them for too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// Docker answered in whole.
    Answered,
    /// The connection became a stream.
    Upgraded,
    /// Berth itself answered; the call did not reach Docker.
    Refused,
    /// One side went before the answer was complete.
    Cut,
    /// It is not HTTP/1.1 as it is known, and was passed on all the same.
    Unparsed,
    /// No call, but a number of them of which there is no record.
    Lost,
}

/// One page of the audit trail, newest first; or, after `after`, what was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    pub items: Vec<AuditRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Pass it as `after` to get what is added from here on.
    pub follow: String,
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The first of every stream: events from its `id` on follow.
    Ready,
    /// Events are missing before this one; read again what you show. The stream goes on, or ends and is to be opened anew.
    Reset,
    BerthChanged,
    BerthRemoved,
    OperationChanged,
    ProfileChanged,
    ProfileRemoved,
    ImageChanged,
    RequestChanged,
    RuleChanged,
    AccountChanged,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Reset => "reset",
            Self::BerthChanged => "berth_changed",
            Self::BerthRemoved => "berth_removed",
            Self::OperationChanged => "operation_changed",
            Self::ProfileChanged => "profile_changed",
            Self::ProfileRemoved => "profile_removed",
            Self::ImageChanged => "image_changed",
            Self::RequestChanged => "request_changed",
            Self::RuleChanged => "rule_changed",
            Self::AccountChanged => "account_changed",
        }
    }
}

/// Something has changed: look again. Data of a server-sent event whose name is `kind` and whose id is `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows from event to event; send the last one as `Last-Event-ID` to go on from there.
    pub id: i64,
    pub kind: EventKind,
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Name of the user, profile or image that it is about; empty for `ready` and `reset`.
    pub subject: String,
    /// Of the berth or the operation, as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Its id, where it is about an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Uuid>,
}

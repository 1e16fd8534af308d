use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A refusal or failure (RFC 9457): what went wrong and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// HTTP status, repeated.
    pub status: u16,
    /// Stable snake_case name of the problem.
    pub code: String,
    /// One sentence for a person.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Ties the answer to the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

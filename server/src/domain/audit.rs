use super::{AuditId, OperationId};

/// What is about to be written to the audit trail; who asks is added from the caller.
#[derive(Clone, Debug)]
pub struct AuditEntry<'a> {
    /// The API operation, or what the server did by itself.
    pub action: &'a str,
    pub subject: &'a str,
    /// Without secrets, command arguments or environment values.
    pub details: serde_json::Value,
    pub operation: Option<OperationId>,
}

/// A row of the audit trail.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    pub id: AuditId,
    pub at: i64,
    pub actor: String,
    pub actor_uid: Option<u32>,
    pub role: String,
    pub action: String,
    pub subject: String,
    pub details: serde_json::Value,
    pub operation_id: Option<OperationId>,
    pub request_id: Option<String>,
}

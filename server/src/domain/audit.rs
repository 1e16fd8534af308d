use super::{AuditId, OperationId};

/// What an audit row is about; a user and an image may have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// The berth of this user.
    Berth(&'a str),
    Image(&'a str),
    Profile(&'a str),
    /// The rule of this host group.
    Rule(&'a str),
    Archive(&'a str),
    /// Those of the host, as a whole.
    Accounts,
    /// An administrator, or a host account that signs in.
    Account(&'a str),
    /// An API token, by its id.
    Token(&'a str),
    /// The keys that sign access tokens.
    Keys,
}

impl<'a> Subject<'a> {
    pub const BERTH: &'static str = "berth";

    pub fn kind(self) -> &'static str {
        match self {
            Self::Berth(_) => Self::BERTH,
            Self::Image(_) => "image",
            Self::Profile(_) => "profile",
            Self::Rule(_) => "rule",
            Self::Archive(_) => "archive",
            Self::Accounts => "accounts",
            Self::Account(_) => "account",
            Self::Token(_) => "token",
            Self::Keys => "keys",
        }
    }

    pub fn name(self) -> &'a str {
        match self {
            Self::Berth(name)
            | Self::Image(name)
            | Self::Profile(name)
            | Self::Archive(name)
            | Self::Rule(name)
            | Self::Account(name)
            | Self::Token(name) => name,
            Self::Accounts => "accounts",
            Self::Keys => "access",
        }
    }
}

/// Whose rows are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    Everybodys,
    /// Rows about whatever has this name.
    Named(&'a str),
    /// Rows about the berth of this user.
    OfBerth(&'a str),
}

/// What is about to be written to the audit trail; who asks is added from the caller.
#[derive(Clone, Debug)]
pub struct AuditEntry<'a> {
    /// The API operation, or what the server did by itself.
    pub action: &'a str,
    pub subject: Subject<'a>,
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
    pub subject_kind: String,
    pub subject: String,
    pub details: serde_json::Value,
    pub operation_id: Option<OperationId>,
    pub request_id: Option<String>,
}

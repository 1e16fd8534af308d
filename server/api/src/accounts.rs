use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the host says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    Present,
    /// Nobody has the name or the uid any more.
    Vanished,
    Locked,
    Expired,
    /// The uid has another name, or the name another uid.
    Renamed,
    /// The host's directory does not answer, or it was not asked yet.
    Unknown,
}

/// The account of a berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Account {
    pub user: String,
    pub uid: u32,
    pub state: AccountState,
    /// A sentence; empty for one that is present.
    pub detail: String,
    /// Since when; milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Last use of the berth that is known of; milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<i64>,
    /// When the berth was made; milliseconds since the epoch.
    pub created_at: i64,
    /// Why the berth is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
    /// Bytes that its disk occupies on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountList {
    pub items: Vec<Account>,
    /// Cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What is wrong with the accounts as a whole; nobody is suspended for being gone meanwhile.
    pub alarms: Vec<AccountAlarm>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountAlarm {
    /// `directory_unavailable`, `directory_empty`, `too_many_at_once`, `many_renamed`
    pub code: String,
    pub detail: String,
}

use serde::{Deserialize, Serialize};

/// What the host says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    Present,
    /// All sources answered, and none knows the name or the uid.
    Vanished,
    /// Its password was locked, or PAM does not admit it.
    Locked,
    Expired,
    /// The uid has another name, or the name another uid.
    Renamed,
    /// A source does not answer: nothing is known.
    Unknown,
}

/// The account of a berth, or one that was asked for by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    pub state: AccountState,
    /// A sentence; empty for one that is present.
    pub detail: String,
    /// `/etc/passwd` has the name; otherwise it comes from a directory, or nobody knows it.
    pub local: bool,
}

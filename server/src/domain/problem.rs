use serde::{Deserialize, Serialize};

/// What a client or the audit trail is told of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable snake_case name.
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    pub refusal: Refusal,
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request makes no sense.
    Invalid,
    /// It is not known who asks.
    NotAuthenticated,
    /// The caller may not.
    NotPermitted,
    /// There is none, or the caller may not know.
    NotFound,
    /// It clashes with what there is.
    Conflict,
    /// It is not at the revision that was meant.
    Outdated,
    /// Too often; later it may work.
    TooMany,
    /// A limit or a policy forbids it.
    Limit,
    /// The node or the database does not answer now.
    Unavailable,
    TimedOut,
    /// It was tried and failed.
    Failed,
}

impl Problem {
    pub fn new(refusal: Refusal, code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into(), hint: None, refusal }
    }

    /// A change of limits or policy that the node did not take: that a berth works says nothing about it.
    pub fn is_about_a_change(&self) -> bool {
        let codes = ["limit_refused", "disk_below_use", "change_failed", "limit_too_low", "limit_too_high", "invalid_policy"];
        codes.contains(&self.code.as_str())
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

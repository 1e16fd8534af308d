use super::{HostPolicy, Limits, ProfileId};

/// A named quota set, and how its berths join the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub id: ProfileId,
    pub name: String,
    pub description: String,
    pub limits: Limits,
    pub policy: HostPolicy,
    /// How many berths use it.
    pub berths: u64,
    pub created_at: i64,
    pub updated_at: i64,
}

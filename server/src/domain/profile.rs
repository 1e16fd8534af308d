use super::{Limits, ProfileId};

/// A named quota set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub id: ProfileId,
    pub name: String,
    pub description: String,
    pub limits: Limits,
    /// How many berths use it.
    pub berths: u64,
    pub created_at: i64,
    pub updated_at: i64,
}

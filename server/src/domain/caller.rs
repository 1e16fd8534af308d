/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Admin,
    /// Acts on berths; cannot change accounts, profiles or images.
    Operator,
    /// Reads.
    Auditor,
    /// Has his own berth.
    User,
}

impl Role {
    pub const ALL: [Role; 4] = [Self::Admin, Self::Operator, Self::Auditor, Self::User];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::User => "user",
        }
    }
}

/// Who asks, as the kernel's peer credential says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    pub uid: u32,
    pub role: Role,
    /// Ties audit rows and log lines to the request.
    pub request_id: String,
}

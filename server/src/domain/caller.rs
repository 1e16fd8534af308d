use super::{AdministratorId, SessionId, TokenId};

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

/// How much of its owner's power a token carries; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Looks.
    Read,
    /// Acts on berths.
    Operate,
    /// All that its owner may.
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 3] = [Self::Read, Self::Operate, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// How the caller proved who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The kernel's peer credential on the unix socket.
    Socket,
    /// The cookie of a session.
    Session(SessionId),
    /// An API token itself.
    Token(TokenId),
    /// A short-lived access token that was got with this API token.
    AccessToken(TokenId),
}

impl Via {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Session(_) => "session",
            Self::Token(_) => "token",
            Self::AccessToken(_) => "access_token",
        }
    }
}

/// Who asks, and with how much power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The host account, or `admin:NAME` for an administrator with a password: no host account has a name with a colon, so nothing that
    /// belongs to a host account is ever taken for an administrator's of the same name.
    pub name: String,
    /// Of the host account.
    pub uid: Option<u32>,
    pub role: Role,
    pub scope: Scope,
    pub via: Via,
    /// The administrator whose role this is.
    pub administrator: Option<AdministratorId>,
    /// Ties audit rows and log lines to the request.
    pub request_id: String,
}

impl Caller {
    /// A host account as the kernel names it.
    pub fn host(name: &str, uid: u32, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            uid: Some(uid),
            role,
            scope: Scope::Admin,
            via: Via::Socket,
            administrator: None,
            request_id: String::new(),
        }
    }

    /// True for root itself on the unix socket: what is left when every administrator is locked out.
    pub fn is_root(&self) -> bool {
        self.uid == Some(0) && self.via == Via::Socket
    }
}

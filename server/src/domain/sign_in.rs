use std::{fmt, net::IpAddr};

use super::{AdministratorId, Role, Scope, SessionId, TokenId};

/// Somebody with a password of his own, who needs no account of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    pub id: AdministratorId,
    pub name: String,
    pub role: Role,
    pub enabled: bool,
    /// A host account that has the same role by its peer credential; name and uid, so that a later account of that name has nothing.
    pub host: Option<(String, u32)>,
    pub created_at: i64,
    pub updated_at: i64,
    /// When the password was last set.
    pub password_at: i64,
    pub signed_in_at: Option<i64>,
}

impl Administrator {
    /// As callers and audit rows name him.
    pub fn actor(&self) -> String {
        format!("admin:{}", self.name)
    }
}

/// Whose a session or token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Administrator(AdministratorId),
    /// A host account; the name is what it was called then.
    Host {
        uid: u32,
        name: String,
    },
}

/// A browser that is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub owner: Owner,
    /// Name of the owner.
    pub name: String,
    pub created_at: i64,
    /// Last use, to the minute.
    pub seen_at: i64,
    /// The end whatever happens; unused it ends earlier.
    pub expires_at: i64,
    /// Where it was last seen.
    pub address: String,
    pub agent: String,
}

/// A secret for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub id: TokenId,
    pub owner: Owner,
    /// Name of the owner.
    pub owner_name: String,
    pub name: String,
    pub scope: Scope,
    pub created_at: i64,
    pub expires_at: i64,
    /// Last use, to the minute.
    pub used_at: Option<i64>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A process of this uid, on the unix socket.
    Uid(u32),
    Address(IpAddr),
    /// A process of this uid, over loopback.
    Local(u32),
}

impl Source {
    /// What is counted as one: an IPv6 host has a whole /64 to itself.
    pub fn group(self) -> Self {
        match self {
            Self::Address(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(four) => Self::Address(four.into()),
                None => {
                    let [a, b, c, d, ..] = address.segments();
                    Self::Address(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
                }
            },
            other => other,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Address(address) => address.fmt(f),
            Self::Local(uid) => write!(f, "localhost, uid {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_counts_as_one_and_a_mapped_address_as_itself() {
        let group = |text: &str| Source::Address(text.parse().unwrap()).group().to_string();
        assert_eq!(group("2001:db8::1"), group("2001:db8::ffff:1"));
        assert_ne!(group("2001:db8::1"), group("2001:db8:0:1::1"));
        assert_eq!(group("::ffff:192.0.2.1"), "192.0.2.1");
    }
}

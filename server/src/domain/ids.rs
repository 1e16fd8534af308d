use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

id! {
    /// Identity of a berth; names its directory, cgroup and record on the node.
    BerthId,
    /// A host account that holds a berth.
    UserId,
    ProfileId,
    OperationId,
    AuditId,
    /// An account with a password.
    AdministratorId,
    SessionId,
    TokenId,
    /// What a user asked for.
    RequestId,
    RuleId,
}

//! Who may do what: one pure table, role × operation of the API.
//!
//! [`Access::Own`] is decided against the user that the thing belongs to. What a caller may not see does not exist for him: the service
//! answers 404 where a thing is named, 403 where only the kind of thing is.

use crate::domain::{Caller, Role, Scope, Via};

/// How far a role reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    None,
    /// Only what belongs to the caller.
    Own,
    All,
}

macro_rules! operations {
    ($($variant:ident = $id:literal),* $(,)?) => {
        /// An operation of the API; its name is the `operationId` in the OpenAPI document.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($variant),*
        }

        impl Operation {
            pub const ALL: &'static [Operation] = &[$(Self::$variant),*];

            /// The `operationId`, also the `action` in the audit trail.
            pub fn id(self) -> &'static str {
                match self {
                    $(Self::$variant => $id),*
                }
            }
        }
    };
}

operations! {
    ListBerths = "list_berths",
    CreateBerth = "create_berth",
    ShowBerth = "show_berth",
    ChangeBerth = "change_berth",
    DeleteBerth = "delete_berth",
    StartBerth = "start_berth",
    StopBerth = "stop_berth",
    RestartBerth = "restart_berth",
    RebuildBerth = "rebuild_berth",
    SuspendBerth = "suspend_berth",
    ResumeBerth = "resume_berth",
    SuspendBerths = "suspend_berths",
    ResumeBerths = "resume_berths",
    ExecBerth = "exec_berth",
    ReadLogs = "read_logs",
    ShowInside = "show_inside",
    PruneBerth = "prune_berth",
    PreviewChange = "preview_change",
    ListUsage = "list_usage",
    ShowUsage = "show_usage",
    ListProfiles = "list_profiles",
    ShowProfile = "show_profile",
    CreateProfile = "create_profile",
    ChangeProfile = "change_profile",
    DeleteProfile = "delete_profile",
    ListImages = "list_images",
    BuildImage = "build_image",
    ImportImage = "import_image",
    PullImage = "pull_image",
    RemoveImage = "remove_image",
    SetDefaultImage = "set_default_image",
    ListOperations = "list_operations",
    ShowOperation = "show_operation",
    WaitOperation = "wait_operation",
    CancelOperation = "cancel_operation",
    ListAudit = "list_audit",
    FollowEvents = "follow_events",
    ListAccounts = "list_accounts",
    ListArchives = "list_archives",
    RemoveArchive = "remove_archive",
    RestoreBerth = "restore_berth",
    ShowNode = "show_node",
    RunDoctor = "run_doctor",
    RunDeepDoctor = "run_deep_doctor",
    ReadMetrics = "read_metrics",
    ShowUser = "show_user",
    OpenTerminal = "open_terminal",
    ShowMe = "show_me",
    ListSessions = "list_sessions",
    RevokeSession = "revoke_session",
    RevokeSessions = "revoke_sessions",
    CreateLink = "create_link",
    ListAdmins = "list_admins",
    ShowAdmin = "show_admin",
    CreateAdmin = "create_admin",
    ChangeAdmin = "change_admin",
    DeleteAdmin = "delete_admin",
    SetPassword = "set_password",
    ListTokens = "list_tokens",
    CreateToken = "create_token",
    RevokeToken = "revoke_token",
    RotateKeys = "rotate_keys",
    CreateBerths = "create_berths",
    ChangeBerths = "change_berths",
    ClaimBerth = "claim_berth",
    ListRules = "list_rules",
    CreateRule = "create_rule",
    ChangeRule = "change_rule",
    DeleteRule = "delete_rule",
    ApplyRules = "apply_rules",
    ListRequests = "list_requests",
    ShowRequest = "show_request",
    CreateRequest = "create_request",
    ApproveRequest = "approve_request",
    DenyRequest = "deny_request",
    CancelRequest = "cancel_request",
}

/// Operations that need no identity: they tell nothing, or are how one is proved.
pub const PUBLIC: &[&str] = &["healthz", "readyz", "openapi", "create_session", "exchange_token"];

/// The table.
pub fn access(role: Role, operation: Operation) -> Access {
    use Operation as O;
    match operation {
        O::ListBerths
        | O::ListUsage
        | O::ShowUsage
        | O::ShowBerth
        | O::ReadLogs
        | O::ShowInside
        | O::ListOperations
        | O::ShowOperation
        | O::WaitOperation
        | O::ListAudit
        | O::FollowEvents
        | O::ShowUser
        | O::ListRequests
        | O::ShowRequest => match role {
            Role::Admin | Role::Operator | Role::Auditor => Access::All,
            Role::User => Access::Own,
        },
        O::StartBerth
        | O::StopBerth
        | O::RestartBerth
        | O::RebuildBerth
        | O::CancelOperation
        | O::PruneBerth
        | O::CreateRequest
        | O::CancelRequest => match role {
            Role::Admin | Role::Operator => Access::All,
            Role::Auditor | Role::User => Access::Own,
        },
        // By the rules, and for oneself only.
        O::ClaimBerth => Access::Own,
        // A command runs with the user's files in reach: nobody but he and root.
        O::ExecBerth | O::OpenTerminal => match role {
            Role::Admin => Access::All,
            Role::Operator | Role::Auditor | Role::User => Access::Own,
        },
        // Nobody frees himself.
        O::CreateBerth
        | O::CreateBerths
        | O::ChangeBerths
        | O::ApproveRequest
        | O::DenyRequest
        | O::ChangeBerth
        | O::PreviewChange
        | O::DeleteBerth
        | O::RestoreBerth
        | O::SuspendBerth
        | O::ResumeBerth
        | O::SuspendBerths
        | O::ResumeBerths => match role {
            Role::Admin | Role::Operator => Access::All,
            Role::Auditor | Role::User => Access::None,
        },
        O::ListProfiles
        | O::ShowProfile
        | O::ListImages
        | O::ListAccounts
        | O::ListArchives
        | O::ShowNode
        | O::RunDoctor
        | O::ReadMetrics
        | O::ListRules => match role {
            Role::Admin | Role::Operator | Role::Auditor => Access::All,
            Role::User => Access::None,
        },
        // Own: of one's own account, which every caller has.
        O::ShowMe
        | O::ListSessions
        | O::RevokeSession
        | O::RevokeSessions
        | O::CreateLink
        | O::ListTokens
        | O::CreateToken
        | O::RevokeToken => match role {
            Role::Admin => Access::All,
            Role::Operator | Role::Auditor | Role::User => Access::Own,
        },
        O::ListAdmins | O::ShowAdmin => match role {
            Role::Admin | Role::Auditor => Access::All,
            Role::Operator | Role::User => Access::None,
        },
        O::SetPassword => match role {
            Role::Admin => Access::All,
            Role::Operator | Role::Auditor => Access::Own,
            Role::User => Access::None,
        },
        O::CreateAdmin | O::ChangeAdmin | O::DeleteAdmin | O::RotateKeys => match role {
            Role::Admin => Access::All,
            Role::Operator | Role::Auditor | Role::User => Access::None,
        },
        O::CreateProfile
        | O::ChangeProfile
        | O::DeleteProfile
        | O::BuildImage
        | O::ImportImage
        | O::PullImage
        | O::RemoveImage
        | O::RemoveArchive
        | O::SetDefaultImage
        | O::RunDeepDoctor
        | O::CreateRule
        | O::ChangeRule
        | O::DeleteRule
        | O::ApplyRules => match role {
            Role::Admin => Access::All,
            Role::Operator | Role::Auditor | Role::User => Access::None,
        },
    }
}

/// The least scope of a token that reaches an operation; nothing where none does: whoever finds a token must not make himself lasting
/// credentials with it.
pub fn scope(operation: Operation) -> Option<Scope> {
    use Operation as O;
    match operation {
        O::ListBerths
        | O::ShowBerth
        | O::ShowInside
        | O::PreviewChange
        | O::ReadLogs
        | O::ListUsage
        | O::ShowUsage
        | O::ListProfiles
        | O::ShowProfile
        | O::ListImages
        | O::ListOperations
        | O::ShowOperation
        | O::WaitOperation
        | O::ListAudit
        | O::FollowEvents
        | O::ShowNode
        | O::RunDoctor
        | O::ReadMetrics
        | O::ShowUser
        | O::ShowMe
        | O::ListSessions
        | O::ListAccounts
        | O::ListArchives
        | O::ListAdmins
        | O::ShowAdmin
        | O::ListTokens
        | O::ListRules
        | O::ListRequests
        | O::ShowRequest => Some(Scope::Read),
        O::CreateBerth
        | O::ChangeBerth
        | O::DeleteBerth
        | O::StartBerth
        | O::StopBerth
        | O::RestartBerth
        | O::RebuildBerth
        | O::CancelOperation
        | O::PruneBerth
        | O::RestoreBerth
        | O::SuspendBerth
        | O::ResumeBerth
        | O::SuspendBerths
        | O::ResumeBerths
        | O::ExecBerth
        | O::OpenTerminal
        | O::CreateBerths
        | O::ChangeBerths
        | O::ClaimBerth
        | O::CreateRequest
        | O::ApproveRequest
        | O::DenyRequest
        | O::CancelRequest => Some(Scope::Operate),
        O::CreateProfile
        | O::ChangeProfile
        | O::DeleteProfile
        | O::BuildImage
        | O::ImportImage
        | O::PullImage
        | O::RemoveImage
        | O::RemoveArchive
        | O::SetDefaultImage
        | O::RunDeepDoctor
        | O::RevokeSession
        | O::RevokeSessions
        | O::DeleteAdmin
        | O::RevokeToken
        | O::RotateKeys
        | O::CreateRule
        | O::ChangeRule
        | O::DeleteRule
        | O::ApplyRules => Some(Scope::Admin),
        O::CreateLink | O::CreateAdmin | O::ChangeAdmin | O::SetPassword | O::CreateToken => None,
    }
}

/// The role that is left of `role` within `scope`: who may only look is an auditor, who may act on berths an operator, at most.
pub fn within(role: Role, scope: Scope) -> Role {
    match (role, scope) {
        (Role::User, _) => Role::User,
        (_, Scope::Read) | (Role::Auditor, _) => Role::Auditor,
        (_, Scope::Operate) | (Role::Operator, _) => Role::Operator,
        (Role::Admin, Scope::Admin) => Role::Admin,
    }
}

/// How far `caller` reaches: as his role does, and with a token no further than its scope.
pub fn reach(caller: &Caller, operation: Operation) -> Access {
    match caller.via {
        Via::Socket | Via::Session(_) => access(caller.role, operation),
        Via::Token(_) | Via::AccessToken(_) => match scope(operation) {
            Some(least) if caller.scope >= least => {
                // An auditor sees what an operator does not: what a narrower scope reaches, a wider one does too, and neither more than the owner.
                let [narrow, wide] = [least, caller.scope].map(|scope| access(within(caller.role, scope), operation));
                access(caller.role, operation).min(narrow.max(wide))
            }
            _ => Access::None,
        },
    }
}

/// Whether `caller` may do `operation` on what belongs to `owner`.
pub fn permits(caller: &Caller, operation: Operation, owner: &str) -> bool {
    match reach(caller, operation) {
        Access::All => true,
        Access::Own => caller.name == owner,
        Access::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TokenId;

    #[test]
    fn only_admins_reach_everything_and_users_only_their_own() {
        for operation in Operation::ALL {
            // A claim is for oneself, whoever one is.
            let most = if *operation == Operation::ClaimBerth { Access::Own } else { Access::All };
            assert_eq!(access(Role::Admin, *operation), most, "{operation:?}");
            assert_ne!(access(Role::User, *operation), Access::All, "{operation:?}");
        }
    }

    #[test]
    fn auditors_change_nothing_of_others() {
        use Operation as O;
        let reads = [
            O::ListBerths,
            O::ListUsage,
            O::ShowUsage,
            O::ShowBerth,
            O::ReadLogs,
            O::ShowInside,
            O::ListOperations,
            O::ShowOperation,
            O::WaitOperation,
            O::ListAudit,
            O::FollowEvents,
            O::ShowUser,
            O::ListAdmins,
            O::ShowAdmin,
            O::ListRequests,
            O::ShowRequest,
            O::ListRules,
        ]
        .into_iter()
        .chain([
            O::ListProfiles,
            O::ShowProfile,
            O::ListImages,
            O::ListAccounts,
            O::ListArchives,
            O::ShowNode,
            O::RunDoctor,
            O::ReadMetrics,
        ]);
        let reads: Vec<_> = reads.collect();
        for operation in Operation::ALL {
            assert_eq!(access(Role::Auditor, *operation) == Access::All, reads.contains(operation), "{operation:?}");
        }
    }

    #[test]
    fn a_user_has_his_own_berth_and_no_other() {
        let caller = Caller::host("alice", 1000, Role::User);
        assert!(permits(&caller, Operation::ExecBerth, "alice"));
        assert!(!permits(&caller, Operation::ExecBerth, "bob"));
        assert!(!permits(&caller, Operation::DeleteBerth, "alice"));
    }

    #[test]
    fn a_token_never_reaches_further_than_its_owner_or_its_scope() {
        for operation in Operation::ALL {
            for role in Role::ALL {
                let via = Via::Token(TokenId(uuid::Uuid::nil()));
                let reaches = Scope::ALL.map(|scope| reach(&Caller { scope, via, ..Caller::host("alice", 1000, role) }, *operation));
                let [read, operate, whole] = reaches;
                assert!(reaches.is_sorted(), "{operation:?} {role:?}: {reaches:?}");
                let owners = if scope(*operation).is_some() { access(role, *operation) } else { Access::None };
                assert_eq!(whole, owners, "{operation:?} {role:?}");
                let at_most = |others: &[Role]| others.iter().map(|other| access(*other, *operation)).max().unwrap();
                assert!(operate <= at_most(&[Role::Operator, Role::Auditor]), "{operation:?} {role:?}");
                assert!(read <= at_most(&[Role::Auditor]), "{operation:?} {role:?}");
                assert!(scope(*operation) == Some(Scope::Read) || read == Access::None, "{operation:?} {role:?}");
            }
        }
    }

    #[test]
    fn an_administrator_of_the_same_name_has_nothing_of_the_host_account() {
        let caller = Caller { name: "admin:alice".to_owned(), uid: None, ..Caller::host("", 0, Role::Operator) };
        assert!(!permits(&caller, Operation::ExecBerth, "alice"));
    }
}

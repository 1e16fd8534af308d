//! Who may do what: one pure table, role × operation of the API.
//!
//! [`Access::Own`] is decided against the user that the thing belongs to. What a caller may not see does not exist for him: the service
//! answers 404 where a thing is named, 403 where only the kind of thing is.

use crate::domain::{Caller, Role};

/// How far a role reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    All,
    /// Only what belongs to the caller.
    Own,
    None,
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
    ReadMetrics = "read_metrics",
    ShowUser = "show_user",
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

/// Operations that need no identity.
pub const PUBLIC: &[&str] = &["healthz", "readyz", "openapi"];

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
        O::StartBerth | O::StopBerth | O::RestartBerth | O::CancelOperation | O::PruneBerth | O::CreateRequest | O::CancelRequest => {
            match role {
                Role::Admin | Role::Operator => Access::All,
                Role::Auditor | Role::User => Access::Own,
            }
        }
        // By the rules, and for oneself only.
        O::ClaimBerth => Access::Own,
        // A command runs with the user's files in reach: nobody but he and root.
        O::ExecBerth => match role {
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
        O::CreateProfile
        | O::ChangeProfile
        | O::DeleteProfile
        | O::BuildImage
        | O::ImportImage
        | O::RemoveImage
        | O::RemoveArchive
        | O::SetDefaultImage
        | O::CreateRule
        | O::ChangeRule
        | O::DeleteRule
        | O::ApplyRules => match role {
            Role::Admin => Access::All,
            Role::Operator | Role::Auditor | Role::User => Access::None,
        },
    }
}

/// Whether `caller` may do `operation` on what belongs to `owner`.
pub fn permits(caller: &Caller, operation: Operation, owner: &str) -> bool {
    match access(caller.role, operation) {
        Access::All => true,
        Access::Own => caller.name == owner,
        Access::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let caller = Caller { name: "alice".to_owned(), uid: 1000, role: Role::User, request_id: String::new() };
        assert!(permits(&caller, Operation::ExecBerth, "alice"));
        assert!(!permits(&caller, Operation::ExecBerth, "bob"));
        assert!(!permits(&caller, Operation::DeleteBerth, "alice"));
    }
}

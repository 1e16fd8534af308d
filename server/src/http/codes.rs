//! Every code that a problem can have: its status, what it means, and which operations answer it. The OpenAPI document is made from this, and
//! a test holds it against the sources: no code is used that does not stand here.

use By::{Body, Everybody, Keyed, Node, Ops, Paged, Path, Query, Stored};

/// Who answers a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Every operation that wants to know who asks.
    Everybody,
    /// Operations that take a JSON body.
    Body,
    /// Operations with a query.
    Query,
    /// Operations with a part of the path that is filled in.
    Path,
    /// Lists with a cursor.
    Paged,
    /// Writes with an `Idempotency-Key`.
    Keyed,
    /// Operations that ask the node before they answer.
    Node,
    Ops(&'static [&'static str]),
    /// Nobody as an answer: it stands in the problem of an operation that did not succeed.
    Stored,
}

#[derive(Clone, Copy, Debug)]
pub struct Code {
    pub code: &'static str,
    pub status: u16,
    pub meaning: &'static str,
    pub by: By,
}

/// Operations that ask the node before they answer.
pub const ASK_NODE: &[&str] = &[
    "create_berth",
    "change_berth",
    "preview_change",
    "exec_berth",
    "open_terminal",
    "create_admin",
    "change_admin",
    "read_logs",
    "show_inside",
    "prune_berth",
    "list_usage",
    "change_profile",
    "list_images",
    "remove_image",
    "set_default_image",
    "show_node",
    "show_user",
    "list_archives",
    "remove_archive",
    "restore_berth",
    "readyz",
    "create_berths",
    "change_berths",
    "claim_berth",
    "apply_rules",
    "approve_request",
];

const BERTH: &[&str] = &[
    "show_berth",
    "change_berth",
    "delete_berth",
    "preview_change",
    "start_berth",
    "stop_berth",
    "restart_berth",
    "rebuild_berth",
    "suspend_berth",
    "resume_berth",
    "exec_berth",
    "open_terminal",
    "read_logs",
    "show_inside",
    "prune_berth",
    "list_usage",
    "show_usage",
    "claim_berth",
    "create_request",
    "approve_request",
    "cancel_request",
];
/// What promises more of the host; of many at once each entry is told.
const PROMISES: &[&str] =
    &["create_berth", "restore_berth", "change_berth", "preview_change", "change_profile", "claim_berth", "approve_request"];
const LIMITS: &[&str] = &[
    "create_berth",
    "restore_berth",
    "change_berth",
    "preview_change",
    "create_profile",
    "change_profile",
    "create_request",
    "approve_request",
];
const PROFILE: &[&str] = &[
    "show_profile",
    "change_profile",
    "delete_profile",
    "create_profile",
    "create_berth",
    "restore_berth",
    "change_berth",
    "preview_change",
    "create_rule",
    "change_rule",
    "change_berths",
];
const USER: &[&str] = &[
    "restore_berth",
    "create_berth",
    "show_berth",
    "change_berth",
    "delete_berth",
    "preview_change",
    "start_berth",
    "stop_berth",
    "restart_berth",
    "rebuild_berth",
    "suspend_berth",
    "resume_berth",
    "exec_berth",
    "open_terminal",
    "read_logs",
    "show_inside",
    "prune_berth",
    "list_usage",
    "show_usage",
    "show_user",
    "create_admin",
    "change_admin",
];
const IMAGE: &[&str] = &["create_berth", "restore_berth", "set_default_image", "remove_image"];
const IMAGE_WORK: &[&str] = &["build_image", "import_image", "pull_image", "remove_image"];
const REVISED: &[&str] = &["change_berth", "delete_berth", "change_profile", "delete_profile"];
const ARCHIVE: &[&str] = &["delete_berth", "remove_archive", "restore_berth"];
const ADMIN: &[&str] = &["show_admin", "change_admin", "delete_admin", "set_password"];
const MAKES_ADMIN: &[&str] = &["create_admin", "change_admin"];
const PASSWORD: &[&str] = &["create_admin", "set_password"];
/// They are how a caller is known.
const SIGN_IN: &[&str] = &["create_session", "exchange_token"];
const OPERATION: &[&str] = &["show_operation", "wait_operation", "cancel_operation"];

macro_rules! codes {
    ($($code:literal $status:literal $by:expr => $meaning:literal;)*) => {
        pub const CODES: &[Code] = &[$(Code { code: $code, status: $status, meaning: $meaning, by: $by }),*];
    };
}

codes! {
    "unauthenticated" 401 Everybody => "it is not known who asks";
    "not_permitted" 403 Everybody => "the caller's role does not reach so far";
    "unknown_account" 403 Everybody => "the caller's uid is no account of this host";
    "accounts_unavailable" 503 Everybody => "the host's directory of accounts does not answer now";
    "database_unavailable" 503 Everybody => "the database cannot be used now; try again";
    "internal" 500 Everybody => "the server failed; its log says why, under the request id";
    "session_ended" 401 Everybody => "the session has ended or was revoked";
    "invalid_token" 401 Everybody => "the token is unknown, has expired or was revoked";
    "account_disabled" 401 Everybody => "the administrator is disabled or gone, or the host account may not sign in now";
    "account_gone" 401 Everybody => "the host account is gone, or another";
    "cross_site" 403 Everybody => "the request comes from another site's page";
    "unknown_host" 421 Everybody => "the service does not go by the name in Host";
    "sign_in_failed" 401 Ops(&["create_session"]) => "name or password is wrong, or the account is disabled";
    "link_used" 401 Ops(&["create_session"]) => "the link was used already, is too old, or is none";
    "too_many_attempts" 429 Ops(&["create_session", "exchange_token", "create_link", "set_password", "create_admin"]) => "too many attempts; Retry-After says when the next one counts";
    "host_account_required" 403 Ops(&["create_link"]) => "links are for host accounts, on the unix socket";
    "no_listener" 409 Ops(&["create_link"]) => "the service listens for no browsers";
    "session_not_found" 404 Ops(&["revoke_session"]) => "there is no such session, or it is not the caller's";
    "token_not_found" 404 Ops(&["revoke_token"]) => "there is no such token, or it is not the caller's";
    "invalid_token_name" 400 Ops(&["create_token"]) => "this can be no token's name";
    "invalid_expiry" 400 Ops(&["create_token"]) => "a token lives from a minute to 366 days";
    "too_many_tokens" 409 Ops(&["create_token"]) => "the account has too many tokens";
    "invalid_account_name" 400 Ops(&["create_admin", "show_admin", "change_admin", "delete_admin", "set_password"]) => "this can be no administrator's name";
    "admin_not_found" 404 Ops(ADMIN) => "there is no such administrator, or it is not the caller";
    "admin_exists" 409 Ops(&["create_admin"]) => "there is an administrator of this name";
    "last_admin" 409 Ops(&["change_admin", "delete_admin"]) => "it is the last administrator who can sign in";
    "host_user_tied" 409 Ops(MAKES_ADMIN) => "the host account is tied to another administrator";
    "root_is_admin" 400 Ops(MAKES_ADMIN) => "root is an administrator as it is";
    "invalid_role" 400 Ops(MAKES_ADMIN) => "an administrator is no user";
    "weak_password" 400 Ops(PASSWORD) => "the password is too short, too long, the name, or among the commonest";
    "current_password_required" 400 Ops(&["set_password"]) => "one's own password is changed with the current one";
    "wrong_password" 403 Ops(&["set_password"]) => "the current password is another";
    "no_such_path" 404 Path => "there is nothing at this path";
    "method_not_allowed" 405 Path => "the path does not take this method";

    "unsupported_media_type" 415 Body => "the body is not application/json";
    "malformed_json" 400 Body => "the body is not JSON";
    "invalid_body" 400 Body => "the JSON is not what this operation takes";
    "body_too_large" 413 Body => "the body passes 256 KiB";
    "broken_body" 400 Body => "the body broke off";
    "slow_body" 408 Body => "the body did not arrive in time";
    "invalid_query" 400 Query => "a parameter of the query is unknown, or its value makes no sense";
    "invalid_path" 400 Path => "a part of the path is not what stands there";
    "invalid_limit" 400 Paged => "limit lies not between 1 and 500";
    "invalid_cursor" 400 Paged => "the cursor is not one that a page of this list gave";
    "invalid_event_id" 400 Ops(&["follow_events"]) => "Last-Event-ID is not the id of an event";

    "invalid_idempotency_key" 400 Keyed => "an Idempotency-Key has 1 to 255 visible ASCII characters";
    "idempotency_not_possible" 400 Ops(&["exec_berth"]) => "a connection that is upgraded cannot be had a second time";
    "idempotency_in_progress" 409 Keyed => "a request with this key is under way";
    "idempotency_interrupted" 409 Keyed => "the server ended while a request with this key was under way";
    "idempotency_answer_not_kept" 409 Keyed => "the request was done before; its answer was not kept";
    "idempotency_key_reused" 422 Keyed => "the key was used for another request";
    "invalid_if_match" 400 Ops(REVISED) => "If-Match holds no ETags";
    "changed_meanwhile" 412 Ops(REVISED) => "it is not at the revision that If-Match names";

    "node_unreachable" 503 Node => "berth-node cannot be reached";
    "node_stopping" 503 Node => "berth-node is about to stop";
    "node_timeout" 504 Node => "berth-node did not answer in time";
    "node_not_understood" 502 Node => "berth-node's answer is not understood: it is of another version";
    "directory_unavailable" 503 Node => "the host's directory of accounts does not answer the node";

    "invalid_user_name" 400 Ops(USER) => "this can be no user's name";
    "user_not_found" 404 Ops(&["create_berth", "restore_berth", "show_user", "create_admin", "change_admin"]) => "the host has no such account, or it is not the caller's";
    "berth_not_found" 404 Ops(BERTH) => "the user has no berth, or it is not the caller's";
    "berth_exists" 409 Ops(&["create_berth", "restore_berth"]) => "the user has a berth already";
    "berth_deleting" 409 Ops(BERTH) => "the berth is being deleted";
    "berth_suspended" 409 Ops(&["start_berth", "stop_berth", "restart_berth", "rebuild_berth", "exec_berth", "open_terminal"]) => "an administrator has barred the berth";
    "berth_not_suspended" 409 Ops(&["resume_berth"]) => "the berth is not barred";
    "berth_not_running" 409 Ops(&["exec_berth", "open_terminal", "read_logs", "prune_berth"]) => "the berth does not run";
    "not_seen" 409 Ops(&["show_inside"]) => "the berth rests, and what is in it was not seen before";
    "prune_failed" 409 Ops(&["prune_berth"]) => "the berth's Docker refused, or did not get done";
    "root_not_allowed" 422 Ops(&["create_berth", "restore_berth", "claim_berth"]) => "root gets no berth";
    "system_account" 422 Ops(&["create_berth", "restore_berth", "claim_berth"]) => "the account is one of the system's, and allow_system is not set";
    "invalid_reason" 400 Ops(&["suspend_berth", "suspend_berths", "create_request", "approve_request", "deny_request"]) => "the reason is empty, too long, or not one line";
    "invalid_command" 400 Ops(&["exec_berth"]) => "the command is empty, or a part of it cannot be passed on";
    "upgrade_required" 426 Ops(&["exec_berth", "open_terminal"]) => "the connection must be upgraded to berth-exec, or to a WebSocket";
    "too_many_commands" 503 Ops(&["exec_berth", "open_terminal"]) => "too many commands run in the berth";
    "exec_failed" 502 Ops(&["exec_berth", "open_terminal"]) => "the command could not be begun";

    "limit_too_low" 422 Ops(LIMITS) => "a limit is below the least";
    "limit_too_high" 422 Ops(LIMITS) => "a limit is above the most";
    "invalid_policy" 422 Ops(LIMITS) => "the policy or the egress makes no sense";
    "disk_overcommitted" 422 Ops(PROMISES) => "all disks together would pass what the policy allows";
    "limit_refused" 409 Ops(&["preview_change"]) => "the kernel does not take the limit";
    "disk_below_use" 409 Ops(&["preview_change"]) => "the disk would be smaller than what is in use";

    "duplicate_user" 409 Ops(&["create_berths", "change_berths"]) => "the user stands in the list twice";
    "assignment_ended" 409 Ops(&["resume_berth"]) => "the time for which the berth was assigned is over";
    "invalid_until" 400 Ops(&["create_berth", "create_berths", "change_berth", "change_berths", "create_request", "approve_request"]) => "the end lies in the past, or too far ahead";
    "too_many_claims" 503 Ops(&["claim_berth"]) => "too many ask for a berth at once; try again";
    "rule_exhausted" 422 Ops(&["claim_berth"]) => "the rule for the caller's group has given all that it may";
    "invalid_group_name" 400 Ops(&["create_rule", "change_rule", "delete_rule"]) => "this can be no group's name";
    "rule_not_found" 404 Ops(&["change_rule", "delete_rule"]) => "there is no rule for the group";
    "rule_exists" 409 Ops(&["create_rule"]) => "there is a rule for the group already";
    "too_many_rules" 422 Ops(&["create_rule"]) => "there are as many rules as there may be";
    "invalid_most" 400 Ops(&["create_rule", "change_rule"]) => "a rule gives at least one berth";
    "request_not_found" 404 Ops(&["show_request", "approve_request", "deny_request", "cancel_request"]) => "there is no such request, or it is not the caller's";
    "request_not_open" 409 Ops(&["approve_request", "deny_request", "cancel_request"]) => "the request is decided, or over";
    "nothing_asked" 400 Ops(&["create_request", "approve_request"]) => "no amount is asked for";
    "too_many_requests" 422 Ops(&["create_request"]) => "the user has too many open requests";
    "no_entries" 400 Ops(&["create_berths", "change_berths"]) => "the list is empty";
    "too_many_entries" 400 Ops(&["create_berths", "change_berths"]) => "the list has more entries than one request may";
    "cpu_overcommitted" 422 Ops(PROMISES) => "all berths together would pass what the policy allows of the CPUs";
    "memory_overcommitted" 422 Ops(PROMISES) => "all berths together would pass what the policy allows of the memory";

    "invalid_profile_name" 400 Ops(PROFILE) => "this can be no profile's name";
    "profile_not_found" 404 Ops(PROFILE) => "there is no such profile";
    "profile_exists" 409 Ops(&["create_profile"]) => "there is a profile of this name";
    "profile_in_use" 409 Ops(&["delete_profile"]) => "berths use the profile";
    "profile_is_default" 409 Ops(&["delete_profile"]) => "the profile default stays";
    "invalid_description" 400 Ops(&["create_profile", "change_profile"]) => "the description is too long, or holds a NUL";
    "exists" 409 Ops(&["create_berth", "restore_berth", "create_profile", "create_admin", "change_admin"]) => "one of this name was made at the same time";

    "invalid_image_name" 400 Ops(&["create_berth", "set_default_image", "remove_image", "build_image", "import_image", "pull_image"]) => "this can be no image's name";
    "image_not_found" 404 Ops(IMAGE) => "there is no such image";
    "image_in_use" 409 Ops(&["remove_image"]) => "berths stand on the image";
    "no_image" 409 Ops(&["create_berth", "claim_berth"]) => "there is no image yet";
    "no_default_image" 409 Ops(&["create_berth", "claim_berth"]) => "there are several images, and none is the default one";
    "default_image_gone" 409 Ops(&["create_berth", "claim_berth"]) => "the default image was removed";
    "unknown_suite" 400 Ops(&["build_image"]) => "there is no recipe for this release of Debian";
    "invalid_reference" 400 Ops(&["pull_image"]) => "this names no image of a registry";
    "invalid_login" 400 Ops(&["pull_image"]) => "the name or the password is empty or too long";
    "invalid_certificates" 400 Ops(&["pull_image"]) => "these are no certificates in PEM";
    "plain_http_refused" 400 Ops(&["pull_image"]) => "without TLS only loopback addresses are asked";
    "too_many_image_operations" 409 Ops(IMAGE_WORK) => "too many operations on images are under way";

    "invalid_archive_name" 400 Ops(ARCHIVE) => "this can be no archive's name";
    "archive_not_found" 404 Ops(&["remove_archive", "restore_berth"]) => "there is no such archive";
    "archive_damaged" 422 Ops(&["remove_archive", "restore_berth"]) => "it is no whole archive of a berth";

    "operation_not_found" 404 Ops(OPERATION) => "there is no such operation, or it is not the caller's";
    "operation_finished" 409 Ops(&["cancel_operation"]) => "the operation has ended";
    "operation_under_way" 409 Ops(&["cancel_operation"]) => "the host is at work on it";
    "operation_not_cancellable" 409 Ops(&["cancel_operation"]) => "this kind is never cancelled: ask for the opposite";
    "subject_not_found" 404 Ops(&["follow_events"]) => "the subject is not the caller's";
    "too_many_streams" 429 Ops(&["follow_events"]) => "the caller has too many streams open";

    "cancelled" 409 Stored => "somebody has cancelled it";
    "superseded" 409 Stored => "a later request took its place";
    "timed_out" 504 Stored => "it was not done in time";
    "upload_interrupted" 502 Stored => "the server ended while the image was sent";
    "pull_interrupted" 502 Stored => "the server ended while it pulled the image, and keeps no login";
    "registry_unreachable" 503 Stored => "the registry cannot be reached, or broke off too often";
    "registry_silent" 504 Stored => "the registry answers, and then says nothing";
    "registry_not_trusted" 502 Stored => "the registry's certificate is of no authority that is trusted";
    "registry_failed" 502 Stored => "the registry gives no proper answer, refuses, or leads in a circle";
    "registry_login" 403 Stored => "the registry wants a login, or does not take this one";
    "registry_mismatch" 502 Stored => "what the registry sends has not the digest or the size that it said";
    "not_in_registry" 404 Stored => "the registry has no such image";
    "image_too_large" 422 Stored => "the image is larger than what is taken";
    "operation_not_understood" 502 Stored => "the stored operation is of another version";
    "foreign_berth" 409 Stored => "the node holds a berth that the database does not know";
    "create_failed" 502 Stored => "the host could not make the berth";
    "start_failed" 502 Stored => "the berth could not be started";
    "rebuild_failed" 502 Stored => "the berth is not wholly rebuilt, and does not run before it is";
    "stop_failed" 502 Stored => "the berth could not be stopped";
    "wake_failed" 502 Stored => "the berth could not be woken";
    "resume_failed" 502 Stored => "the berth could not be let go";
    "delete_failed" 502 Stored => "the berth could not be removed";
    "change_failed" 502 Stored => "the change could not be carried out";
    "socket_failed" 502 Stored => "the user's socket could not be made";
    "record_not_written" 502 Stored => "the node could not write its record";
    "record_corrupt" 409 Stored => "the node cannot read its record of the berth";
    "image_failed" 502 Stored => "the image could not be made";
    "image_refused" 422 Stored => "the archive is no image";
    "image_fixed" 409 Stored => "a berth stays on its image";
    "build_running" 409 Stored => "an image is being built already";
    "import_running" 409 Stored => "too many images are being imported";
    "host_disk_full" 422 Stored => "the host's file system is full";
    "ids_exhausted" 422 Stored => "no range of ids is left";
    "id_in_use" 409 Stored => "another berth has this id";
    "uid_in_use" 409 Stored => "another berth has this uid";
    "uid_changed" 409 Stored => "the account has another uid than when the berth was assigned";
    "berth_busy" 503 Stored => "too much is asked of the berth at once";
    "invalid_request" 400 Stored => "the node does not understand the server: it is of another version";
    "no_such_route" 404 Stored => "the node does not know the call: it is of another version";
    "node_info_failed" 502 Stored => "the node cannot read the host's figures";
    "archive_failed" 502 Stored => "the archive could not be written; the berth stays";
    "archive_disk_full" 422 Stored => "there is too little room for the archive; the berth stays";
    "archive_exists" 409 Stored => "there is another archive of this name; the berth stays";
    "archive_does_not_fit" 422 Stored => "the archive holds more than the disk is to hold";
    "restore_failed" 502 Stored => "the berth could not be made from the archive";
    "calls_not_read" 502 Stored => "the node cannot read a spool of calls";
}

/// What an operation takes, as far as it decides about its codes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Takes {
    pub public: bool,
    pub body: bool,
    pub query: bool,
    pub path: bool,
    pub cursor: bool,
    pub key: bool,
}

/// The codes that an operation can answer.
pub fn of(operation: &str, takes: Takes) -> Vec<&'static Code> {
    let answers = |code: &&Code| match code.by {
        Everybody if SIGN_IN.contains(&operation) => match code.code {
            "unauthenticated" | "invalid_token" | "account_disabled" => operation == "exchange_token",
            other => ["internal", "database_unavailable", "cross_site", "unknown_host"].contains(&other),
        },
        Everybody => !takes.public || matches!((code.code, operation), ("internal", _) | ("database_unavailable", "readyz")),
        Body => takes.body,
        Query => takes.query,
        Path => takes.path,
        Paged => takes.cursor,
        Keyed => takes.key,
        Node => ASK_NODE.contains(&operation),
        Ops(operations) => operations.contains(&operation),
        Stored => false,
    };
    CODES.iter().filter(answers).collect()
}

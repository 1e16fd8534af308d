//! Every operation of the OpenAPI document × everybody who may ask, in every way of asking: as the table in `authz` says, and nothing of what
//! a caller may not see exists for him.

#![forbid(unsafe_code)]

mod support;

use axum::{body::Body, http::Request};
use berth_server::{
    authz::{Access, Operation, PUBLIC, reach},
    domain::{Caller, Role, Scope, TokenId, Via},
    http::openapi,
};
use serde_json::{Value, json};
use support::{
    BIN, DAEMON, ROOT, Server,
    browser::{Answer, CLIENT, Credential, PASSWORD},
};

/// Things that are somebody else's, or root's; each caller meets them fresh.
struct Things {
    operation: String,
    session: String,
    token: String,
    request: String,
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// A host account without a berth, on the unix socket.
    Stranger,
    /// The host account whose berth it is, likewise.
    Owner,
    Root,
    /// The owner in a browser, by a one-time link; and with tokens.
    OwnerBy(By),
    /// An administrator.
    Administrator(Role, By),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Cookie,
    Token(Scope),
    AccessToken(Scope),
}

fn everybody() -> Vec<Who> {
    let ways = || {
        let tokens = Scope::ALL.into_iter().flat_map(|scope| [By::Token(scope), By::AccessToken(scope)]);
        std::iter::once(By::Cookie).chain(tokens)
    };
    let administrators =
        [Role::Auditor, Role::Operator, Role::Admin].into_iter().flat_map(|role| ways().map(move |by| Who::Administrator(role, by)));
    [Who::Stranger, Who::Owner, Who::Root].into_iter().chain(ways().map(Who::OwnerBy)).chain(administrators).collect()
}

impl Who {
    /// As the table knows him.
    fn caller(self) -> Caller {
        let (name, uid, role, by) = match self {
            Who::Stranger => ("daemon", Some(DAEMON), Role::User, None),
            Who::Owner => ("bin", Some(BIN), Role::User, None),
            Who::Root => ("root", Some(ROOT), Role::Admin, None),
            Who::OwnerBy(by) => ("bin", Some(BIN), Role::User, Some(by)),
            Who::Administrator(role, by) => ("admin:carol", None, role, Some(by)),
        };
        let (via, scope) = match by {
            None => (Via::Socket, Scope::Admin),
            // What a session may, only its being one tells.
            Some(By::Cookie) => (Via::Session(berth_server::domain::SessionId(uuid::Uuid::nil())), Scope::Admin),
            Some(By::Token(scope)) => (Via::Token(TokenId(uuid::Uuid::nil())), scope),
            Some(By::AccessToken(scope)) => (Via::AccessToken(TokenId(uuid::Uuid::nil())), scope),
        };
        Caller { uid, via, scope, ..Caller::host(name, 0, role) }
    }

    /// What he comes with over TCP; nothing for the socket.
    async fn credential(self, server: &Server) -> Option<Credential> {
        let (cookie, by) = match self {
            Who::Stranger | Who::Owner | Who::Root => return None,
            Who::OwnerBy(by) => (server.follow(&server.link(BIN).await).await.cookie(), by),
            Who::Administrator(role, by) => {
                server.administrator("carol", role.as_str()).await;
                (server.sign_in("carol").await, by)
            }
        };
        let scope = match by {
            By::Cookie => return Some(cookie),
            By::Token(scope) | By::AccessToken(scope) => scope,
        };
        let (_, token) = server.token(&cookie, scope.as_str()).await;
        match by {
            By::AccessToken(_) => Some(server.access(&token).await),
            _ => Some(token),
        }
    }
}

/// Method, path and id of every operation, those that end something last.
fn operations() -> Vec<(String, String, String)> {
    let document = openapi();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            found.push((method.to_uppercase(), path.clone(), id));
        }
    }
    found.sort_by_key(|(method, _, id)| {
        let order = match id.as_str() {
            // What runs in a berth, while it does.
            "exec_berth" | "open_terminal" => 0,
            "stop_berth" | "suspend_berth" | "suspend_berths" => 2,
            "resume_berth" | "resume_berths" => 3,
            "rotate_keys" | "revoke_token" | "revoke_session" | "revoke_sessions" => 4,
            _ if method == "DELETE" => 5,
            _ => 1,
        };
        (order, id.clone())
    });
    found
}

/// The path for the user `bin` and for things that are root's.
fn path(template: &str, things: &Things) -> String {
    let id = match template {
        path if path.contains("/sessions/") => &things.session,
        path if path.contains("/tokens/") => &things.token,
        path if path.contains("/requests/") => &things.request,
        _ => &things.operation,
    };
    let path = template.replace("{user}", "bin").replace("{name}", "bin").replace("{id}", id);
    // Without a subject it is a stream of what is one's own, for everybody.
    let path = if path.ends_with("/events") { format!("{path}?subject=bin") } else { path };
    let path = path.replace("{profile}", "student").replace("{image}", "default").replace("{admin}", "dora").replace("{group}", "staff");
    assert!(!path.contains('{'), "say here what {path} is about");
    path
}

fn body(id: &str) -> Option<Value> {
    match id {
        "create_berth" => Some(json!({ "user": "alice" })),
        "pull_image" => Some(json!({ "reference": "127.0.0.1:1/team/base", "plain_http": true })),
        "create_profile" => Some(json!({ "name": "mine" })),
        "restore_berth" => Some(json!({})),
        "prune_berth" => Some(json!({ "what": ["images"] })),
        "rebuild_berth" => Some(json!({ "wipe": false })),
        "suspend_berth" | "suspend_berths" => Some(json!({ "reason": "mining" })),
        "exec_berth" => Some(json!({ "argv": ["true"] })),
        "change_berth" | "preview_change" | "change_profile" | "build_image" | "change_admin" => Some(json!({})),
        "create_admin" => Some(json!({ "name": "erik", "role": "auditor", "password": PASSWORD })),
        "set_password" => Some(json!({ "password": "short grey cup 8!" })),
        "create_token" => Some(json!({ "name": "more", "scope": "read" })),
        "create_berths" => Some(json!({ "berths": [{ "user": "alice" }] })),
        "change_berths" => Some(json!({ "users": ["bin"], "change": {} })),
        "create_rule" => Some(json!({ "group": "staff", "profile": "student" })),
        "change_rule" | "apply_rules" | "approve_request" => Some(json!({})),
        "create_request" => {
            Some(json!({ "user": "bin", "amounts": { "pids": { "add": 1 } }, "until": i64::from(u32::MAX) * 1_000, "reason": "x" }))
        }
        "deny_request" => Some(json!({ "word": "no" })),
        _ => None,
    }
}

async fn things(server: &Server) -> Things {
    let accepted =
        server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "bin", "allow_system": true, "disk_bytes": 1_u64 << 30 }))).await;
    let operation = server.end_of(accepted).await["id"].as_str().unwrap().to_owned();
    let root = server.follow(&server.link(ROOT).await).await;
    let session = root.body["id"].as_str().unwrap().to_owned();
    let (token, _) = server.token(&root.cookie(), "read").await;
    server.administrator("dora", "admin").await;
    let (status, rule) = server.send(ROOT, "POST", "/api/v1/rules", body("create_rule")).await;
    assert_eq!(status, 201, "{rule}");
    let (status, asked) = server.send(BIN, "POST", "/api/v1/requests", body("create_request")).await;
    assert_eq!(status, 201, "{asked}");
    let request = asked["id"].as_str().unwrap().to_owned();
    Things { operation, session, token, request }
}

async fn ask(server: &Server, who: Who, credential: Option<&Credential>, method: &str, path: &str, id: &str) -> Answer {
    let upgrade: &[(&str, &str)] = match id {
        "exec_berth" => &[("upgrade", "berth-exec"), ("connection", "upgrade")],
        _ => &[],
    };
    // A terminal in a browser comes from a page of ours.
    let origin: &[(&str, &str)] = match id {
        "open_terminal" => &[("origin", "http://localhost:8470")],
        _ => &[],
    };
    let headers = [upgrade, origin].concat();
    match credential {
        Some(credential) => server.ask_with(credential, CLIENT, &headers, method, path, body(id)).await,
        None => {
            let uid = who.caller().uid.unwrap();
            let mut request = Request::builder().method(method).uri(path).extension(berth_server::http::PeerUid(uid));
            for (name, value) in headers.iter().chain(&[("host", "localhost:8470")]) {
                request = request.header(*name, *value);
            }
            let request = match body(id) {
                Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
                None => request.body(Body::empty()),
            };
            server.answer(request.unwrap()).await
        }
    }
}

/// True where the thing that [`path`] names is the caller's own.
fn owns(who: Who, id: &str) -> bool {
    match id {
        // Those of the caller, whoever he is.
        "show_me" | "list_sessions" | "revoke_sessions" | "create_link" | "list_tokens" | "create_token" => true,
        // Root's, and dora's.
        "revoke_session" | "revoke_token" | "set_password" => false,
        _ => who.caller().name == "bin",
    }
}

#[tokio::test]
async fn s05_nobody_reaches_any_operation() {
    let server = Server::start().await;
    let things = things(&server).await;
    let operations = operations();
    assert_eq!(
        operations.iter().filter(|(_, _, id)| !PUBLIC.contains(&id.as_str())).count(),
        Operation::ALL.len(),
        "the document and the table speak of the same operations"
    );
    for (method, template, id) in operations.iter().filter(|(_, _, id)| !PUBLIC.contains(&id.as_str())) {
        let path = path(template, &things);
        let request = Request::builder().method(method.as_str()).uri(&path);
        let (status, answer) = server.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, answer["code"].as_str()), (401, Some("unauthenticated")), "{id}: {answer}");
        for credential in [Credential::None, Credential::Cookie("x".repeat(43)), Credential::Bearer("berth_x".to_owned())] {
            let answer = server.ask(&credential, method, &path, body(id)).await;
            assert_eq!(answer.status, 401, "{id} {credential:?}: {}", answer.body);
        }
    }
    assert_eq!(server.node.calls(), ["ensure bin Running"], "nothing that was refused reached the node");
}

#[tokio::test]
async fn s05_every_operation_for_everybody_in_every_way() {
    let operations: Vec<_> = operations().into_iter().filter(|(_, _, id)| !PUBLIC.contains(&id.as_str())).collect();
    let everybody = everybody();
    assert_eq!(everybody.len(), 3 + 7 + 3 * 7);
    let (mut asked, mut refused, mut hidden) = (0, 0, 0);
    for who in &everybody {
        let server = Server::start().await;
        let things = things(&server).await;
        let credential = who.credential(&server).await;
        let caller = who.caller();
        for (method, template, id) in &operations {
            let operation =
                *Operation::ALL.iter().find(|operation| operation.id() == id).unwrap_or_else(|| panic!("{id} has no row in authz"));
            let answer = ask(&server, *who, credential.as_ref(), method, &path(template, &things), id).await;
            asked += 1;
            let context = format!("{who:?} {id}: {} {}", answer.status, answer.body);
            match (reach(&caller, operation), owns(*who, id)) {
                (Access::None, _) => {
                    assert_eq!((answer.status, answer.code()), (403, "not_permitted"), "{context}");
                    refused += 1;
                }
                // A list shows what is one's own, which is nothing; a thing of another does not exist.
                (Access::Own, false) if answer.status == 200 => assert_eq!(answer.body["items"], json!([]), "{context}"),
                (Access::Own, false) => {
                    assert_eq!(answer.status, 404, "{context}");
                    hidden += 1;
                }
                // Links are made on the host itself.
                (_, _) if id == "create_link" && caller.via != Via::Socket => answer.is(403, "host_account_required"),
                // To cancel is to undo: it takes the right to do.
                (Access::Own | Access::All, _) if id == "cancel_operation" && reach(&caller, Operation::CreateBerth) == Access::None => {
                    assert_eq!((answer.status, answer.code()), (403, "not_permitted"), "{context}");
                }
                // There is no archive; who may not have one is told something else.
                (Access::All, _) if answer.code() == "archive_not_found" => {}
                // 409 and 422: what was asked before stands in the way; 426: no connection of this test can be upgraded.
                (Access::Own | Access::All, _) => {
                    assert!(!matches!(answer.status, 401 | 403 | 404 | 500..), "{context}");
                }
            }
        }
    }
    assert_eq!(asked, operations.len() * everybody.len());
    assert!(refused > 0 && hidden > 0, "{refused} refused, {hidden} hidden");
}

//! Every operation of the OpenAPI document, as nobody, as another user and as root: what a caller may not see does not exist for him.

#![forbid(unsafe_code)]

mod support;

use axum::{body::Body, http::Request};
use berth_server::{
    authz::{Access, Operation, PUBLIC, access},
    domain::Role,
    http::openapi,
};
use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server};

/// Method, path with its parameters filled in for the user `bin`, and id.
fn operations(foreign: &str) -> Vec<(String, String, String)> {
    let document = openapi();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{user}", "bin").replace("{name}", "bin").replace("{id}", foreign).replace("{group}", "staff");
        let path = path.replace("{profile}", "student").replace("{image}", "default");
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            found.push((method.to_uppercase(), path.clone(), id));
        }
    }
    found
}

fn body(id: &str) -> Option<Value> {
    match id {
        "create_berth" => Some(json!({ "user": "alice" })),
        "create_profile" => Some(json!({ "name": "mine" })),
        "suspend_berth" | "suspend_berths" => Some(json!({ "reason": "mining" })),
        "restore_berth" => Some(json!({})),
        "prune_berth" => Some(json!({ "what": ["images"] })),
        "exec_berth" => Some(json!({ "argv": ["true"] })),
        "change_berth" | "preview_change" | "change_profile" | "build_image" => Some(json!({})),
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

#[tokio::test]
async fn s05_every_operation_for_nobody_and_for_another_user() {
    let server = Server::start().await;
    let accepted =
        server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "bin", "allow_system": true, "disk_bytes": 1_u64 << 30 }))).await;
    let foreign = server.end_of(accepted).await["id"].as_str().unwrap().to_owned();
    let operations = operations(&foreign);
    assert_eq!(operations.len(), Operation::ALL.len() + 2, "healthz and readyz need no identity");
    for (method, path, id) in operations {
        if PUBLIC.contains(&id.as_str()) {
            continue;
        }
        let request = Request::builder().method(method.as_str()).uri(&path);
        let (status, answer) = server.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, answer["code"].as_str()), (401, Some("unauthenticated")), "{id}: {answer}");

        let operation = *Operation::ALL.iter().find(|operation| operation.id() == id).unwrap();
        let (status, answer) = match id.as_str() {
            // Without a subject it is a stream of what is his own, which has no end.
            "follow_events" => server.send(DAEMON, "GET", &format!("{path}?subject=bin"), None).await,
            "exec_berth" => {
                let request = Request::builder().method("POST").uri(&path).header("upgrade", "berth-exec").header("connection", "upgrade");
                let request = request.header("content-type", "application/json").extension(berth_server::http::PeerUid(DAEMON));
                server.raw(request.body(Body::from(r#"{"argv":["true"]}"#)).unwrap()).await
            }
            _ => server.send(DAEMON, &method, &path, body(&id)).await,
        };
        match access(Role::User, operation) {
            Access::None => assert_eq!((status, answer["code"].as_str()), (403, Some("not_permitted")), "{id}: {answer}"),
            // A list shows what is one's own, which is nothing; a thing of another does not exist.
            Access::Own if status == 200 => assert_eq!(answer["items"], json!([]), "{id}"),
            Access::Own => assert_eq!(status, 404, "{id}: {answer}"),
            Access::All => panic!("{id} is open to everybody"),
        }
    }
    assert_eq!(server.get("/api/v1/berths").await["items"].as_array().unwrap().len(), 1);
    let calls = server.node.calls();
    assert_eq!(calls, ["ensure bin Running"], "nothing that was refused reached the node");
}

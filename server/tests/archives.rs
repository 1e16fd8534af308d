//! Berths deleted into archives and made from them, over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server, problem};

async fn archive(server: &Server, user: &str, name: &str) -> Value {
    let accepted = server.send(ROOT, "DELETE", &format!("/api/v1/berths/{user}?archive={name}"), None).await;
    server.end_of(accepted).await
}

async fn restore(server: &Server, name: &str, body: Value) -> Value {
    let accepted = server.send(ROOT, "POST", &format!("/api/v1/archives/{name}/restore"), Some(body)).await;
    server.end_of(accepted).await
}

#[tokio::test]
async fn l04_a_berth_goes_into_an_archive_and_comes_back_with_its_limits_and_profile() {
    let server = Server::start().await;
    let (status, answer) = server.send(ROOT, "POST", "/api/v1/profiles", Some(json!({ "name": "course", "pids": 333 }))).await;
    assert_eq!(status, 201, "{answer}");
    let accepted =
        server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice", "profile": "course", "disk_bytes": 3_u64 << 30 }))).await;
    server.end_of(accepted).await;
    let operation = archive(&server, "alice", "").await;
    let name = operation["result"].as_str().unwrap().to_owned();
    assert!(operation["state"] == "succeeded" && name.starts_with("alice-") && name.ends_with(".berth"), "{operation}");
    assert_eq!(server.node.calls()[1..], [format!("archive alice {name}"), "delete alice".to_owned()]);
    let listed = server.get("/api/v1/archives").await;
    assert_eq!((&listed["items"][0]["name"], &listed["items"][0]["profile"]), (&json!(name), &json!("course")), "{listed}");

    let operation = restore(&server, &name, json!({})).await;
    assert_eq!((&operation["state"], &operation["kind"]), (&json!("succeeded"), &json!("berth_restore")), "{operation}");
    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!(
        (&berth["profile"], &berth["limits"]["disk_bytes"], &berth["limits"]["pids"]),
        (&json!("course"), &json!(3_u64 << 30), &json!(333))
    );
    // To another user, who may have one berth only.
    let operation = restore(&server, &name, json!({ "user": "bob", "start": true, "profile": "default" })).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(server.get("/api/v1/berths/bob").await["state"], "running");
    let (status, answer) = server.send(ROOT, "POST", &format!("/api/v1/archives/{name}/restore"), Some(json!({ "user": "bob" }))).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("berth_exists")));

    let accepted = server.send(ROOT, "DELETE", &format!("/api/v1/archives/{name}"), None).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(server.get("/api/v1/archives").await["items"], json!([]));
    let (status, answer) = server.send(ROOT, "DELETE", &format!("/api/v1/archives/{name}"), None).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("archive_not_found")));
    let row = server.get("/api/v1/audit?kind=action&limit=1").await["items"][0].clone();
    assert_eq!((&row["action"], &row["subject_kind"], &row["subject"]), (&json!("remove_archive"), &json!("archive"), &json!(name)));
}

#[tokio::test]
async fn l04_what_cannot_be_archived_is_not_deleted() {
    let server = Server::start().await;
    server.assign("alice").await;
    server.node.refuse(507, problem("archive_disk_full", "there is no room"));
    let operation = archive(&server, "alice", "a.berth").await;
    assert_eq!((&operation["state"], &operation["problem"]["code"]), (&json!("failed"), &json!("archive_disk_full")), "{operation}");
    let berth = server.until("/api/v1/berths/alice", |berth| berth["wanted"] == "present").await;
    assert!(berth["state"] == "running" && !server.node.calls().contains(&"delete alice".to_owned()), "{berth}");
    let rows = server.get("/api/v1/audit?kind=action&limit=1").await;
    assert_eq!(rows["items"][0]["action"], "undo_delete_berth");
    // A plain delete afterwards keeps nothing.
    let accepted = server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await;
    let operation = server.end_of(accepted).await;
    assert!(operation["state"] == "succeeded" && operation["result"].is_null(), "{operation}");
}

#[tokio::test]
async fn l04_a_restore_that_fails_leaves_no_berth_and_tells_why() {
    let server = Server::start().await;
    server.assign("alice").await;
    archive(&server, "alice", "a.berth").await;
    server.node.refuse(422, problem("archive_damaged", "its checksums differ"));
    let operation = restore(&server, "a.berth", json!({ "start": true })).await;
    assert_eq!((&operation["state"], &operation["problem"]["code"]), (&json!("failed"), &json!("archive_damaged")), "{operation}");
    assert_eq!(server.get("/api/v1/berths").await["items"], json!([]));
    // What it says of itself is not believed.
    server.node.inner.lock().unwrap().archives.get_mut("a.berth").unwrap().notes = json!({ "profile": "../..", "own": 7 });
    let operation = restore(&server, "a.berth", json!({})).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(server.get("/api/v1/berths/alice").await["profile"], "default");
    server.node.inner.lock().unwrap().archives.get_mut("a.berth").unwrap().image = "sha256:00".to_owned();
    for (path, body, status, code) in [
        ("a.berth", json!({ "user": "bob" }), 404, "image_not_found"),
        ("b.berth", json!({}), 404, "archive_not_found"),
        ("a", json!({}), 400, "invalid_archive_name"),
        ("a.berth", json!({ "user": "nobody-here" }), 404, "user_not_found"),
    ] {
        let (told, answer) = server.send(ROOT, "POST", &format!("/api/v1/archives/{path}/restore"), Some(body)).await;
        assert_eq!((told, answer["code"].as_str()), (status, Some(code)), "{path}: {answer}");
    }
    let (status, _) = server.send(DAEMON, "POST", "/api/v1/archives/a.berth/restore", Some(json!({}))).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn l04_l01_a_server_that_dies_takes_an_archive_up_again() {
    let mut server = Server::start().await;
    server.assign("alice").await;
    server.stop_node().await;
    let (status, accepted) = server.send(ROOT, "DELETE", "/api/v1/berths/alice?archive=a.berth", None).await;
    assert_eq!(status, 202, "{accepted}");
    let mut server = server.again().await;
    server.start_node();
    let operation = server.end_of((status, accepted)).await;
    assert_eq!((&operation["state"], &operation["result"]), (&json!("succeeded"), &json!("a.berth")), "{operation}");
}

//! Images, profiles and streams through the API, over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, header},
};
use berth_api::{
    ExecBerth,
    client::{Client, ExecError, ExecFrame},
};
use berth_server::http::PeerUid;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;
use support::{ROOT, Server};

#[tokio::test]
async fn a_build_keeps_the_last_lines_of_output_and_names_its_image() {
    let server = Server::start().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "name": "tools" }))).await;
    let operation = server.end_of(accepted).await;
    assert_eq!((operation["state"].as_str(), operation["log_lines"].as_u64()), (Some("succeeded"), Some(150)));
    let log = operation["log"].as_array().unwrap();
    assert_eq!((log.len(), log[0].as_str(), log[99].as_str()), (100, Some("step 51"), Some("step 150")));
    assert_eq!(operation["result"], format!("sha256:{}", "cd".repeat(32)));
    // The first image that is made here becomes the default one.
    let images = server.get("/api/v1/images").await;
    let default: Vec<_> = images["items"].as_array().unwrap().iter().filter(|image| image["default"] == true).collect();
    assert_eq!((default.len(), default[0]["name"].as_str()), (1, Some("tools")));
}

#[tokio::test]
async fn a_build_that_fails_says_why() {
    let server = Server::start().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "suite": "sid" }))).await;
    let operation = server.end_of(accepted).await;
    assert_eq!((operation["state"].as_str(), operation["problem"]["code"].as_str()), (Some("failed"), Some("mirror_unreachable")));
    let (status, refused) = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "suite": "woody" }))).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("unknown_suite")));
}

#[tokio::test]
async fn an_image_streams_through_and_answers_with_its_operation() {
    let server = Server::start().await;
    let client = Client::new(server.listen_as(ROOT));
    let parts = stream::iter((0..64).map(|_| Ok(Bytes::from(vec![7; 64 * 1024]))));
    let accepted = client.import_image("mine", parts).await.unwrap();
    let operation = client.wait(accepted.operation.id, Duration::from_secs(20), None).await.unwrap();
    assert_eq!(operation.result, Some(format!("sha256:{}", "ef".repeat(32))), "{operation:?}");
    assert_eq!(server.node.inner.lock().unwrap().imported, 4 << 20);

    let accepted = client.import_image("mine", stream::empty()).await.unwrap();
    let operation = client.wait(accepted.operation.id, Duration::from_secs(20), None).await.unwrap();
    assert_eq!(operation.problem.unwrap().code, "empty_image");
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("the sender died"))]);
    assert!(client.import_image("mine", broken).await.is_err());
    let failed = server
        .until("/api/v1/operations?limit=1", |page| page["items"][0]["finished_at"].is_i64() && page["items"][0]["kind"] == "image_import")
        .await;
    assert_eq!(failed["items"][0]["state"], "failed");
}

#[tokio::test]
async fn an_image_in_use_stays_and_another_goes() {
    let server = Server::start().await;
    server.assign("alice").await;
    let (status, refused) = server.send(ROOT, "DELETE", "/api/v1/images/default", None).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("image_in_use")));
    assert!(refused["detail"].as_str().unwrap().contains("alice"));
    let accepted = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "name": "tools" }))).await;
    server.end_of(accepted).await;
    let (status, image) = server.send(ROOT, "POST", "/api/v1/images/abababab/default", None).await;
    assert_eq!((status, image["name"].as_str()), (200, Some("default")));
    let accepted = server.send(ROOT, "DELETE", "/api/v1/images/tools", None).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(server.get("/api/v1/images").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.send(ROOT, "DELETE", "/api/v1/images/tools", None).await.0, 404);
}

#[tokio::test]
async fn profiles_are_made_changed_and_deleted_and_berths_follow() {
    let server = Server::start().await;
    let names = |list: serde_json::Value| {
        list["items"].as_array().unwrap().iter().map(|profile| profile["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(server.get("/api/v1/profiles").await), ["default", "developer", "student"]);
    let new = json!({ "name": "lab", "cpu_millis": 500 });
    let (status, profile) = server.send(ROOT, "POST", "/api/v1/profiles", Some(new.clone())).await;
    assert_eq!((status, profile["limits"]["cpu_millis"].as_u64(), profile["limits"]["pids"].as_u64()), (201, Some(500), Some(1024)));
    assert_eq!(server.send(ROOT, "POST", "/api/v1/profiles", Some(new)).await.1["code"], "profile_exists");
    let (status, refused) = server.send(ROOT, "PATCH", "/api/v1/profiles/lab", Some(json!({ "disk_bytes": 1 }))).await;
    assert_eq!((status, refused["code"].as_str()), (422, Some("limit_too_low")));

    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice", "profile": "lab" }))).await;
    server.end_of(accepted).await;
    assert_eq!(server.send(ROOT, "DELETE", "/api/v1/profiles/lab", None).await.1["code"], "profile_in_use");
    assert_eq!(server.send(ROOT, "DELETE", "/api/v1/profiles/default", None).await.1["code"], "profile_is_default");
    let (status, _) = server.send(ROOT, "PATCH", "/api/v1/profiles/lab", Some(json!({ "pids": 300 }))).await;
    assert_eq!(status, 200);
    server.until("/api/v1/berths/alice", |berth| berth["limits"]["pids"] == 300).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while server.node.inner.lock().unwrap().berths["alice"].limits.pids != 300 {
        assert!(tokio::time::Instant::now() < deadline, "the node was not told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "profile": "default" }))).await;
    server.end_of(accepted).await;
    assert_eq!(server.send(ROOT, "DELETE", "/api/v1/profiles/lab", None).await.0, 204);
}

#[tokio::test]
async fn exec_carries_input_output_and_the_exit_status() {
    let server = Server::start().await;
    server.assign("alice").await;
    let client = Client::new(server.listen_as(ROOT));
    let exec = |argv: &[&str]| ExecBerth { argv: argv.iter().map(ToString::to_string).collect(), ..ExecBerth::default() };

    let (mut reader, mut writer) = client.exec("alice", &exec(&["cat"])).await.unwrap().split();
    let sent = vec![42; 300_000];
    let (feed, mut got) = (sent.clone(), Vec::new());
    let feeding = tokio::spawn(async move {
        writer.stdin(&feed).await.unwrap();
        writer.stdin(&[]).await.unwrap();
        writer
    });
    let code = loop {
        match reader.next().await.unwrap() {
            ExecFrame::Stdout(bytes) => got.extend_from_slice(&bytes),
            ExecFrame::Stderr(bytes) => panic!("{bytes:?}"),
            ExecFrame::Exit(code) => break code,
        }
    };
    assert_eq!((code, got == sent), (0, true));
    drop(feeding.await.unwrap());

    let (mut reader, _writer) = client.exec("alice", &exec(&["exit", "137"])).await.unwrap().split();
    assert_eq!(reader.next().await.unwrap(), ExecFrame::Exit(137));
    let sized = ExecBerth { tty: true, columns: Some(80), rows: Some(24), ..exec(&["size"]) };
    let (mut reader, _writer) = client.exec("alice", &sized).await.unwrap().split();
    assert_eq!(reader.next().await.unwrap(), ExecFrame::Stderr(Bytes::from_static(b"true Some((80, 24))")));
    let (mut reader, _writer) = client.exec("alice", &exec(&["nothing"])).await.unwrap().split();
    assert!(matches!(reader.next().await, Err(ExecError::Failed(detail)) if detail.contains("nothing cannot be run")));

    let problem = |error: berth_api::client::Error| match error {
        berth_api::client::Error::Problem(problem) => problem.code,
        other => panic!("{other}"),
    };
    assert_eq!(problem(client.exec("alice", &exec(&[])).await.unwrap_err()), "invalid_command");
    assert_eq!(problem(client.exec("bob", &exec(&["cat"])).await.unwrap_err()), "berth_not_found");
    let (status, refused) = server.send(ROOT, "POST", "/api/v1/berths/alice/exec", Some(json!({ "argv": ["cat"] }))).await;
    assert_eq!((status, refused["code"].as_str()), (426, Some("upgrade_required")));
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/stop", None).await;
    server.end_of(accepted).await;
    assert_eq!(problem(client.exec("alice", &exec(&["cat"])).await.unwrap_err()), "berth_not_running");
    let audit = server.get("/api/v1/audit?subject=alice").await;
    let programs: Vec<_> = audit["items"].as_array().unwrap().iter().filter(|row| row["action"] == "exec_berth").collect();
    assert_eq!((programs.len(), &programs[3]["details"]["program"]), (4, &json!("cat")));
}

#[tokio::test]
async fn the_console_streams_through() {
    let server = Server::start().await;
    server.assign("alice").await;
    let client = Client::new(server.listen_as(ROOT));
    let parts: Vec<_> = client.logs("alice", Some(10), true).await.unwrap().collect().await;
    assert_eq!(parts[0].as_ref().unwrap(), "tail Some(\"10\") follow Some(\"true\")\n");
}

#[tokio::test]
async fn malformed_and_oversized_bodies_have_their_own_codes() {
    let server = Server::start().await;
    let big = format!("{{\"user\":\"{}\"}}", "a".repeat(300 * 1024));
    for (kind, body, status, code) in [
        ("application/json", "{\"user\":", 400, "malformed_json"),
        ("application/json", "[]", 400, "invalid_body"),
        ("application/json", "\u{0}", 400, "malformed_json"),
        ("application/json; charset=utf-8", "{\"user\":1}", 400, "invalid_body"),
        ("text/plain", "{\"user\":\"alice\"}", 415, "unsupported_media_type"),
        ("application/json", big.as_str(), 413, "body_too_large"),
    ] {
        let request = Request::builder().method("POST").uri("/api/v1/berths").extension(PeerUid(ROOT));
        let request = request.header(header::CONTENT_TYPE, kind).body(Body::from(body.to_owned())).unwrap();
        let (got, answer) = server.raw(request).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{answer}");
    }
}

#[tokio::test]
async fn a_wait_returns_at_the_next_change_and_at_its_deadline() {
    let server = Server::without_node().await;
    let (status, refused) = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice" }))).await;
    assert_eq!((status, refused["code"].as_str()), (503, Some("node_unreachable")));
    let (_, accepted) = server.send(ROOT, "POST", "/api/v1/images", Some(json!({}))).await;
    let path = format!("/api/v1/operations/{}/wait", accepted["operation"]["id"].as_str().unwrap());
    let changed = server.get(&format!("{path}?timeout=10&revision=0")).await;
    assert!(changed["revision"].as_u64().unwrap() > 0);
    let started = std::time::Instant::now();
    let same = server.get(&format!("{path}?timeout=1")).await;
    assert!(same["finished_at"].is_null() && started.elapsed() >= Duration::from_millis(900), "{same}");
}

#[tokio::test]
async fn doctor_tells_of_the_server_even_without_a_node() {
    let server = Server::without_node().await;
    let report = server.get("/api/v1/doctor").await;
    assert_eq!(report["healthy"], false);
    let level = |name: &str| {
        report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == name)
            .map(|check| check["level"].as_str().unwrap().to_owned())
    };
    assert_eq!((level("node").as_deref(), level("database").as_deref()), (Some("failed"), Some("ok")));
    let server = Server::start().await;
    server.assign("alice").await;
    let report = server.until("/api/v1/doctor", |report| report["healthy"] == true).await;
    assert!(report["checks"].as_array().unwrap().len() >= 5, "{report}");
    let (status, deep) = server.send(ROOT, "POST", "/api/v1/doctor/deep", None).await;
    let tried = deep["checks"].as_array().unwrap().iter().find(|check| check["name"] == "deep: container");
    assert_eq!((status, deep["healthy"].as_bool(), tried.map(|check| &check["level"])), (200, Some(true), Some(&json!("ok"))), "{deep}");
    let trail = server.get("/api/v1/audit").await;
    assert!(trail["items"].as_array().unwrap().iter().any(|row| row["action"] == "run_deep_doctor"), "{trail}");
    let node = server.get("/api/v1/node").await;
    assert_eq!(
        (node["hostname"].as_str(), node["berths"].as_u64(), node["promised_cpu_millis"].as_u64()),
        (Some("pier"), Some(1), Some(2000))
    );
    assert_eq!(server.get("/api/v1/users/alice").await["berth"], true);
    assert_eq!(server.send(ROOT, "GET", "/api/v1/users/carol", None).await.0, 404);
    assert_eq!(server.get("/openapi.json").await["openapi"].as_str().unwrap().get(..2), Some("3."));
}

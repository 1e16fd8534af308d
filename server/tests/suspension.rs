//! Barring berths and letting them go, over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server, problem};

async fn suspend(server: &Server, user: &str, reason: &str) -> Value {
    let accepted = server.send(ROOT, "POST", &format!("/api/v1/berths/{user}/suspend"), Some(json!({ "reason": reason }))).await;
    server.end_of(accepted).await
}

async fn ends(server: &Server, (status, accepted): (u16, Value)) -> Vec<String> {
    assert_eq!(status, 202, "{accepted}");
    let mut states = Vec::new();
    for operation in accepted["operations"].as_array().unwrap() {
        let id = operation["id"].as_str().unwrap();
        let operation = server.get(&format!("/api/v1/operations/{id}/wait?timeout=20")).await;
        states.push(operation["state"].as_str().unwrap().to_owned());
    }
    states
}

#[tokio::test]
async fn a_suspended_berth_says_why_and_a_resume_takes_up_what_was() {
    let server = Server::start().await;
    server.assign("alice").await;
    let operation = suspend(&server, "alice", " mining ").await;
    assert_eq!((operation["state"].as_str(), operation["kind"].as_str()), (Some("succeeded"), Some("berth_suspend")));
    let berth = server.get("/api/v1/berths/alice").await;
    let suspended = berth["suspended"].clone();
    assert_eq!((&berth["state"], &suspended["reason"], &suspended["by"]), (&json!("suspended"), &json!("mining"), &json!("root")));
    assert_eq!(server.node.inner.lock().unwrap().asked["alice"].suspended.as_deref(), Some("mining"));
    let row = server.get("/api/v1/audit?limit=1").await["items"][0].clone();
    assert_eq!(
        (&row["action"], &row["details"]["reason"], &row["operation_id"]),
        (&json!("suspend_berth"), &json!("mining"), &operation["id"])
    );

    for what in ["start", "stop", "restart"] {
        let (status, answer) = server.send(ROOT, "POST", &format!("/api/v1/berths/alice/{what}"), None).await;
        assert_eq!((status, answer["code"].as_str()), (409, Some("berth_suspended")), "{what}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("mining") && answer["hint"].as_str().unwrap().contains("berth resume alice"));
    }
    // Its limits can be changed, and it stays barred.
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "pids": 200 }))).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(server.get("/api/v1/berths/alice").await["state"], "suspended");
    // A new reason, since when it was.
    suspend(&server, "alice", "asked to").await;
    let again = server.get("/api/v1/berths/alice").await["suspended"].clone();
    assert_eq!((&again["reason"], &again["since"]), (&json!("asked to"), &suspended["since"]));

    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/resume", None).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!((&berth["state"], &berth["suspended"]), (&json!("running"), &Value::Null));
    let (status, answer) = server.send(ROOT, "POST", "/api/v1/berths/alice/resume", None).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("berth_not_suspended")));
}

#[tokio::test]
async fn its_user_sees_the_reason_and_cannot_free_himself_and_an_administrator_can_delete_it() {
    let server = Server::start().await;
    let body = json!({ "user": "daemon", "allow_system": true });
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(body)).await;
    server.end_of(accepted).await;
    suspend(&server, "daemon", "mining").await;
    let (_, own) = server.send(DAEMON, "GET", "/api/v1/berths/daemon", None).await;
    assert_eq!(own["suspended"]["reason"], "mining");
    let (status, answer) = server.send(DAEMON, "POST", "/api/v1/berths/daemon/start", None).await;
    assert_eq!((status, answer["hint"].as_str()), (409, Some("ask an administrator of this host")), "{answer}");
    for path in ["/api/v1/berths/daemon/resume", "/api/v1/berths:resume"] {
        let (status, answer) = server.send(DAEMON, "POST", path, None).await;
        assert_eq!((status, answer["code"].as_str()), (403, Some("not_permitted")), "{path}");
    }
    let accepted = server.send(ROOT, "DELETE", "/api/v1/berths/daemon", None).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
}

#[tokio::test]
async fn reasons_that_are_none_are_refused() {
    let server = Server::start().await;
    server.assign("alice").await;
    let long = "a".repeat(501);
    for path in ["/api/v1/berths/alice/suspend", "/api/v1/berths:suspend"] {
        for (body, code) in [
            (json!({}), "invalid_body"),
            (json!({ "reason": "" }), "invalid_reason"),
            (json!({ "reason": "a\nb" }), "invalid_reason"),
            (json!({ "reason": long }), "invalid_reason"),
        ] {
            let (status, answer) = server.send(ROOT, "POST", path, Some(body)).await;
            assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{path}");
        }
    }
    assert_eq!(server.get("/api/v1/berths/alice").await["suspended"], Value::Null);
}

#[tokio::test]
async fn l07_all_are_suspended_within_seconds_though_every_place_for_work_is_taken_by_starts_that_hang() {
    let server = Server::start().await;
    let body = |n: usize| json!({ "user": format!("user{n}"), "disk_bytes": 1_u64 << 30, "start": false });
    for n in 1..=40 {
        let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(body(n))).await;
        server.end_of(accepted).await;
    }
    suspend(&server, "user40", "first").await;
    server.node.inner.lock().unwrap().hangs = true;
    let mut starts = Vec::new();
    for n in 1..=12 {
        let (status, accepted) = server.send(ROOT, "POST", &format!("/api/v1/berths/user{n}/start"), None).await;
        assert_eq!(status, 202, "{accepted}");
        starts.push(accepted["operation"]["id"].as_str().unwrap().to_owned());
    }
    let path = format!("/api/v1/operations/{}", starts[0]);
    server.until(&path, |operation| operation["state"] == "running").await;

    let since = Instant::now();
    let accepted = server.send(ROOT, "POST", "/api/v1/berths:suspend", Some(json!({ "reason": "maintenance" }))).await;
    assert_eq!((accepted.1["operations"].as_array().unwrap().len(), &accepted.1["unchanged"]), (39, &json!(1)));
    assert!(ends(&server, accepted).await.iter().all(|state| state == "succeeded"));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    let berths = server.get("/api/v1/berths?limit=200").await["items"].clone();
    for berth in berths.as_array().unwrap() {
        let reason = if berth["user"] == "user40" { "first" } else { "maintenance" };
        assert_eq!((&berth["state"], &berth["suspended"]["reason"]), (&json!("suspended"), &json!(reason)), "{berth}");
    }
    for id in &starts {
        let start = server.get(&format!("/api/v1/operations/{id}")).await;
        assert_eq!((&start["state"], &start["problem"]["code"]), (&json!("cancelled"), &json!("berth_suspended")), "{start}");
    }

    // What was wanted before is taken up: those that were to start do so.
    server.node.inner.lock().unwrap().hangs = false;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths:resume", None).await;
    assert_eq!(accepted.1["operations"].as_array().unwrap().len(), 40);
    assert!(ends(&server, accepted).await.iter().all(|state| state == "succeeded"));
    assert_eq!(server.get("/api/v1/berths/user1").await["state"], "running");
    assert_eq!(server.get("/api/v1/berths/user40").await["state"], "stopped");
}

#[tokio::test]
async fn a_suspension_that_the_node_refuses_once_is_tried_again() {
    let server = Server::start().await;
    server.assign("alice").await;
    server.node.refuse_suspension(500, problem("freezer_failed", "the group did not freeze"));
    let operation = suspend(&server, "alice", "mining").await;
    assert_eq!((operation["state"].as_str(), operation["problem"]["code"].as_str()), (Some("failed"), Some("freezer_failed")));
    let berth = server.until("/api/v1/berths/alice", |berth| berth["state"] == "suspended").await;
    assert_eq!(berth["suspended"]["reason"], "mining");
    server.until("/api/v1/berths/alice", |berth| berth["conditions"] == json!([])).await;
}

#[tokio::test]
async fn a_suspension_survives_a_restart_of_the_server_and_a_node_that_is_away() {
    let mut server = Server::start().await;
    server.assign("alice").await;
    server.stop_node().await;
    let (status, _) = server.send(ROOT, "POST", "/api/v1/berths/alice/suspend", Some(json!({ "reason": "mining" }))).await;
    assert_eq!(status, 202);
    let mut server = server.again().await;
    server.start_node();
    server.until("/api/v1/berths/alice", |berth| berth["state"] == "suspended").await;
}

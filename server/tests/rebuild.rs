//! A fresh root file system: what the node is asked for, once for each wish, and who may wish.

#![forbid(unsafe_code)]

mod support;

use berth_protocol::Rebuild;
use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server};

const PATH: &str = "/api/v1/berths/alice/rebuild";

fn asked(server: &Server) -> Option<Rebuild> {
    server.node.inner.lock().unwrap().asked["alice"].rebuild
}

async fn rebuild(server: &Server, body: Value) -> Rebuild {
    let accepted = server.send(ROOT, "POST", PATH, Some(body)).await;
    let ended = server.end_of(accepted).await;
    assert_eq!((&ended["kind"], &ended["state"]), (&json!("berth_rebuild"), &json!("succeeded")), "{ended}");
    asked(server).expect("the node was asked")
}

#[tokio::test]
async fn each_wish_is_told_to_the_node_and_a_later_one_is_another() {
    let server = Server::start().await;
    server.assign("alice").await;
    assert_eq!(asked(&server), None);
    let first = rebuild(&server, json!({})).await;
    assert!(!first.wipe);
    let second = rebuild(&server, json!({ "wipe": true })).await;
    assert!(second.wipe && second.at > first.at, "{first:?} {second:?}");
    let row = server.get("/api/v1/audit?kind=action&limit=1").await["items"][0].clone();
    assert_eq!((&row["action"], &row["details"]["wipe"]), (&json!("rebuild_berth"), &json!(true)), "{row}");
    // It is done, and not told again with whatever is asked next.
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/stop", None).await;
    server.end_of(accepted).await;
    assert_eq!(asked(&server), None);
}

#[tokio::test]
async fn a_suspension_takes_it_back_and_a_suspended_berth_is_not_rebuilt() {
    let server = Server::start().await;
    server.assign("alice").await;
    rebuild(&server, json!({})).await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/suspend", Some(json!({ "reason": "mining" }))).await;
    server.end_of(accepted).await;
    let (status, refused) = server.send(ROOT, "POST", PATH, Some(json!({}))).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("berth_suspended")), "{refused}");
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/resume", None).await;
    server.end_of(accepted).await;
    assert_eq!(asked(&server), None);
}

#[tokio::test]
async fn one_that_waits_for_the_node_can_be_cancelled_and_is_then_not_carried_out() {
    let mut server = Server::start().await;
    server.assign("alice").await;
    server.stop_node().await;
    let (status, accepted) = server.send(ROOT, "POST", PATH, Some(json!({ "wipe": true }))).await;
    assert_eq!(status, 202, "{accepted}");
    let id = accepted["operation"]["id"].as_str().unwrap();
    let (status, cancelled) = server.send(ROOT, "POST", &format!("/api/v1/operations/{id}/cancel"), None).await;
    assert_eq!((status, cancelled["state"].as_str()), (200, Some("cancelled")), "{cancelled}");
    server.start_node();
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/restart", None).await;
    server.end_of(accepted).await;
    assert_eq!(asked(&server), None);
}

#[tokio::test]
async fn a_user_may_for_himself_alone() {
    let server = Server::start().await;
    server.assign("alice").await;
    let (status, refused) = server.send(DAEMON, "POST", PATH, Some(json!({ "wipe": true }))).await;
    assert_eq!((status, refused["code"].as_str()), (404, Some("berth_not_found")), "{refused}");
    assert_eq!(asked(&server), None);
    let (status, refused) = server.send(ROOT, "POST", PATH, Some(json!({ "wipe": "yes" }))).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("invalid_body")), "{refused}");
}

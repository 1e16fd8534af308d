//! The stream of events: what is told to whom, from where on, and what becomes of who does not keep up.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use berth_protocol::AccountState;
use berth_server::{
    config::Accounts,
    domain::{EventKind, NewEvent},
    http::PeerUid,
    store,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server};

/// A stream that is being read.
struct Watch {
    body: BodyDataStream,
    text: String,
}

impl Watch {
    async fn open(server: &Server, uid: u32, path: &str, last: Option<i64>) -> Self {
        let mut request = Request::builder().uri(path).extension(PeerUid(uid));
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = server.response(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event; nothing when the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
                let Some(data) = field("data:") else { continue };
                let data: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(field("id:"), Some(data["id"].to_string()));
                assert_eq!(field("event:").as_deref(), data["kind"].as_str());
                return Some(data);
            }
            let part = tokio::time::timeout(Duration::from_secs(30), self.body.next()).await.expect("an event within 30 s")?;
            self.text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if wanted(&event) {
                return event;
            }
        }
    }
}

async fn note(server: &Server, subject: &str, owner: Option<&str>, count: usize) {
    let mut tx = server.store.begin().await.unwrap();
    for _ in 0..count {
        let event = NewEvent { owner, ..NewEvent::new(EventKind::BerthChanged, subject) };
        store::events::note(&mut tx, support::now(), event).await.unwrap();
    }
    server.store.commit(tx).await.unwrap();
}

#[tokio::test]
async fn an_assignment_and_what_the_node_tells_come_as_events_in_order() {
    let server = Server::start().await;
    let mut watch = Watch::open(&server, ROOT, "/api/v1/events", None).await;
    let first = watch.next().await.unwrap();
    assert_eq!(first["kind"], "ready");
    server.assign("alice").await;
    let running = watch.until(|event| event["kind"] == "berth_changed" && event["state"] == "running").await;
    assert_eq!(running["subject"], "alice");
    let ended = watch.until(|event| event["kind"] == "operation_changed" && event["state"] == "succeeded").await;
    assert!(ended["operation"].is_string() && ended["id"].as_i64() > running["id"].as_i64(), "{ended}");
    // A condition is told, figures of use are not.
    server.node.change("alice", |status| status.usage.as_mut().unwrap().memory_bytes += 1);
    server.node.change("alice", |status| status.state = berth_protocol::State::Frozen);
    let next = watch.until(|event| event["id"].as_i64() > ended["id"].as_i64() && event["kind"] == "berth_changed").await;
    assert_eq!(next["state"], "frozen");
    let accepted = server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await;
    server.end_of(accepted).await;
    assert_eq!(watch.until(|event| event["kind"] == "berth_removed").await["subject"], "alice");
    let (status, _) = server.send(ROOT, "POST", "/api/v1/profiles", Some(json!({ "name": "mine" }))).await;
    assert_eq!(status, 201);
    assert_eq!(watch.until(|event| event["kind"] == "profile_changed").await["subject"], "mine");
    let rule = json!({ "group": "students", "profile": "mine" });
    assert_eq!(server.send(ROOT, "POST", "/api/v1/rules", Some(rule)).await.0, 201);
    assert_eq!(watch.until(|event| event["kind"] == "rule_changed").await["subject"], "students");
    let new = json!({ "name": "carol", "role": "operator", "password": "a long and dull sentence" });
    let (status, made) = server.send(ROOT, "POST", "/api/v1/admins", Some(new)).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(watch.until(|event| event["kind"] == "account_changed").await["subject"], "admin:carol");
    server.send(ROOT, "DELETE", "/api/v1/admins/carol", None).await;
    assert_eq!(watch.until(|event| event["kind"] == "account_changed").await["subject"], "admin:carol");
}

#[tokio::test]
async fn an_account_of_the_host_that_goes_and_comes_back_is_told_once_each() {
    let often = Accounts { check_seconds: 1, gone_checks: 3, gone_seconds: 0, grace_seconds: 0, max_at_once: 1, known: Vec::new() };
    let server = Server::watching(often).await;
    let mut watch = Watch::open(&server, ROOT, "/api/v1/events", None).await;
    server.assign("alice").await;
    server.assign("bob").await;
    server.node.inner.lock().unwrap().accounts = [("alice".to_owned(), AccountState::Vanished)].into();
    let gone = watch.until(|event| event["kind"] == "account_changed").await;
    assert_eq!((&gone["subject"], &gone["state"]), (&json!("alice"), &json!("vanished")), "{gone}");
    server.node.inner.lock().unwrap().accounts.clear();
    let back = watch.until(|event| event["kind"] == "account_changed").await;
    assert_eq!((&back["subject"], &back["state"]), (&json!("alice"), &json!("present")), "{back}");
}

#[tokio::test]
async fn a_user_sees_what_is_his_and_nothing_of_another() {
    let server = Server::start().await;
    let mut own = Watch::open(&server, DAEMON, "/api/v1/events", None).await;
    assert_eq!(own.next().await.unwrap()["kind"], "ready");
    note(&server, "bin", Some("bin"), 1).await;
    note(&server, "daemon", None, 1).await;
    note(&server, "daemon", Some("daemon"), 1).await;
    let event = own.next().await.unwrap();
    assert_eq!((event["subject"].as_str(), event["id"].as_i64()), (Some("daemon"), Some(3)));
    // Also of what was before.
    let mut own = Watch::open(&server, DAEMON, "/api/v1/events?subject=daemon", Some(0)).await;
    assert_eq!(own.next().await.unwrap()["kind"], "ready");
    assert_eq!(own.next().await.unwrap()["id"], 3);
    let (status, answer) = server.send(DAEMON, "GET", "/api/v1/events?subject=bin", None).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("subject_not_found")));
}

#[tokio::test]
async fn who_comes_again_goes_on_where_he_was_or_is_told_that_he_cannot() {
    let server = Server::start().await;
    note(&server, "alice", Some("alice"), 3).await;
    let mut watch = Watch::open(&server, ROOT, "/api/v1/events?last_event_id=1", None).await;
    assert_eq!(watch.next().await.unwrap()["kind"], "ready");
    assert_eq!(watch.next().await.unwrap()["id"], 2);
    assert_eq!(watch.next().await.unwrap()["id"], 3);
    note(&server, "alice", Some("alice"), 1).await;
    assert_eq!(watch.next().await.unwrap()["id"], 4);

    // An id that was never given: the database is an older one.
    let mut watch = Watch::open(&server, ROOT, "/api/v1/events", Some(999)).await;
    let reset = watch.next().await.unwrap();
    assert_eq!((reset["kind"].as_str(), reset["id"].as_i64()), (Some("reset"), Some(4)));
    note(&server, "alice", Some("alice"), 1).await;
    assert_eq!(watch.next().await.unwrap()["id"], 5, "it goes on from there");

    // Events that are no longer kept.
    note(&server, "alice", Some("alice"), store::events::KEEP as usize + 400).await;
    let mut reader = server.store.reader().await.unwrap();
    let (first, head) = store::events::bounds(&mut reader).await.unwrap();
    drop(reader);
    assert!(first > 5 && head - first <= store::events::KEEP + 200, "{first} to {head}");
    let mut watch = Watch::open(&server, ROOT, "/api/v1/events", Some(5)).await;
    assert_eq!(watch.next().await.unwrap()["kind"], "reset");

    for bad in ["x", "-1", "99999999999999999999"] {
        let request = Request::builder().uri("/api/v1/events").header("last-event-id", bad).extension(PeerUid(ROOT));
        let (status, answer) = server.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("invalid_event_id")), "{bad}");
    }
}

#[tokio::test]
async fn who_reads_too_slowly_is_reset_and_dropped() {
    let server = Server::start().await;
    let mut slow = Watch::open(&server, ROOT, "/api/v1/events", None).await;
    assert_eq!(slow.next().await.unwrap()["kind"], "ready");
    note(&server, "alice", Some("alice"), 1).await;
    assert_eq!(slow.next().await.unwrap()["id"], 1, "it is live");
    let mut quick = Watch::open(&server, ROOT, "/api/v1/events", None).await;
    quick.next().await.unwrap();
    // More than is held for those who do not read; in several lots, as a busy host has them.
    for _ in 0..30 {
        note(&server, "alice", Some("alice"), 100).await;
        let mut reader = server.store.reader().await.unwrap();
        let (_, head) = store::events::bounds(&mut reader).await.unwrap();
        drop(reader);
        quick.until(|event| event["id"].as_i64() == Some(head)).await;
    }
    let reset = slow.until(|event| event["kind"] == "reset").await;
    assert_eq!(reset["id"], 3001);
    assert_eq!(slow.next().await, None, "the stream has ended");
}

#[tokio::test]
async fn one_caller_cannot_take_all_streams() {
    let server = Server::start().await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(Watch::open(&server, DAEMON, "/api/v1/events", None).await);
    }
    let (status, answer) = server.send(DAEMON, "GET", "/api/v1/events", None).await;
    assert_eq!((status, answer["code"].as_str()), (429, Some("too_many_streams")));
    held.push(Watch::open(&server, support::BIN, "/api/v1/events", None).await);
    drop(held);
    Watch::open(&server, DAEMON, "/api/v1/events", None).await;
}

#[tokio::test]
async fn streams_end_when_the_server_does() {
    let server = Server::start().await;
    let mut watch = Watch::open(&server, ROOT, "/api/v1/events", None).await;
    assert_eq!(watch.next().await.unwrap()["kind"], "ready");
    server.drain();
    assert_eq!(watch.next().await, None);
}

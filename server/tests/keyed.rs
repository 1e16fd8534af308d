//! Idempotency-Key, ETag and If-Match.

#![forbid(unsafe_code)]

mod support;

use axum::{
    body::Body,
    http::{Request, header},
};
use berth_server::{
    domain::{Begun, KeyedRequest},
    http::PeerUid,
    store,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server};

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: Value,
}

async fn ask(server: &Server, uid: u32, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).extension(PeerUid(uid));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = match body {
        Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    };
    let response = server.response(request.unwrap()).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

#[tokio::test]
async fn a_write_with_a_key_is_done_once_and_answered_as_often_as_asked() {
    let server = Server::start().await;
    let key = [("idempotency-key", "a1")];
    let new = json!({ "user": "alice" });
    let first = ask(&server, ROOT, "POST", "/api/v1/berths", &key, Some(new.clone())).await;
    assert_eq!(first.status, 202, "{}", first.body);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = ask(&server, ROOT, "POST", "/api/v1/berths", &key, Some(new.clone())).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["content-type"], "application/json");
    // Without the key it is refused: the berth is there.
    assert_eq!(ask(&server, ROOT, "POST", "/api/v1/berths", &[], Some(new.clone())).await.status, 409);
    // For another request the key is no good.
    let other = ask(&server, ROOT, "POST", "/api/v1/berths", &key, Some(json!({ "user": "bob" }))).await;
    assert_eq!((other.status, other.body["code"].as_str()), (422, Some("idempotency_key_reused")));
    // Another caller's keys have nothing to do with it.
    let foreign = ask(&server, DAEMON, "POST", "/api/v1/berths", &key, Some(new)).await;
    assert_eq!((foreign.status, foreign.body["code"].as_str()), (403, Some("not_permitted")));
    // 204 has no body and is given again too.
    ask(&server, ROOT, "POST", "/api/v1/profiles", &[], Some(json!({ "name": "mine" }))).await;
    for _ in 0..2 {
        assert_eq!(ask(&server, ROOT, "DELETE", "/api/v1/profiles/mine", &[("idempotency-key", "d")], None).await.status, 204);
    }
    assert_eq!(ask(&server, ROOT, "DELETE", "/api/v1/profiles/mine", &[], None).await.status, 404);
}

#[tokio::test]
async fn what_was_refused_may_be_asked_anew_under_its_key() {
    let server = Server::start().await;
    let key = [("idempotency-key", "k")];
    let start = "/api/v1/berths/alice/start";
    assert_eq!(ask(&server, ROOT, "POST", start, &key, None).await.status, 404);
    server.assign("alice").await;
    assert_eq!(ask(&server, ROOT, "POST", start, &key, None).await.status, 202);
    assert_eq!(ask(&server, ROOT, "POST", start, &key, None).await.headers["idempotency-replayed"], "true");
    for bad in ["", "with space", &"x".repeat(256)] {
        let answer = ask(&server, ROOT, "POST", start, &[("idempotency-key", bad)], None).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("invalid_idempotency_key")), "{bad:?}");
    }
}

#[tokio::test]
async fn duplicates_at_the_same_time_do_one_write() {
    let server = Server::start().await;
    let ask = || ask(&server, ROOT, "POST", "/api/v1/berths", &[("idempotency-key", "same")], Some(json!({ "user": "alice" })));
    let answers = futures_util::future::join_all((0..8).map(|_| ask())).await;
    let done = answers.iter().filter(|answer| answer.status == 202).count();
    assert!(done >= 1);
    for answer in answers {
        let waits = answer.status == 409 && answer.body["code"] == "idempotency_in_progress";
        assert!(answer.status == 202 || waits, "{} {}", answer.status, answer.body);
    }
    assert_eq!(server.get("/api/v1/audit?kind=action").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_whose_server_ended_is_never_done_a_second_time() {
    let server = Server::start().await;
    let request = |life| KeyedRequest { caller: "root", key: "k", request: "what it asks for", life, now: support::now() };
    for (life, begun) in [("first", Begun::Fresh), ("first", Begun::UnderWay), ("second", Begun::Interrupted)] {
        let mut tx = server.store.begin().await.unwrap();
        assert_eq!(store::keyed::begin(&mut tx, request(life)).await.unwrap(), begun);
        server.store.commit(tx).await.unwrap();
    }
    let key = [("idempotency-key", "r")];
    assert_eq!(ask(&server, ROOT, "POST", "/api/v1/berths", &key, Some(json!({ "user": "alice" }))).await.status, 202);
    // An answer is given again by the next server too.
    let server = server.again().await;
    assert_eq!(ask(&server, ROOT, "POST", "/api/v1/berths", &key, Some(json!({ "user": "alice" }))).await.status, 202);
}

#[tokio::test]
async fn if_match_keeps_two_people_from_undoing_each_other() {
    let server = Server::start().await;
    server.assign("alice").await;
    for (path, change) in [("/api/v1/berths/alice", json!({ "pids": 600 })), ("/api/v1/profiles/student", json!({ "pids": 600 }))] {
        let seen = ask(&server, ROOT, "GET", path, &[], None).await;
        let tag = seen.headers["etag"].to_str().unwrap().to_owned();
        let first = ask(&server, ROOT, "PATCH", path, &[("if-match", &tag)], Some(change.clone())).await;
        assert!(first.status == 202 || first.status == 200, "{}", first.body);
        for method in ["PATCH", "DELETE"] {
            let body = (method == "PATCH").then(|| json!({ "pids": 700 }));
            let second = ask(&server, ROOT, method, path, &[("if-match", &tag)], body).await;
            assert_eq!((second.status, second.body["code"].as_str()), (412, Some("changed_meanwhile")), "{method} {path}");
        }
        let now = ask(&server, ROOT, "GET", path, &[], None).await.headers["etag"].to_str().unwrap().to_owned();
        assert_ne!(now, tag);
        let third = ask(&server, ROOT, "PATCH", path, &[("if-match", &format!("\"x\", {now}"))], Some(json!({ "pids": 700 }))).await;
        assert!(third.status == 202 || third.status == 200, "{}", third.body);
        assert_eq!(ask(&server, ROOT, "PATCH", path, &[("if-match", "x")], Some(json!({}))).await.status, 400);
        assert!(ask(&server, ROOT, "PATCH", path, &[("if-match", "*")], Some(json!({ "pids": 800 }))).await.status < 300);
    }
}

#[tokio::test]
async fn a_list_that_has_not_changed_is_not_sent_again() {
    let server = Server::start().await;
    let first = ask(&server, ROOT, "GET", "/api/v1/profiles", &[], None).await;
    let tag = first.headers["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with("W/"), "{tag}");
    let again = ask(&server, ROOT, "GET", "/api/v1/profiles", &[("if-none-match", &tag)], None).await;
    assert_eq!((again.status, again.body), (304, Value::Null));
    ask(&server, ROOT, "POST", "/api/v1/profiles", &[], Some(json!({ "name": "mine" }))).await;
    assert_eq!(ask(&server, ROOT, "GET", "/api/v1/profiles", &[("if-none-match", &tag)], None).await.status, 200);
}

//! Lists narrowed and ordered; operations cancelled; samples of use; metrics.

#![forbid(unsafe_code)]

mod support;

use berth_server::{
    domain::{BerthId, IoUsage, NetworkUsage, Sample, State, Usage},
    store,
};
use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server};
use tower::ServiceExt;

fn users(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|berth| berth["user"].as_str().unwrap()).collect()
}

/// Four berths: alice and bob run, bob with much memory; user1 is stopped, user2 has a condition.
async fn four() -> Server {
    let server = Server::start().await;
    for user in ["alice", "bob", "user1", "user2"] {
        server.assign(user).await;
    }
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/user1/stop", None).await;
    server.end_of(accepted).await;
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "profile": "student" }))).await;
    server.end_of(accepted).await;
    server.node.change("bob", |status| status.usage.as_mut().unwrap().memory_bytes = 3 << 30);
    server.node.change("user2", |status| {
        status.last_used_at = Some(5_000);
        status.conditions.push(berth_protocol::Condition {
            kind: "PendingRestart".to_owned(),
            message: "the disk grows at the next start".to_owned(),
            since: 1,
        });
    });
    server.until("/api/v1/berths?condition=PendingRestart", |list| !list["items"].as_array().unwrap().is_empty()).await;
    server.until("/api/v1/berths?sort=memory&order=desc&limit=1", |list| users(list) == ["bob"]).await;
    server
}

#[tokio::test]
async fn berths_are_narrowed_and_ordered_as_asked() {
    let server = four().await;
    for (query, wanted) in [
        ("", &["alice", "bob", "user1", "user2"][..]),
        ("order=desc", &["user2", "user1", "bob", "alice"]),
        ("state=running", &["alice", "bob", "user2"]),
        ("state=stopped", &["user1"]),
        ("profile=student", &["alice"]),
        ("profile=none", &[]),
        ("user=user", &["user1", "user2"]),
        ("search=er1", &["user1"]),
        ("search=%25", &[]),
        ("condition=PendingRestart", &["user2"]),
        ("condition=Pending", &[]),
        ("state=running&user=user", &["user2"]),
        ("sort=state", &["alice", "bob", "user2", "user1"]),
        ("sort=memory&order=desc", &["bob", "user2", "alice", "user1"]),
        ("sort=last_used&order=desc", &["user2", "user1", "bob", "alice"]),
    ] {
        assert_eq!(users(&server.get(&format!("/api/v1/berths?{query}")).await), wanted, "{query}");
        // Page by page it is the same.
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/api/v1/berths?{query}&limit=1{cursor}")).await;
            paged.extend(users(&page).iter().map(|user| (*user).to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(paged, wanted, "{query}");
    }
    for bad in ["state=asleep", "sort=uid", "order=up", "sort=memory&cursor=alice", "search=%00", "colour=red"] {
        let (status, answer) = server.send(ROOT, "GET", &format!("/api/v1/berths?{bad}"), None).await;
        assert_eq!(status, 400, "{bad}: {answer}");
    }
    // A user narrows only what is his own.
    assert_eq!(users(&server.send(DAEMON, "GET", "/api/v1/berths?search=a", None).await.1), Vec::<&str>::new());
}

#[tokio::test]
async fn operations_are_narrowed() {
    let server = four().await;
    let count = async |query: &str| server.get(&format!("/api/v1/operations?{query}")).await["items"].as_array().unwrap().len();
    assert_eq!(count("").await, 6);
    assert_eq!(count("kind=berth_create").await, 4);
    assert_eq!(count("kind=berth_stop&state=succeeded").await, 1);
    assert_eq!(count("subject=alice&kind=berth_change").await, 1);
    assert_eq!(count("state=failed").await, 0);
    assert_eq!(server.send(ROOT, "GET", "/api/v1/operations?kind=berth_fly", None).await.0, 400);
}

#[tokio::test]
async fn what_waits_for_the_node_is_cancelled_and_taken_back() {
    let mut server = four().await;
    server.stop_node().await;
    let (status, accepted) = server.send(ROOT, "POST", "/api/v1/berths/user1/start", None).await;
    assert_eq!(status, 202);
    let id = accepted["operation"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/operations/{id}");
    server.until(&path, |operation| operation["step"].as_str().is_some_and(|step| step.starts_with("waiting: "))).await;
    assert_eq!(server.send(DAEMON, "POST", &format!("{path}/cancel"), None).await.0, 404);
    let (status, cancelled) = server.send(ROOT, "POST", &format!("{path}/cancel"), None).await;
    assert_eq!((status, cancelled["state"].as_str(), cancelled["problem"]["code"].as_str()), (200, Some("cancelled"), Some("cancelled")));
    let (status, again) = server.send(ROOT, "POST", &format!("{path}/cancel"), None).await;
    assert_eq!((status, again["code"].as_str()), (409, Some("operation_finished")));
    // When the node is back nothing starts.
    let before = server.node.calls().len();
    server.start_node();
    server.until("/api/v1/berths/user1", |berth| berth["wanted"] == "present" && berth["conditions"] == json!([])).await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/restart", None).await;
    server.end_of(accepted).await;
    let calls = server.node.calls();
    assert!(!calls[before..].iter().any(|call| call == "ensure user1 Running"), "{calls:?}");
    assert_eq!(server.get("/api/v1/audit?kind=action&subject=user1").await["items"][0]["action"], "cancel_operation");
}

#[tokio::test]
async fn a_change_that_waits_is_taken_back_and_what_runs_is_not_cancelled() {
    let server = four().await;
    let old = server.get("/api/v1/berths/bob").await["limits"].clone();
    // What the host is at work on goes on.
    server.node.inner.lock().unwrap().slow = true;
    let (_, accepted) = server.send(ROOT, "POST", "/api/v1/berths/user1/start", None).await;
    let path = format!("/api/v1/operations/{}", accepted["operation"]["id"].as_str().unwrap());
    server.until(&path, |operation| operation["state"] == "running").await;
    let (status, answer) = server.send(ROOT, "POST", &format!("{path}/cancel"), None).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("operation_under_way")));
    server.node.inner.lock().unwrap().slow = false;
    server.until(&path, |operation| operation["state"] == "succeeded").await;
    // A change needs the node to be accepted; then it is about to stop.
    for _ in 0..50 {
        server.node.refuse(503, support::problem("node_stopping", "the node is stopping"));
    }
    let (status, accepted) = server.send(ROOT, "PATCH", "/api/v1/berths/bob", Some(json!({ "pids": 700 }))).await;
    assert_eq!(status, 202, "{accepted}");
    let path = format!("/api/v1/operations/{}", accepted["operation"]["id"].as_str().unwrap());
    server.until(&path, |operation| operation["step"].as_str().is_some_and(|step| step.starts_with("waiting: "))).await;
    assert_eq!(server.send(ROOT, "POST", &format!("{path}/cancel"), None).await.0, 200);
    assert_eq!(server.get("/api/v1/berths/bob").await["limits"], old);
    server.node.inner.lock().unwrap().refusals.clear();
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/bob", Some(json!({ "pids": 800 }))).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(server.get("/api/v1/berths/bob").await["limits"]["pids"], 800);
}

#[tokio::test]
async fn a_build_under_way_is_cancelled_and_the_node_is_told() {
    let server = Server::start().await;
    server.node.inner.lock().unwrap().hangs = true;
    let (status, accepted) = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "name": "slow" }))).await;
    assert_eq!(status, 202, "{accepted}");
    let path = format!("/api/v1/operations/{}", accepted["operation"]["id"].as_str().unwrap());
    server.until(&path, |operation| operation["log_lines"].as_u64() > Some(0)).await;
    let (status, operation) = server.send(ROOT, "POST", &format!("{path}/cancel"), None).await;
    assert_eq!((status, operation["state"].as_str()), (200, Some("cancelled")));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while server.node.calls() != ["stop build slow"] {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", server.node.calls());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Another is begun at once, and what came late changed nothing.
    server.node.inner.lock().unwrap().hangs = false;
    let accepted = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "name": "slow" }))).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(server.get(&path).await["state"], "cancelled");
}

#[tokio::test]
async fn an_import_says_how_much_has_come() {
    let server = Server::start().await;
    let request = axum::http::Request::builder()
        .method("PUT")
        .uri("/api/v1/images/mine")
        .header("content-length", "3000")
        .extension(berth_server::http::PeerUid(ROOT));
    let accepted = server.raw(request.body(axum::body::Body::from(vec![b'x'; 3_000])).unwrap()).await;
    let operation = server.end_of(accepted).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(operation["progress"], json!({ "done": 3_000, "total": 3_000 }));
}

#[tokio::test]
async fn a_day_of_samples_is_a_chart_and_never_more() {
    let server = four().await;
    let berth = server.get("/api/v1/berths/alice").await;
    let id = BerthId(berth["id"].as_str().unwrap().parse().unwrap());
    let now = support::now();
    let mut tx = server.store.begin().await.unwrap();
    // Two days, a sample a minute.
    for minute in 0..2_880_i64 {
        let usage = Usage {
            memory_bytes: 1 << 20,
            cpu_usec: minute as u64 * 30_000_000,
            io: IoUsage { read_bytes: minute as u64 * 60_000, ..IoUsage::default() },
            network: NetworkUsage::default(),
            ..Usage::default()
        };
        let at = now - (2_880 - minute) * 60_000;
        let sample = Sample { user: "alice".to_owned(), id, state: State::Running, at, usage };
        store::samples::keep(&mut tx, &[sample], at).await.unwrap();
    }
    server.store.commit(tx).await.unwrap();
    let chart = server.get("/api/v1/berths/alice/usage?points=1440").await;
    let points = chart["items"].as_array().unwrap();
    assert!((1_438..=1_440).contains(&points.len()), "{}", points.len());
    assert_eq!((points[5]["cpu_millis"].as_u64(), points[5]["io_read_bps"].as_u64()), (Some(500), Some(1_000)));
    assert!(server.get("/api/v1/berths/alice/usage").await["items"].as_array().unwrap().len() <= 300);
    let since = now - 10 * 60_000 - 30_000;
    assert_eq!(server.get(&format!("/api/v1/berths/alice/usage?since={since}")).await["items"].as_array().unwrap().len(), 10);
    assert_eq!(server.get("/api/v1/berths/bob/usage").await["items"], json!([]));
    assert_eq!(server.send(DAEMON, "GET", "/api/v1/berths/alice/usage", None).await.0, 404);
    assert_eq!(server.send(ROOT, "GET", "/api/v1/berths/alice/usage?points=0", None).await.0, 400);
    // They go with the berth.
    let accepted = server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await;
    server.end_of(accepted).await;
    let mut reader = server.store.reader().await.unwrap();
    assert!(store::samples::since(&mut reader, id, 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn metrics_tell_of_each_berth_and_of_the_service() {
    let server = four().await;
    let asked = server.node.inner.lock().unwrap().usage_asked;
    let (status, text) = server.send(ROOT, "GET", "/metrics", None).await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    assert_eq!(server.node.inner.lock().unwrap().usage_asked, asked + 1, "one call to the node");
    for line in [
        "berth_node_up 1.0",
        "berth_berths{state=\"running\"} 3.0",
        "berth_usage_memory_bytes{user=\"bob\"} 3221225472.0",
        "berth_usage_cpu_seconds_total{user=\"alice\"} 1.0",
        "berth_reconcile_queue 0.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("berth_http_request_seconds_count{method=\"POST\",route=\"/api/v1/berths\",status=\"2xx\"} 4"), "{text}");
    assert!(!text.contains("user=\"user1\""), "it is not up");
    assert_eq!(server.send(DAEMON, "GET", "/metrics", None).await.0, 403);
    // The listener of the configuration asks nobody who he is, and has nothing else.
    let open = berth_server::http::open_metrics(server.api.clone());
    for (path, wanted) in [("/metrics", 200), ("/api/v1/berths", 404), ("/", 404)] {
        let request = axum::http::Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
        assert_eq!(open.clone().oneshot(request).await.unwrap().status(), wanted, "{path}");
    }
}

#[tokio::test]
async fn the_page_of_the_api_is_whole_and_needs_nothing_from_elsewhere() {
    let server = Server::start().await;
    let request = axum::http::Request::builder().uri("/docs").body(axum::body::Body::empty()).unwrap();
    let policy = server.response(request).await.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let (status, page) = server.send(ROOT, "GET", "/docs", None).await;
    let page = page.as_str().unwrap();
    assert_eq!(status, 200);
    for operation in berth_server::authz::Operation::ALL {
        assert!(page.contains(&format!("<section id=\"{}\">", operation.id())), "{operation:?}");
    }
    assert!(page.contains("berth_not_found") && page.contains("id=\"schema-Berth\""));
    assert!(!page.contains("<script") && !page.contains(" src=") && !page.contains("href=\"http") && !page.contains(" style="));
    assert_eq!(server.send(ROOT, "GET", "/docs/style.css", None).await.0, 200);
}

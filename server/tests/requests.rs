//! Requests: asked, approved, applied, ended; denied, withdrawn, refused by the policy or the node.

#![forbid(unsafe_code)]

mod support;

use serde_json::{Value, json};
use support::{DAEMON, NOBODY, ROOT, Server, now, problem};

const REQUESTS: &str = "/api/v1/requests";
const BERTH: &str = "/api/v1/berths/nobody";
const GIB: u64 = 1 << 30;
const LONG: i64 = 86_400_000;

/// A server on which the user `nobody` has a berth with 10 GiB of disk.
async fn with_berth() -> Server {
    let server = Server::start().await;
    server.assign("nobody").await;
    server
}

async fn ask(server: &Server, amounts: Value, until: i64) -> Value {
    let body = json!({ "amounts": amounts, "until": until, "reason": "the thesis" });
    let (status, request) = server.send(NOBODY, "POST", REQUESTS, Some(body)).await;
    assert_eq!(status, 201, "{request}");
    request
}

fn path(request: &Value) -> String {
    format!("{REQUESTS}/{}", request["id"].as_str().unwrap())
}

async fn approve(server: &Server, request: &Value, decision: Value) -> Value {
    let accepted = server.send(ROOT, "POST", &format!("{}/approve", path(request)), Some(decision)).await;
    server.end_of(accepted).await
}

fn disk(server: &Server) -> u64 {
    server.node.inner.lock().unwrap().berths["nobody"].limits.disk_bytes / GIB
}

async fn actions(server: &Server) -> Vec<String> {
    let audit = server.get("/api/v1/audit?subject=nobody&limit=500").await;
    let rows = audit["items"].as_array().unwrap().iter().rev().skip(1);
    rows.map(|row| row["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_asked_and_approved_applies_and_falls_back_by_itself() {
    let server = with_berth().await;
    let request = ask(&server, json!({ "disk_bytes": { "add": 20 * GIB }, "memory_bytes": { "to": 4 * GIB } }), now() + LONG).await;
    assert_eq!((&request["state"], &request["user"], &request["reason"]), (&json!("open"), &json!("nobody"), &json!("the thesis")));
    assert_eq!(disk(&server), 10, "asking gives nothing");
    // A shorter end, so that it comes.
    let end = now() + 1_500;
    let operation = approve(&server, &request, json!({ "until": end, "word": "good luck" })).await;
    assert_eq!((&operation["state"], &operation["kind"]), (&json!("succeeded"), &json!("berth_change")));
    assert_eq!(disk(&server), 30);
    let berth = server.get(BERTH).await;
    assert_eq!((&berth["limits"]["memory_bytes"], &berth["own_limits"]), (&json!(4 * GIB), &json!([])));
    assert_eq!(
        berth["grants"][0],
        json!({
            "request": request["id"], "until": end, "overdue": false,
            "amounts": { "disk_bytes": { "add": 20 * GIB }, "memory_bytes": { "to": 4 * GIB } },
        })
    );
    let shown = server.get(&path(&request)).await;
    assert_eq!((&shown["state"], &shown["decided_by"], &shown["word"]), (&json!("active"), &json!("root"), &json!("good luck")));
    // The promise counts while it lasts.
    assert_eq!(server.get("/api/v1/node").await["promised_disk_bytes"], 30 * GIB);
    let server = server.again().await;
    server.until(&path(&request), |request| request["state"] == "ended").await;
    assert!(now() >= end && now() < end + 5_000);
    let berth = server.get(BERTH).await;
    assert_eq!((&berth["limits"]["disk_bytes"], &berth["grants"]), (&json!(10 * GIB), &json!([])));
    assert_eq!(disk(&server), 10);
    assert_eq!(actions(&server).await, ["create_request", "approve_request", "apply_request", "end_request", "fall_back"]);
    let (_, own) = server.send(NOBODY, "GET", "/api/v1/audit", None).await;
    assert_eq!(own["items"].as_array().unwrap().len(), 6, "the user sees it too: {own}");
}

#[tokio::test]
async fn limits_and_profile_changed_meanwhile_hold_with_the_grant_and_after_it() {
    let server = with_berth().await;
    let request = ask(&server, json!({ "disk_bytes": { "add": 20 * GIB } }), now() + LONG).await;
    approve(&server, &request, json!({})).await;
    let other = ask(&server, json!({ "disk_bytes": { "add": 5 * GIB } }), now() + LONG).await;
    approve(&server, &other, json!({})).await;
    assert_eq!(disk(&server), 35, "two that overlap add up");
    let accepted = server.send(ROOT, "PATCH", BERTH, Some(json!({ "disk_bytes": 12 * GIB }))).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(disk(&server), 37);
    // Ended before its time, by the user himself.
    let (status, ended) = server.send(NOBODY, "POST", &format!("{}/cancel", path(&request)), None).await;
    assert_eq!(status, 200, "{ended}");
    server.until(&path(&request), |request| request["state"] == "ended").await;
    assert_eq!(disk(&server), 17);
    let accepted = server.send(ROOT, "PATCH", BERTH, Some(json!({ "disk_bytes": null, "profile": "student" }))).await;
    server.end_of(accepted).await;
    let student = server.get("/api/v1/profiles/student").await["limits"]["disk_bytes"].as_u64().unwrap() / GIB;
    assert_eq!(disk(&server), student + 5);
    // A change that the node refuses leaves what was granted.
    server.node.refuse(409, problem("disk_below_use", "6 GiB are in use"));
    let accepted = server.send(ROOT, "PATCH", BERTH, Some(json!({ "disk_bytes": GIB }))).await;
    assert_eq!(server.end_of(accepted).await["state"], "failed");
    let berth = server.get(BERTH).await;
    assert_eq!((&berth["limits"]["disk_bytes"], berth["grants"].as_array().unwrap().len()), (&json!((student + 5) * GIB), 1));
}

#[tokio::test]
async fn what_node_or_policy_refuses_stays_open_with_the_reason() {
    let server = with_berth().await;
    let request = ask(&server, json!({ "disk_bytes": { "add": 20 * GIB } }), now() + LONG).await;
    server.node.refuse(409, problem("limit_refused", "the kernel does not take it"));
    let operation = approve(&server, &request, json!({ "word": "yes" })).await;
    assert_eq!((&operation["state"], &operation["problem"]["code"]), (&json!("failed"), &json!("limit_refused")));
    let shown = server.get(&path(&request)).await;
    assert_eq!((&shown["state"], &shown["problem"]["detail"]), (&json!("open"), &json!("the kernel does not take it")));
    let berth = server.get(BERTH).await;
    assert_eq!((&berth["grants"], &berth["limits"]["disk_bytes"], &berth["own_limits"]), (&json!([]), &json!(10 * GIB), &json!([])));
    assert!(berth["conditions"].as_array().unwrap().is_empty(), "{berth}");

    let (status, answer) = server
        .send(ROOT, "POST", &format!("{}/approve", path(&request)), Some(json!({ "amounts": { "disk_bytes": { "add": 500 * GIB } } })))
        .await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("disk_overcommitted")), "{answer}");
    let shown = server.get(&path(&request)).await;
    assert_eq!((&shown["state"], &shown["problem"]["code"]), (&json!("open"), &json!("disk_overcommitted")));
    // Approved as changed.
    let operation = approve(&server, &request, json!({ "amounts": { "disk_bytes": { "add": 2 * GIB } } })).await;
    assert_eq!((operation["state"].as_str(), disk(&server)), (Some("succeeded"), 12));
    let shown = server.get(&path(&request)).await;
    assert_eq!((&shown["granted"], &shown["asked"]), (&json!({ "disk_bytes": { "add": 2 * GIB } }), &request["asked"]));
    assert!(shown.get("problem").is_none(), "{shown}");
}

#[tokio::test]
async fn what_is_in_use_at_the_end_stays_visible_and_is_taken_away_as_use_falls() {
    let server = with_berth().await;
    let request = ask(&server, json!({ "disk_bytes": { "add": 20 * GIB }, "pids": { "add": 500 } }), now() + LONG).await;
    approve(&server, &request, json!({ "until": now() + 800 })).await;
    assert_eq!(server.node.inner.lock().unwrap().berths["nobody"].limits.pids, 1524);
    server.node.refuse(409, problem("disk_below_use", "nobody uses 15 GiB"));
    let berth = server.until(BERTH, |berth| berth["grants"][0]["overdue"] == true && berth["limits"]["pids"] == 1024).await;
    assert_eq!(berth["limits"]["disk_bytes"], 30 * GIB, "the disk stays, and nothing but the disk");
    let condition = &berth["conditions"][0];
    assert_eq!(condition["kind"], "FallbackRefused", "{berth}");
    assert!(condition["message"].as_str().unwrap().contains("nobody uses 15 GiB") && condition["hint"].is_string());
    let pids = || server.node.inner.lock().unwrap().berths["nobody"].limits.pids;
    server.until(&path(&request), |_| pids() == 1024).await;
    assert_eq!(server.get(&path(&request)).await["state"], "overdue");
    // The user makes room and does not wait for the next attempt.
    let (status, _) = server.send(NOBODY, "POST", &format!("{}/cancel", path(&request)), None).await;
    assert_eq!(status, 200);
    server.until(&path(&request), |request| request["state"] == "ended").await;
    assert_eq!(disk(&server), 10);
    assert_eq!(server.get(BERTH).await["conditions"], json!([]));
    let told = actions(&server).await;
    assert!(told.ends_with(&["refuse_fall_back", "cancel_request", "fall_back"].map(str::to_owned)), "{told:?}");
}

#[tokio::test]
async fn a_request_is_denied_withdrawn_or_lapses_and_then_is_over() {
    let server = with_berth().await;
    let amounts = || json!({ "pids": { "to": 2000 } });
    let denied = ask(&server, amounts(), now() + LONG).await;
    let (_, told) = server.send(ROOT, "POST", &format!("{}/deny", path(&denied)), Some(json!({ "word": "clean up first" }))).await;
    assert_eq!((&told["state"], &told["word"], &told["decided_by"]), (&json!("denied"), &json!("clean up first"), &json!("root")));
    let withdrawn = ask(&server, amounts(), now() + LONG).await;
    let (_, told) = server.send(NOBODY, "POST", &format!("{}/cancel", path(&withdrawn)), None).await;
    assert_eq!(told["state"], "cancelled");
    let late = ask(&server, amounts(), now() + 500).await;
    server.until(&path(&late), |request| request["state"] == "lapsed").await;
    for request in [&denied, &withdrawn, &late] {
        for (verb, body) in [("approve", json!({})), ("deny", json!({ "word": "no" })), ("cancel", json!({}))] {
            let body = (verb != "cancel").then_some(body);
            let (status, answer) = server.send(ROOT, "POST", &format!("{}/{verb}", path(request)), body).await;
            assert_eq!((status, answer["code"].as_str()), (409, Some("request_not_open")), "{verb}: {answer}");
        }
    }
    let open = ask(&server, amounts(), now() + LONG).await;
    let (_, list) = server.send(NOBODY, "GET", &format!("{REQUESTS}?state=open"), None).await;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["id"]), (1, &open["id"]));
    assert_eq!(server.get(REQUESTS).await["items"].as_array().unwrap().len(), 4);
    assert_eq!(server.get(&format!("{REQUESTS}?user=alice")).await["items"], json!([]));
    // With the berth its requests go.
    let accepted = server.send(ROOT, "DELETE", BERTH, None).await;
    server.end_of(accepted).await;
    assert_eq!(server.get(&path(&open)).await["state"], "cancelled");
}

#[tokio::test]
async fn nobody_asks_without_bound_or_sense_and_nobody_sees_anothers() {
    let server = with_berth().await;
    let body = |amounts: Value, until: i64, reason: &str| Some(json!({ "amounts": amounts, "until": until, "reason": reason }));
    let more = || json!({ "pids": { "add": 1 } });
    for (body, status, code) in [
        (body(json!({}), now() + LONG, "x"), 400, "nothing_asked"),
        (body(json!({ "pids": { "to": 100 } }), now() + LONG, "x"), 400, "nothing_asked"),
        (body(json!({ "disk_bytes": { "add": 0 } }), now() + LONG, "x"), 400, "nothing_asked"),
        (body(json!({ "disk_bytes": { "add": u64::MAX } }), now() + LONG, "x"), 422, "limit_too_high"),
        (body(more(), 5, "x"), 400, "invalid_until"),
        (body(more(), now() + LONG, "a\nb"), 400, "invalid_reason"),
        (body(more(), now() + LONG, " "), 400, "invalid_reason"),
        (body(json!({ "cpus": { "add": 1 } }), now() + LONG, "x"), 400, "invalid_body"),
        (body(json!({ "pids": { "add": -1 } }), now() + LONG, "x"), 400, "invalid_body"),
    ] {
        let (told, answer) = server.send(NOBODY, "POST", REQUESTS, body).await;
        assert_eq!((told, answer["code"].as_str()), (status, Some(code)), "{answer}");
    }
    // Who has no berth asks for none here.
    let (status, answer) = server.send(DAEMON, "POST", REQUESTS, body(more(), now() + LONG, "x")).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("berth_not_found")), "{answer}");
    let mut last = json!(null);
    for _ in 0..5 {
        last = ask(&server, more(), now() + LONG).await;
    }
    let (status, answer) = server.send(NOBODY, "POST", REQUESTS, body(more(), now() + LONG, "x")).await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("too_many_requests")), "{answer}");
    for (method, tail, body) in [("GET", "", None), ("POST", "/cancel", None)] {
        let (status, answer) = server.send(DAEMON, method, &format!("{}{tail}", path(&last)), body).await;
        assert_eq!((status, answer["code"].as_str()), (404, Some("request_not_found")), "{answer}");
    }
    let (status, _) = server.send(NOBODY, "POST", &format!("{}/approve", path(&last)), Some(json!({}))).await;
    assert_eq!(status, 403, "nobody approves his own");
}

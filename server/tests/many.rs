//! Many berths in one request, ends of assignments, and what may be promised of the host.

#![forbid(unsafe_code)]

mod support;

use berth_server::config::Policy;
use serde_json::{Value, json};
use support::{ROOT, Server, now};

const BATCH: &str = "/api/v1/berths:batch";
const GIB: u64 = 1 << 30;

fn states(report: &Value) -> Vec<&str> {
    report["entries"].as_array().unwrap().iter().map(|entry| entry["state"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn two_hundred_users_are_assigned_and_changed_in_a_second_or_two() {
    let server = Server::start().await;
    let berths: Vec<_> = (0..200)
        .map(|number| json!({ "user": format!("user{number:03}"), "disk_bytes": GIB, "start": false, "profile": "student" }))
        .collect();
    let begun = std::time::Instant::now();
    let body = json!({ "berths": berths, "all_or_none": true });
    let mut body = body;
    // 200 disks of 1 GiB on a host of 100.
    let (status, refused) = server.send(ROOT, "POST", BATCH, Some(body.clone())).await;
    assert_eq!((status, &refused["accepted"], &refused["refused"]), (200, &json!(0), &json!(100)), "{refused}");
    assert_eq!(server.get("/api/v1/berths").await["items"], json!([]), "all or none");
    let first = &refused["entries"].as_array().unwrap()[100];
    assert_eq!((first["state"].as_str(), first["problem"]["code"].as_str()), (Some("refused"), Some("disk_overcommitted")));
    body["berths"] = json!(&berths[..100]);
    let (_, told) = server.send(ROOT, "POST", BATCH, Some(body)).await;
    assert_eq!((&told["accepted"], &told["refused"]), (&json!(100), &json!(0)), "{told}");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    assert!(server.node.inner.lock().unwrap().looked_up <= 2, "one call to the node for many users");
    assert_eq!(
        told["headroom"][2],
        json!({ "resource": "disk_bytes", "capacity": 100 * GIB, "allowed": 100 * GIB, "promised": 0, "after": 100 * GIB })
    );
    server
        .until("/api/v1/operations?limit=500", |all| all["items"].as_array().unwrap().iter().all(|one| one["state"] == "succeeded"))
        .await;

    let change = json!({ "of_profile": "student", "change": { "profile": "developer", "disk_bytes": GIB }, "all_or_none": true });
    let mut dry = change.clone();
    dry["dry_run"] = json!(true);
    let (_, told) = server.send(ROOT, "POST", "/api/v1/berths:change", Some(dry)).await;
    assert!(states(&told).iter().all(|state| *state == "checked") && told["entries"].as_array().unwrap().len() == 100, "{told}");
    assert_eq!(server.get("/api/v1/profiles/student").await["berths"], 100);
    let (_, told) = server.send(ROOT, "POST", "/api/v1/berths:change", Some(change)).await;
    assert_eq!(
        (&told["accepted"], &told["entries"][7]["profile_before"], &told["entries"][7]["profile"]),
        (&json!(100), &json!("student"), &json!("developer"))
    );
    assert_eq!(server.get("/api/v1/profiles/developer").await["berths"], 100);
    let memory = server.get("/api/v1/profiles/developer").await["limits"]["memory_bytes"].as_u64().unwrap();
    server
        .until("/api/v1/operations?limit=500", |all| all["items"].as_array().unwrap().iter().all(|one| one["state"] == "succeeded"))
        .await;
    assert!(server.node.inner.lock().unwrap().berths.values().all(|status| status.limits.memory_bytes == memory));
}

#[tokio::test]
async fn each_entry_has_an_outcome_of_its_own_and_all_or_none_means_that() {
    let server = Server::start().await;
    server.assign("alice").await;
    let berths = json!([
        { "user": "bob", "profile": "student", "until": now() + 86_400_000 }, { "user": "nouser" }, { "user": "bob" }, { "user": "alice" },
        { "user": "root" }, { "user": "daemon" }, { "user": "a/b" }, { "user": "bob2", "profile": "no-such" }, { "user": "bob3", "pids": 1 },
        { "user": "bob4", "until": 5 }, { "user": "bob5", "image": "no-such" }, { "user": "bob6", "disk_bytes": 200 * GIB },
    ]);
    let codes = [
        "",
        "user_not_found",
        "duplicate_user",
        "berth_exists",
        "root_not_allowed",
        "system_account",
        "invalid_user_name",
        "profile_not_found",
        "limit_too_low",
        "invalid_until",
        "image_not_found",
        "disk_overcommitted",
    ];
    for (mode, first) in [("dry_run", "checked"), ("all_or_none", "held_back"), ("", "accepted")] {
        let mut body = json!({ "berths": berths });
        if !mode.is_empty() {
            body[mode] = json!(true);
        }
        let (status, told) = server.send(ROOT, "POST", BATCH, Some(body)).await;
        assert_eq!(status, 200, "{told}");
        assert_eq!((states(&told)[0], &told["refused"]), (first, &json!(11)), "{mode}: {told}");
        for (entry, code) in told["entries"].as_array().unwrap().iter().zip(codes).skip(1) {
            assert_eq!((entry["state"].as_str(), entry["problem"]["code"].as_str()), (Some("refused"), Some(code)), "{entry}");
        }
        assert_eq!(server.send(ROOT, "GET", "/api/v1/berths/bob", None).await.0, if first == "accepted" { 200 } else { 404 }, "{mode}");
    }
    for (body, code) in [
        (json!({ "berths": [] }), "no_entries"),
        (json!({ "berths": vec![json!({ "user": "x" }); 1001] }), "too_many_entries"),
        (json!({ "berths": [{ "user": "x", "disks": 1 }] }), "invalid_body"),
    ] {
        let (status, answer) = server.send(ROOT, "POST", BATCH, Some(body)).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{answer}");
    }
    let (_, told) = server
        .send(ROOT, "POST", "/api/v1/berths:change", Some(json!({ "users": ["alice", "nouser", "alice"], "change": { "pids": 100 } })))
        .await;
    assert_eq!(states(&told), ["accepted", "refused", "refused"], "{told}");
    assert_eq!(
        (&told["entries"][1]["problem"]["code"], &told["entries"][2]["problem"]["code"]),
        (&json!("berth_not_found"), &json!("duplicate_user"))
    );
}

#[tokio::test]
async fn what_may_be_promised_is_a_policy_per_resource_and_shown_before() {
    let server = Server::promising(Policy { memory_overcommit: Some(0.5), cpu_overcommit: Some(2.0), disk_overcommit: 0.5 }).await;
    let before = server.assign("alice").await;
    let path = "/api/v1/berths/alice/preview";
    let (_, preview) = server.send(ROOT, "POST", path, Some(json!({ "memory_bytes": 3 * GIB }))).await;
    assert_eq!(
        preview["headroom"],
        json!([
            { "resource": "cpu_millis", "capacity": 4000, "allowed": 8000, "promised": 2000, "after": 2000 },
            { "resource": "memory_bytes", "capacity": 8 * GIB, "allowed": 4 * GIB, "promised": 2 * GIB, "after": 3 * GIB },
            { "resource": "disk_bytes", "capacity": 100 * GIB, "allowed": 50 * GIB, "promised": 10 * GIB, "after": 10 * GIB },
        ])
    );
    for (change, code, figure) in [
        (json!({ "memory_bytes": 5 * GIB }), "memory_overcommitted", "at most 2 GiB more"),
        (json!({ "cpu_millis": 8001 }), "cpu_overcommitted", "at most 6 CPUs more"),
        (json!({ "disk_bytes": 51 * GIB }), "disk_overcommitted", "at most 40 GiB more"),
    ] {
        for (method, path) in [("POST", path), ("PATCH", "/api/v1/berths/alice")] {
            let (status, answer) = server.send(ROOT, method, path, Some(change.clone())).await;
            assert_eq!((status, answer["code"].as_str()), (422, Some(code)), "{answer}");
            assert!(answer["hint"].as_str().unwrap().contains(figure), "{answer}");
        }
    }
    assert_eq!(server.get("/api/v1/berths/alice").await["limits"], before["limits"]);
}

#[tokio::test]
async fn an_assignment_ends_by_itself_also_over_a_restart_and_goes_on_when_its_end_is_moved() {
    let server = Server::start().await;
    let end = now() + 1_500;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice", "until": end }))).await;
    server.end_of(accepted).await;
    assert_eq!(server.get("/api/v1/berths/alice").await["until"], end);
    let server = server.again().await;
    let path = "/api/v1/berths/alice";
    let berth = server.until(path, |berth| berth["state"] == "suspended").await;
    assert!(now() >= end && now() < end + 5_000, "not before, and not much after");
    let reason = berth["suspended"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the assignment ended on 2"), "{reason}");
    assert_eq!(server.node.inner.lock().unwrap().asked["alice"].suspended.as_deref(), Some(reason));
    // A resume alone does not give it another term; nor does one of all.
    let (status, answer) = server.send(ROOT, "POST", &format!("{path}/resume"), None).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("assignment_ended")), "{answer}");
    assert!(answer["hint"].as_str().unwrap().contains("--until"), "{answer}");
    let (_, all) = server.send(ROOT, "POST", "/api/v1/berths:resume", None).await;
    assert_eq!((all["operations"].as_array().unwrap().len(), &all["unchanged"]), (0, &json!(1)));
    for until in [json!(5), json!(i64::MAX)] {
        let (status, answer) = server.send(ROOT, "PATCH", path, Some(json!({ "until": until }))).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("invalid_until")), "{answer}");
    }
    let accepted = server.send(ROOT, "PATCH", path, Some(json!({ "until": now() + 86_400_000 }))).await;
    server.end_of(accepted).await;
    let berth = server.until(path, |berth| berth["state"] != "suspended").await;
    assert!(berth.get("suspended").is_none() && berth["until"].is_i64(), "{berth}");
    let accepted = server.send(ROOT, "PATCH", path, Some(json!({ "until": null }))).await;
    server.end_of(accepted).await;
    assert!(server.get(path).await.get("until").is_none());
    let audit = server.get("/api/v1/audit?subject=alice&limit=500").await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(actions, ["change_berth", "renew_assignment", "change_berth", "end_assignment", "create_berth"]);
}

#[tokio::test]
async fn the_end_of_an_assignment_leaves_a_suspension_of_a_persons_as_it_is() {
    let server = Server::start().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice", "until": now() + 1_000 }))).await;
    server.end_of(accepted).await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/suspend", Some(json!({ "reason": "mining" }))).await;
    server.end_of(accepted).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "until": null }))).await;
    server.end_of(accepted).await;
    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!((&berth["state"], &berth["suspended"]["reason"]), (&json!("suspended"), &json!("mining")), "only who barred it lets it go");
}

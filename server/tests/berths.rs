//! Berths through the API, over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use serde_json::json;
use support::{BIN, DAEMON, ROOT, Server, problem};

const BERTHS: &str = "/api/v1/berths";

#[tokio::test]
async fn an_assigned_berth_runs_and_is_listed_and_leaves_an_audit_row() {
    let server = Server::start().await;
    let body = json!({ "user": "alice", "profile": "student", "cpu_millis": 1500 });
    let (status, accepted) = server.send(ROOT, "POST", BERTHS, Some(body)).await;
    assert_eq!((status, accepted["warnings"].clone()), (202, json!([])));
    let operation = server.end_of((status, accepted)).await;
    assert_eq!((operation["state"].as_str(), operation["kind"].as_str()), (Some("succeeded"), Some("berth_create")));

    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!(berth["state"], "running");
    assert_eq!(berth["docker_ready"], true);
    assert_eq!(berth["limits"]["cpu_millis"], 1500);
    assert_eq!(berth["limits"]["pids"], 512);
    assert_eq!(berth["own_limits"], json!(["cpu_millis"]));
    assert_eq!(berth["socket"], "/run/berth/users/1005/docker.sock");
    assert_eq!(server.get(BERTHS).await["items"], json!([berth]));

    let audit = server.get("/api/v1/audit").await;
    let row = &audit["items"][0];
    assert_eq!(
        (row["action"].as_str(), row["subject"].as_str(), row["actor"].as_str()),
        (Some("create_berth"), Some("alice"), Some("root"))
    );
    assert_eq!(row["operation_id"], operation["id"]);
}

#[tokio::test]
async fn bad_assignments_have_a_code_each_and_leave_nothing() {
    let server = Server::start().await;
    server.assign("bob").await;
    let (calls, audit) = (server.node.calls().len(), server.get("/api/v1/audit").await);
    let gib = 1_u64 << 30;
    let long = "a".repeat(300);
    for (body, status, code) in [
        (json!({ "user": "carol" }), 404, "user_not_found"),
        (json!({ "user": "root" }), 422, "root_not_allowed"),
        (json!({ "user": "root", "allow_system": true }), 422, "root_not_allowed"),
        (json!({ "user": "daemon" }), 422, "system_account"),
        (json!({ "user": "bob" }), 409, "berth_exists"),
        (json!({ "user": "alice", "profile": "gold" }), 404, "profile_not_found"),
        (json!({ "user": "alice", "image": "gone" }), 404, "image_not_found"),
        (json!({ "user": "alice", "disk_bytes": gib - 1 }), 422, "limit_too_low"),
        (json!({ "user": "alice", "memory_bytes": (256 << 20) - 1 }), 422, "limit_too_low"),
        (json!({ "user": "alice", "cpu_millis": 1 }), 422, "limit_too_low"),
        (json!({ "user": "alice", "pids": 1 }), 422, "limit_too_low"),
        (json!({ "user": "alice", "memory_bytes": u64::MAX }), 422, "limit_too_high"),
        (json!({ "user": "alice", "disk_bytes": 101 * gib }), 422, "disk_overcommitted"),
        (json!({ "user": "al/ice" }), 400, "invalid_user_name"),
        (json!({ "user": ".." }), 400, "invalid_user_name"),
        (json!({ "user": "a\0b" }), 400, "invalid_user_name"),
        (json!({ "user": "" }), 400, "invalid_user_name"),
        (json!({ "user": long }), 400, "invalid_user_name"),
        (json!({ "user": "alice", "profile": "a/b" }), 400, "invalid_profile_name"),
        (json!({ "user": "alice", "image": "../x" }), 400, "invalid_image_name"),
        (json!({ "user": "alice", "cpus": 1 }), 400, "invalid_body"),
        (json!({ "user": "alice", "pids": -1 }), 400, "invalid_body"),
        (json!({}), 400, "invalid_body"),
    ] {
        let (got, answer) = server.send(ROOT, "POST", BERTHS, Some(body.clone())).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().len() < 400, "{answer}");
        assert_eq!(answer["status"], status);
        assert!(answer["request_id"].is_string());
    }
    assert_eq!(server.get(BERTHS).await["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/api/v1/audit").await, audit);
    assert_eq!(server.node.calls().len(), calls);
}

#[tokio::test]
async fn odd_names_in_paths_are_refused_not_resolved() {
    let server = Server::start().await;
    for (path, status, code) in [
        ("/api/v1/berths/a%2Fb", 400, "invalid_user_name"),
        ("/api/v1/berths/%2E%2E", 400, "invalid_user_name"),
        ("/api/v1/berths/a%00b", 400, "invalid_user_name"),
        ("/api/v1/berths/a%FFb", 400, "invalid_path"),
        ("/api/v1/berths/nobody", 404, "berth_not_found"),
        ("/api/v1/operations/x", 400, "invalid_path"),
        ("/api/v1/berths?limit=0", 400, "invalid_limit"),
        ("/api/v1/berths?limit=x", 400, "invalid_query"),
        ("/api/v1/berths?order=x", 400, "invalid_query"),
        ("/api/v1/audit?cursor=x", 400, "invalid_cursor"),
        ("/api/v1/nothing", 404, "no_such_path"),
    ] {
        let (got, answer) = server.send(ROOT, "GET", path, None).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{path}: {answer}");
    }
    let (status, answer) = server.send(ROOT, "PUT", BERTHS, Some(json!({}))).await;
    assert_eq!((status, answer["code"].as_str()), (405, Some("method_not_allowed")));
}

#[tokio::test]
async fn more_cpu_and_memory_than_the_host_has_is_a_warning_with_the_sums() {
    let server = Server::start().await;
    let body = json!({ "user": "alice", "cpu_millis": 6000, "memory_bytes": 16_u64 << 30 });
    let accepted = server.send(ROOT, "POST", BERTHS, Some(body)).await;
    let warnings = accepted.1["warnings"].clone();
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    let codes: Vec<_> = warnings.as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["cpu_overcommitted", "memory_overcommitted"]);
    assert_eq!(warnings[0]["detail"], "all berths together may use 6 CPUs, the host has 4");
    assert_eq!(warnings[1]["detail"], "all berths together may use 16 GiB of memory, the host has 8 GiB");
}

#[tokio::test]
async fn disks_of_all_berths_are_summed_and_the_refusal_has_the_figures() {
    let server = Server::start().await;
    let gib = 1_u64 << 30;
    let accepted = server.send(ROOT, "POST", BERTHS, Some(json!({ "user": "alice", "disk_bytes": 90 * gib }))).await;
    server.end_of(accepted).await;
    let (status, refused) = server.send(ROOT, "POST", BERTHS, Some(json!({ "user": "bob", "disk_bytes": 20 * gib }))).await;
    assert_eq!((status, refused["code"].as_str()), (422, Some("disk_overcommitted")));
    let (detail, hint) = (refused["detail"].as_str().unwrap(), refused["hint"].as_str().unwrap());
    assert!(detail.contains("110 GiB") && detail.contains("100 GiB") && hint.contains("10 GiB"), "{refused}");
    let (status, refused) = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "disk_bytes": 101 * gib }))).await;
    assert_eq!((status, refused["code"].as_str()), (422, Some("disk_overcommitted")));
    assert_eq!(server.get("/api/v1/berths/alice").await["limits"]["disk_bytes"], 90 * gib);
    let (status, refused) = server.send(ROOT, "PATCH", "/api/v1/profiles/default", Some(json!({ "disk_bytes": 500 * gib }))).await;
    assert_eq!(status, 200, "alice has a disk of her own: {refused}");
}

#[tokio::test]
async fn a_create_that_the_node_could_not_do_leaves_nothing_and_can_be_tried_again() {
    let server = Server::start().await;
    server.node.refuse(507, problem("host_disk_full", "the host's disk is full"));
    let accepted = server.send(ROOT, "POST", BERTHS, Some(json!({ "user": "alice" }))).await;
    let operation = server.end_of(accepted).await;
    assert_eq!((operation["state"].as_str(), operation["problem"]["code"].as_str()), (Some("failed"), Some("host_disk_full")));
    assert_eq!(server.send(ROOT, "GET", "/api/v1/berths/alice", None).await.0, 404);
    assert_eq!(server.get("/api/v1/audit?limit=1").await["items"][0]["action"], "undo_create_berth");
    assert_eq!(server.assign("alice").await["state"], "running");
}

#[tokio::test]
async fn a_change_that_the_node_refuses_puts_the_limits_back() {
    let server = Server::start().await;
    let before = server.assign("alice").await["limits"].clone();
    server.node.refuse(422, problem("disk_below_use", "8 GiB are in use"));
    let change = json!({ "disk_bytes": 2_u64 << 30, "pids": 100 });
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(change)).await;
    let operation = server.end_of(accepted).await;
    assert_eq!((operation["state"].as_str(), operation["problem"]["code"].as_str()), (Some("failed"), Some("disk_below_use")));
    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!((&berth["limits"], &berth["own_limits"], &berth["conditions"]), (&before, &json!([]), &json!([])));

    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "pids": 100 }))).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!((berth["limits"]["pids"].as_u64(), &berth["conditions"]), (Some(100), &json!([])));
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "pids": null, "profile": "student" }))).await;
    server.end_of(accepted).await;
    assert_eq!(server.node.inner.lock().unwrap().berths["alice"].limits.pids, 512);
}

#[tokio::test]
async fn stop_start_and_restart_reach_the_node() {
    let server = Server::start().await;
    let first = server.assign("alice").await["started_at"].as_i64().unwrap();
    let post = async |what: &str| {
        let accepted = server.send(ROOT, "POST", &format!("/api/v1/berths/alice/{what}"), None).await;
        assert_eq!(server.end_of(accepted).await["state"], "succeeded", "{what}");
        server.get("/api/v1/berths/alice").await
    };
    let berth = post("restart").await;
    assert_eq!(berth["state"], "running");
    assert!(berth["started_at"].as_i64().unwrap() > first);
    assert_eq!(post("stop").await["state"], "stopped");
    assert_eq!(post("start").await["state"], "running");
    assert_eq!(
        server.node.calls(),
        ["ensure alice Running", "stop alice", "ensure alice Running", "ensure alice Stopped", "ensure alice Running"]
    );
}

#[tokio::test]
async fn a_berth_that_woke_up_is_shown_running_and_not_stopped_again() {
    let server = Server::start().await;
    server.assign("alice").await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/stop", None).await;
    server.end_of(accepted).await;
    server.node.change("alice", |status| status.state = berth_protocol::State::Running);
    server.until("/api/v1/berths/alice", |berth| berth["state"] == "running").await;
    let calls = server.node.calls().len();
    // Another limit must not bring the old stop back.
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/alice", Some(json!({ "pids": 200 }))).await;
    server.end_of(accepted).await;
    assert_eq!(server.get("/api/v1/berths/alice").await["state"], "running");
    assert_eq!(server.node.calls()[calls..], ["ensure alice Present"]);
}

#[tokio::test]
async fn a_berth_that_failed_to_start_says_why_until_it_works() {
    let server = Server::start().await;
    server.assign("alice").await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/stop", None).await;
    server.end_of(accepted).await;
    server.node.refuse(500, problem("start_failed", "dockerd ended with 1"));
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/start", None).await;
    assert_eq!(server.end_of(accepted).await["state"], "failed");
    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!(
        (&berth["conditions"][0]["kind"], &berth["conditions"][0]["message"]),
        (&json!("NotAsWanted"), &json!("dockerd ended with 1"))
    );
    server.node.change("alice", |status| {
        status.state = berth_protocol::State::Running;
        status.docker_ready = true;
    });
    server.until("/api/v1/berths/alice", |berth| berth["conditions"] == json!([])).await;
}

#[tokio::test]
async fn an_image_with_the_name_of_a_user_is_not_his() {
    let server = Server::start().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "name": "daemon" }))).await;
    server.end_of(accepted).await;
    for list in ["operations", "audit"] {
        let (status, own) = server.send(DAEMON, "GET", &format!("/api/v1/{list}"), None).await;
        assert_eq!((status, &own["items"]), (200, &json!([])), "{list}");
        assert_eq!(server.get(&format!("/api/v1/{list}?subject=daemon")).await["items"].as_array().unwrap().len(), 1, "{list}");
    }
}

#[tokio::test]
async fn thirty_at_once_are_all_made_and_all_deleted() {
    let server = Server::start().await;
    let users: Vec<_> = (10..40).map(|n| format!("user{n}")).collect();
    for method in ["POST", "DELETE"] {
        let ends = futures_util::future::join_all(users.iter().map(async |user| {
            let accepted = match method {
                "POST" => server.send(ROOT, method, BERTHS, Some(json!({ "user": user, "disk_bytes": 1_u64 << 30 }))).await,
                _ => server.send(ROOT, method, &format!("{BERTHS}/{user}"), None).await,
            };
            server.end_of(accepted).await
        }));
        for end in ends.await {
            assert_eq!(end["state"], "succeeded", "{end}");
        }
    }
    assert_eq!(server.get(BERTHS).await["items"], json!([]));
    assert_eq!(server.node.calls().len(), 60, "each was asked for once");
}

#[tokio::test]
async fn one_user_assigned_twice_at_once_gets_one_berth() {
    let server = Server::start().await;
    let body = json!({ "user": "alice" });
    let (one, other) =
        tokio::join!(server.send(ROOT, "POST", BERTHS, Some(body.clone())), server.send(ROOT, "POST", BERTHS, Some(body.clone())));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409], "{one:?} {other:?}");
}

#[tokio::test]
async fn a_deleted_berth_leaves_its_audit_trail_and_room_for_a_new_one() {
    let server = Server::start().await;
    server.assign("alice").await;
    let accepted = server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    assert_eq!(server.get(BERTHS).await["items"], json!([]));
    assert_eq!(server.get("/api/v1/audit?limit=1").await["items"][0]["action"], "delete_berth");
    assert_eq!(server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await.0, 404);
    assert_eq!(server.assign("alice").await["state"], "running");
}

#[tokio::test]
async fn a_delete_overtakes_what_has_not_been_done() {
    let mut server = Server::start().await;
    server.assign("alice").await;
    server.stop_node().await;
    let stop = server.send(ROOT, "POST", "/api/v1/berths/alice/stop", None).await;
    let delete = server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await;
    let (status, refused) = server.send(ROOT, "POST", "/api/v1/berths/alice/start", None).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("berth_deleting")));
    server.start_node();
    assert_eq!(server.end_of(delete).await["state"], "succeeded");
    let stop = server.end_of(stop).await;
    assert_eq!((stop["state"].as_str(), stop["problem"]["code"].as_str()), (Some("cancelled"), Some("superseded")));
}

#[tokio::test]
async fn an_operation_waits_for_the_node_and_survives_a_restart_of_the_server() {
    let mut server = Server::start().await;
    server.assign("alice").await;
    server.stop_node().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/stop", None).await;
    let path = format!("/api/v1/operations/{}", accepted.1["operation"]["id"].as_str().unwrap());
    let waiting = server.until(&path, |operation| operation["step"].as_str().unwrap().starts_with("waiting")).await;
    assert_eq!(waiting["state"], "running");
    let berth = server.get("/api/v1/berths/alice").await;
    assert_eq!((berth["state"].as_str(), berth["conditions"][0]["kind"].as_str()), (Some("running"), Some("NodeUnreachable")));
    assert_eq!(server.send(ROOT, "GET", "/readyz", None).await.0, 503);

    let mut server = server.again().await;
    server.start_node();
    let operation = server.until(&path, |operation| operation["finished_at"].is_i64()).await;
    assert_eq!(operation["state"], "succeeded");
    assert_eq!(server.get("/api/v1/berths/alice").await["state"], "stopped");
    assert_eq!(server.send(ROOT, "GET", "/readyz", None).await.0, 200);
}

#[tokio::test]
async fn a_berth_that_the_node_has_lost_is_made_again() {
    let mut server = Server::start().await;
    server.assign("alice").await;
    server.stop_node().await;
    server.node.inner.lock().unwrap().berths.clear();
    server.start_node();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
    while server.node.calls().last().unwrap() != "ensure alice Present" {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", server.node.calls());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_foreign_berth_of_the_same_user_is_never_touched() {
    let server = Server::start().await;
    server.assign("alice").await;
    server.node.change("alice", |status| status.id = berth_protocol::BerthId(uuid::Uuid::from_u128(7)));
    let accepted = server.send(ROOT, "DELETE", "/api/v1/berths/alice", None).await;
    let operation = server.end_of(accepted).await;
    assert_eq!((operation["state"].as_str(), operation["problem"]["code"].as_str()), (Some("failed"), Some("foreign_berth")));
    assert_eq!(server.node.calls(), ["ensure alice Running"]);
    let checks = server.get("/api/v1/doctor").await;
    assert!(
        checks["checks"].as_array().unwrap().iter().any(|check| check["detail"].as_str().unwrap().contains("does not know")),
        "{checks}"
    );
}

#[tokio::test]
async fn lists_page_by_cursor_in_the_order_of_names() {
    let server = Server::start().await;
    for user in ["user3", "user1", "user2"] {
        let body = json!({ "user": user, "disk_bytes": 1_u64 << 30, "start": false });
        let accepted = server.send(ROOT, "POST", BERTHS, Some(body)).await;
        server.end_of(accepted).await;
    }
    let mut users = Vec::new();
    let mut path = format!("{BERTHS}?limit=2");
    loop {
        let page = server.get(&path).await;
        users.extend(page["items"].as_array().unwrap().iter().map(|berth| berth["user"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("{BERTHS}?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(users, ["user1", "user2", "user3"]);
    let page = server.get("/api/v1/operations?limit=2").await;
    let rest = server.get(&format!("/api/v1/operations?limit=2&cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!((page["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()), (2, 1));
}

#[tokio::test]
async fn a_user_has_his_own_berth_and_nothing_else_exists_for_him() {
    let server = Server::start().await;
    for user in ["daemon", "bin"] {
        let body = json!({ "user": user, "allow_system": true, "disk_bytes": 1_u64 << 30 });
        let accepted = server.send(ROOT, "POST", BERTHS, Some(body)).await;
        assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    }
    let (_, own) = server.send(DAEMON, "GET", BERTHS, None).await;
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    assert_eq!(own["items"][0]["user"], "daemon");
    let operations = server.send(DAEMON, "GET", "/api/v1/operations", None).await.1;
    assert!(operations["items"].as_array().unwrap().iter().all(|operation| operation["subject"] == "daemon"));
    let audit = server.send(BIN, "GET", "/api/v1/audit?subject=daemon", None).await.1;
    assert_eq!(audit["items"], json!([]));
    let foreign = server.get("/api/v1/operations?subject=bin").await["items"][0]["id"].as_str().unwrap().to_owned();
    for (method, path, body, status, code) in [
        ("GET", "/api/v1/berths/daemon".to_owned(), None, 200, None),
        ("GET", "/api/v1/berths/bin".to_owned(), None, 404, Some("berth_not_found")),
        ("GET", "/api/v1/users/bin".to_owned(), None, 404, Some("user_not_found")),
        ("GET", format!("/api/v1/operations/{foreign}"), None, 404, Some("operation_not_found")),
        ("GET", format!("/api/v1/operations/{foreign}/wait?timeout=1"), None, 404, Some("operation_not_found")),
        ("POST", "/api/v1/berths/bin/stop".to_owned(), None, 404, Some("berth_not_found")),
        ("GET", "/api/v1/berths/bin/logs".to_owned(), None, 404, Some("berth_not_found")),
        ("DELETE", "/api/v1/berths/daemon".to_owned(), None, 403, Some("not_permitted")),
        ("PATCH", "/api/v1/berths/daemon".to_owned(), Some(json!({ "pids": 9999 })), 403, Some("not_permitted")),
        ("POST", BERTHS.to_owned(), Some(json!({ "user": "daemon" })), 403, Some("not_permitted")),
        ("GET", "/api/v1/images".to_owned(), None, 403, Some("not_permitted")),
        ("GET", "/api/v1/doctor".to_owned(), None, 403, Some("not_permitted")),
        ("POST", "/api/v1/doctor/deep".to_owned(), None, 403, Some("not_permitted")),
        ("PATCH", "/api/v1/profiles/default".to_owned(), Some(json!({})), 403, Some("not_permitted")),
    ] {
        let (got, answer) = server.send(DAEMON, method, &path, body).await;
        assert_eq!((got, answer["code"].as_str()), (status, code), "{method} {path}: {answer}");
    }
    let (status, answer) = server.send(3_999_999_999, "GET", BERTHS, None).await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("unknown_account")));
    let own = server.send(DAEMON, "POST", "/api/v1/berths/daemon/restart", None).await;
    assert_eq!(server.end_of(own).await["actor"], "daemon");
}

//! Rules: who gets which profile, a berth on first use, and what changes when rules do.

#![forbid(unsafe_code)]

mod support;

use serde_json::{Value, json};
use support::{GAMES, NOBODY, ROOT, Server};

const RULES: &str = "/api/v1/rules";
const CLAIM: &str = "/api/v1/berths:claim";

async fn rule(server: &Server, group: &str, more: Value) -> Value {
    let mut body = json!({ "group": group, "profile": "student" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, made) = server.send(ROOT, "POST", RULES, Some(body)).await;
    assert_eq!(status, 201, "{made}");
    made
}

async fn order(server: &Server) -> Vec<String> {
    let rules = server.get(RULES).await;
    let told = rules["items"].as_array().unwrap().iter().map(|rule| format!("{} {}", rule["position"], rule["group"].as_str().unwrap()));
    told.collect()
}

#[tokio::test]
async fn rules_are_asked_in_an_order_that_is_kept_whole() {
    let server = Server::start().await;
    for group in ["staff", "students", "guests"] {
        rule(&server, group, json!({})).await;
    }
    assert_eq!(order(&server).await, ["1 staff", "2 students", "3 guests"]);
    let (_, moved) = server.send(ROOT, "PATCH", &format!("{RULES}/guests"), Some(json!({ "position": 1 }))).await;
    assert_eq!((&moved["position"], &moved["profile"]), (&json!(1), &json!("student")));
    rule(&server, "wheel", json!({ "position": 2 })).await;
    assert_eq!(order(&server).await, ["1 guests", "2 wheel", "3 staff", "4 students"]);
    server.send(ROOT, "PATCH", &format!("{RULES}/guests"), Some(json!({ "position": 99 }))).await;
    assert_eq!(server.send(ROOT, "DELETE", &format!("{RULES}/wheel"), None).await.0, 204);
    assert_eq!(order(&server).await, ["1 staff", "2 students", "3 guests"]);
    for (body, status, code) in [
        (json!({ "group": "staff", "profile": "student" }), 409, "rule_exists"),
        (json!({ "group": "x", "profile": "no-such" }), 404, "profile_not_found"),
        (json!({ "group": "a\nb", "profile": "student" }), 400, "invalid_group_name"),
        (json!({ "group": "x", "profile": "student", "auto": true, "most": 0 }), 400, "invalid_most"),
    ] {
        let (told, answer) = server.send(ROOT, "POST", RULES, Some(body)).await;
        assert_eq!((told, answer["code"].as_str()), (status, Some(code)), "{answer}");
    }
    let (status, answer) = server.send(ROOT, "DELETE", "/api/v1/profiles/student", None).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("profile_in_use")), "{answer}");
    let audit = server.get("/api/v1/audit?limit=500&subject=wheel").await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["delete_rule", "create_rule"]);
}

#[tokio::test]
async fn whoever_names_no_profile_gets_that_of_the_first_rule_that_matches() {
    let server = Server::start().await;
    server.node.group("students", &["alice", "bob"]);
    server.node.group("staff", &["bob"]);
    rule(&server, "students", json!({})).await;
    rule(&server, "staff", json!({ "profile": "developer", "position": 1 })).await;
    for (user, profile) in [("alice", "student"), ("bob", "developer"), ("user1", "default")] {
        assert_eq!(server.assign(user).await["profile"], profile, "{user}");
    }
    // One that is named needs no directory of groups, and no rule overrules it.
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice2", "profile": "default" }))).await;
    assert_eq!(server.end_of(accepted).await["state"], "succeeded");
    server.node.inner.lock().unwrap().lost = true;
    let (status, answer) = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "bob2" }))).await;
    assert_eq!((status, answer["code"].as_str()), (503, Some("directory_unavailable")), "{answer}");
}

#[tokio::test]
async fn a_first_use_gives_a_member_a_berth_and_nobody_else() {
    let server = Server::start().await;
    let claim = || server.send(NOBODY, "POST", CLAIM, None);
    // Without a rule nobody is looked up.
    let (status, answer) = claim().await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("berth_not_found")), "{answer}");
    assert_eq!(server.node.inner.lock().unwrap().looked_up, 0);
    rule(&server, "students", json!({ "auto": true, "most": 1 })).await;
    // No member; and the refusal stands for a moment at no cost.
    for _ in 0..5 {
        assert_eq!(claim().await.0, 404);
    }
    assert_eq!(server.node.inner.lock().unwrap().looked_up, 1, "a refusal is not looked up again and again");
    server.node.group("students", &["nobody"]);
    let server = server.again().await;
    // Two logins at once make one berth.
    let (one, other) = tokio::join!(server.send(NOBODY, "POST", CLAIM, None), server.send(NOBODY, "POST", CLAIM, None));
    assert!([one.0, other.0].contains(&202) && [one.0, other.0].iter().all(|status| [200, 202].contains(status)), "{one:?} {other:?}");
    let berth = server.until("/api/v1/berths/nobody", |berth| berth["socket"].is_string()).await;
    assert_eq!((&berth["profile"], &berth["state"]), (&json!("student"), &json!("stopped")), "it starts on its first connection");
    assert_eq!(server.node.calls(), ["ensure nobody Present"]);
    let (status, again) = server.send(NOBODY, "POST", CLAIM, None).await;
    assert_eq!((status, again), (200, json!({ "user": "nobody" })), "harmless when there is one");
    let row = server.get("/api/v1/audit?subject=nobody&limit=1").await["items"][0].clone();
    assert_eq!((&row["action"], &row["actor"], &row["role"]), (&json!("claim_berth"), &json!("nobody"), &json!("user")));
    assert_eq!(server.get(RULES).await["items"][0]["given"], 1);
    // Root is nobody's member.
    assert_eq!(server.send(ROOT, "POST", CLAIM, None).await.0, 404);
}

#[tokio::test]
async fn a_rule_gives_no_more_than_its_most_and_none_that_the_host_cannot_carry() {
    let server = Server::start().await;
    server.node.group("students", &["nobody", "games"]);
    rule(&server, "students", json!({ "auto": true, "most": 1 })).await;
    let (status, _) = server.send(NOBODY, "POST", CLAIM, None).await;
    assert_eq!(status, 202);
    server.until("/api/v1/berths/nobody", |berth| berth["socket"].is_string()).await;
    let (status, answer) = server.send(GAMES, "POST", CLAIM, None).await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("rule_exhausted")), "{answer}");
    let server = server.again().await;
    server.send(ROOT, "PATCH", &format!("{RULES}/students"), Some(json!({ "most": null }))).await;
    let (status, _) = server.send(ROOT, "PATCH", "/api/v1/profiles/student", Some(json!({ "disk_bytes": 200_u64 << 30 }))).await;
    assert_eq!(status, 422, "nor a profile beyond the host");
    let accepted = server.send(ROOT, "PATCH", "/api/v1/berths/nobody", Some(json!({ "disk_bytes": 99_u64 << 30 }))).await;
    server.end_of(accepted).await;
    let (status, answer) = server.send(GAMES, "POST", CLAIM, None).await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("disk_overcommitted")), "{answer}");
}

#[tokio::test]
async fn changed_rules_change_nobody_until_they_are_applied_and_then_only_whom_they_gave() {
    let server = Server::start().await;
    server.node.group("students", &["alice", "bob", "user1"]);
    rule(&server, "students", json!({})).await;
    server.assign("alice").await;
    server.assign("bob").await;
    server.assign("user22").await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "user1", "profile": "default" }))).await;
    server.end_of(accepted).await;
    server.send(ROOT, "PATCH", &format!("{RULES}/students"), Some(json!({ "profile": "developer" }))).await;
    server.node.group("students", &["bob", "user1"]);
    assert_eq!(server.get("/api/v1/berths/alice").await["profile"], "student", "nothing moves by itself");
    let path = "/api/v1/rules:apply";
    let (status, told) = server.send(ROOT, "POST", path, Some(json!({ "dry_run": true }))).await;
    assert_eq!(status, 200, "{told}");
    let of = |told: &Value, state: &str| -> Vec<String> {
        let entries = told["entries"].as_array().unwrap().iter().filter(|entry| entry["state"] == state);
        entries.map(|entry| format!("{} {} {}", entry["user"], entry["profile_before"], entry["profile"]).replace('"', "")).collect()
    };
    assert_eq!(of(&told, "checked"), ["alice student default", "bob student developer"]);
    assert_eq!(of(&told, "kept"), ["user1 default developer"], "a person named it");
    assert_eq!(server.get("/api/v1/berths/bob").await["profile"], "student", "a dry run");
    let (_, done) = server.send(ROOT, "POST", path, Some(json!({}))).await;
    assert_eq!(of(&done, "accepted"), of(&told, "checked"), "{done}");
    for (user, profile) in [("alice", "default"), ("bob", "developer"), ("user1", "default"), ("user22", "default")] {
        assert_eq!(server.get(&format!("/api/v1/berths/{user}")).await["profile"], profile, "{user}");
    }
    let memory = server.get("/api/v1/profiles/developer").await["limits"]["memory_bytes"].as_u64().unwrap();
    server.until("/api/v1/berths/bob", |berth| berth["limits"]["memory_bytes"] == memory && berth["wanted"] == "present").await;
    server.until("/api/v1/berths/bob", |_| server.node.inner.lock().unwrap().asked["bob"].limits.memory_bytes == memory).await;
    let (_, again) = server.send(ROOT, "POST", path, Some(json!({}))).await;
    assert_eq!((&again["accepted"], of(&again, "kept").len()), (&json!(0), 1));
}

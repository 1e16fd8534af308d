//! Berths whose accounts are gone, locked or another's, over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use berth_protocol::AccountState;
use berth_server::config::Accounts;
use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server};

/// Everything at once: three looks in three seconds.
const SOON: Accounts = Accounts { check_seconds: 1, gone_checks: 3, gone_seconds: 0, grace_seconds: 0, max_at_once: 1, known: Vec::new() };

fn say(server: &Server, accounts: &[(&str, AccountState)]) {
    let mut inner = server.node.inner.lock().unwrap();
    inner.accounts = accounts.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect();
}

async fn rounds(server: &Server, more: usize) {
    let asked = || server.node.inner.lock().unwrap().rounds;
    let wanted = asked() + more;
    while asked() < wanted {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn codes(body: &Value) -> Vec<&str> {
    body["alarms"].as_array().unwrap().iter().map(|alarm| alarm["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn l05_a_vanished_account_is_suspended_says_why_and_goes_on_when_it_is_back() {
    let server = Server::watching(SOON).await;
    for user in ["alice", "bob"] {
        server.assign(user).await;
    }
    say(&server, &[("alice", AccountState::Vanished)]);
    let berth = server.until("/api/v1/berths/alice", |berth| berth["state"] == "suspended").await;
    assert_eq!((&berth["suspended"]["by"], &berth["suspended"]["reason"]), (&json!("account watch"), &json!("alice is Vanished")));
    let listed = server.get("/api/v1/accounts").await;
    assert_eq!((&listed["items"][0]["state"], &listed["items"][1]["state"]), (&json!("vanished"), &json!("present")));
    assert_eq!(listed["alarms"], json!([]));
    let row = server.get("/api/v1/audit?kind=action&limit=1").await["items"][0].clone();
    assert_eq!((&row["action"], &row["subject"]), (&json!("suspend_account"), &json!("alice")), "{row}");
    let doctor = server.get("/api/v1/doctor").await.to_string();
    assert!(doctor.contains("alice is Vanished"), "{doctor}");

    say(&server, &[]);
    server.until("/api/v1/berths/alice", |berth| berth["suspended"].is_null() && berth["state"] == "running").await;
    assert_eq!(server.get("/api/v1/audit?kind=action&limit=1").await["items"][0]["action"], "resume_account");
}

#[tokio::test]
async fn l05_what_an_administrator_suspended_is_not_let_go() {
    let server = Server::watching(SOON).await;
    server.assign("alice").await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/alice/suspend", Some(json!({ "reason": "mining" }))).await;
    server.end_of(accepted).await;
    say(&server, &[("alice", AccountState::Expired)]);
    rounds(&server, 2).await;
    say(&server, &[]);
    rounds(&server, 2).await;
    assert_eq!(server.get("/api/v1/berths/alice").await["suspended"]["reason"], "mining");
}

#[tokio::test]
async fn l05_an_outage_an_empty_directory_and_many_at_once_suspend_nobody_and_are_told() {
    let server = Server::watching(SOON).await;
    for user in ["alice", "bob", "user1"] {
        server.assign(user).await;
    }
    let all = |state| [("alice", state), ("bob", state), ("user1", state)];
    for (state, code) in [
        (AccountState::Unknown, "directory_unavailable"),
        (AccountState::Vanished, "directory_empty"),
        (AccountState::Locked, "too_many_at_once"),
    ] {
        say(&server, &all(state));
        server.until("/api/v1/accounts", |body| codes(body).contains(&code)).await;
        rounds(&server, 4).await;
        let berths = server.get("/api/v1/berths").await;
        assert!(berths["items"].as_array().unwrap().iter().all(|berth| berth["suspended"].is_null()), "{code}: {berths}");
        let rows = server.get("/api/v1/audit?kind=action&limit=1").await;
        assert_eq!((&rows["items"][0]["action"], &rows["items"][0]["subject_kind"]), (&json!("account_alarm"), &json!("accounts")));
        let doctor = server.get("/api/v1/doctor").await;
        let told = doctor["checks"].as_array().unwrap().iter().any(|check| check["name"] == "accounts" && check["level"] == "failed");
        assert!(told, "{doctor}");
    }
    // One is believed, and that a uid is another's at once.
    say(&server, &[("alice", AccountState::Renamed)]);
    server.until("/api/v1/berths/alice", |berth| berth["state"] == "suspended").await;
    server.until("/api/v1/accounts", |body| codes(body).is_empty()).await;
    let (status, _) = server.send(DAEMON, "GET", "/api/v1/accounts", None).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn l05_sessions_and_tokens_of_a_locked_account_are_refused_until_it_is_back() {
    let server = Server::watching(SOON).await;
    let new = json!({ "user": "daemon", "allow_system": true });
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(new)).await;
    server.end_of(accepted).await;
    let session = server.follow(&server.link(DAEMON).await).await.cookie();
    let (_, token) = server.token(&session, "read").await;
    server.me(&session).await.ok();
    say(&server, &[("daemon", AccountState::Locked)]);
    server.until("/api/v1/accounts", |all| all["items"][0]["state"] == "locked").await;
    server.me(&session).await.is(401, "account_disabled");
    server.me(&token).await.is(401, "account_disabled");
    say(&server, &[]);
    server.until("/api/v1/accounts", |all| all["items"][0]["state"] == "present").await;
    server.me(&session).await.ok();
    server.me(&token).await.ok();
}

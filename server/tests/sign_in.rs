//! Signing in, one-time links, tokens and their exchange, keys, ends and revocation: each works, and each is refused where it must be.

#![forbid(unsafe_code)]

mod support;

use serde_json::{Value, json};
use support::{
    BIN, DAEMON, ROOT, Server,
    browser::{Credential, PASSWORD, later},
};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

#[tokio::test]
async fn s04_an_administrator_signs_in_and_nobody_else_does() {
    let server = Server::start().await;
    server.administrator("carol", "operator").await;
    server.me(&Credential::None).await.is(401, "unauthenticated");
    let wrong = server.try_sign_in("carol", "another password").await;
    wrong.is(401, "sign_in_failed");
    let unknown = server.try_sign_in("mallory", PASSWORD).await;
    // Nothing tells a wrong password from an unknown name.
    for key in ["code", "detail", "hint", "status"] {
        assert_eq!(wrong.body[key], unknown.body[key], "{key}");
    }
    assert!(wrong.headers.get("set-cookie").is_none());

    let answer = server.try_sign_in("carol", PASSWORD).await;
    let set = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    let (secret, flags) = set.strip_prefix("__Host-berth=").unwrap().split_once("; ").unwrap();
    assert_eq!(flags, "Path=/; Secure; HttpOnly; SameSite=Strict");
    assert!(secret.len() == 43 && !answer.body.to_string().contains(secret), "{set}");
    let cookie = answer.cookie();
    let me = server.me(&cookie).await.ok();
    assert_eq!((me["account"].as_str(), me["role"].as_str(), me["via"].as_str()), (Some("admin:carol"), Some("operator"), Some("session")));
    assert_eq!(me["may"]["create_berth"], "all");
    assert_eq!(me["may"]["create_admin"], Value::Null);

    // On the unix socket the kernel says who it is: a cookie makes nobody another.
    let (_, daemon) = server.send(DAEMON, "GET", "/api/v1/me", None).await;
    assert_eq!(
        (daemon["account"].as_str(), daemon["role"].as_str(), daemon["via"].as_str()),
        (Some("daemon"), Some("user"), Some("socket"))
    );

    let signed_out = server.ask(&cookie, "DELETE", "/api/v1/sessions/current", None).await;
    assert_eq!(signed_out.status, 204, "{}", signed_out.body);
    server.me(&cookie).await.is(401, "session_ended");
}

#[tokio::test]
async fn s04_who_is_disabled_demoted_or_has_another_password_has_nothing_of_before() {
    let server = Server::start().await;
    server.administrator("dora", "admin").await;
    server.administrator("carol", "admin").await;
    let cookie = server.sign_in("carol").await;
    let (_, token) = server.token(&cookie, "admin").await;
    let access = server.access(&token).await;
    let change = |body: Value| server.send(ROOT, "PATCH", "/api/v1/admins/carol", Some(body));
    // A role that was taken away is gone at the next request, whatever it comes with.
    assert_eq!(change(json!({ "role": "auditor" })).await.0, 200);
    for who in [&cookie, &token, &access] {
        assert_eq!(server.me(who).await.ok()["role"], "auditor");
        server.ask(who, "POST", "/api/v1/berths", Some(json!({ "user": "bin" }))).await.is(403, "not_permitted");
    }
    assert_eq!(change(json!({ "enabled": false })).await.0, 200);
    server.me(&cookie).await.is(401, "session_ended");
    server.me(&token).await.is(401, "account_disabled");
    server.me(&access).await.is(401, "account_disabled");
    server.exchange(&token).await.is(401, "account_disabled");
    server.try_sign_in("carol", PASSWORD).await.is(401, "sign_in_failed");
    assert_eq!(change(json!({ "enabled": true })).await.0, 200);
    server.me(&cookie).await.is(401, "session_ended");

    let cookie = server.sign_in("carol").await;
    let other = server.sign_in("carol").await;
    let path = "/api/v1/admins/carol/password";
    let new = "short grey cup 8!";
    server.ask(&cookie, "POST", path, Some(json!({ "password": new }))).await.is(400, "current_password_required");
    server.ask(&cookie, "POST", path, Some(json!({ "current": "wrong password", "password": new }))).await.is(403, "wrong_password");
    server.ask(&cookie, "POST", path, Some(json!({ "current": PASSWORD, "password": "carolcarol12" }))).await.is(400, "weak_password");
    // An auditor's only: those of others do not exist for him.
    server.ask(&cookie, "POST", "/api/v1/admins/dora/password", Some(json!({ "password": new }))).await.is(404, "admin_not_found");
    let set = server.ask(&cookie, "POST", path, Some(json!({ "current": PASSWORD, "password": new }))).await;
    assert_eq!(set.status, 204, "{}", set.body);
    server.me(&cookie).await.is(401, "session_ended");
    server.me(&other).await.is(401, "session_ended");
    server.try_sign_in("carol", PASSWORD).await.is(401, "sign_in_failed");
    assert_eq!(server.try_sign_in("carol", new).await.status, 201);
}

#[tokio::test]
async fn s04_attempts_are_limited_by_account_and_address() {
    let server = Server::start().await;
    server.administrator("carol", "admin").await;
    for _ in 0..5 {
        server.try_sign_in("carol", "another password").await.is(401, "sign_in_failed");
    }
    let refused = server.try_sign_in("carol", PASSWORD).await;
    refused.is(429, "too_many_attempts");
    let wait: i64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    // From where she is, carol waits for nobody.
    let body = json!({ "name": "carol", "password": PASSWORD });
    let elsewhere = server.ask_with(&Credential::None, "192.0.2.99", &[], "POST", "/api/v1/sessions", Some(body.clone())).await;
    assert_eq!(elsewhere.status, 201, "{}", elsewhere.body);
    // What an untrusted client says of other addresses changes nothing.
    let forged = [("x-forwarded-for", "198.51.100.7")];
    let again = server.ask_with(&Credential::None, support::browser::CLIENT, &forged, "POST", "/api/v1/sessions", Some(body)).await;
    again.is(429, "too_many_attempts");
    later(wait);
    assert_eq!(server.try_sign_in("carol", PASSWORD).await.status, 201);
    // One address that tries many names.
    let mut seen = Vec::new();
    for n in 0..40 {
        seen.push(server.follow(&format!("no-link-{n}")).await.status);
    }
    assert!(seen.starts_with(&[401]) && seen.ends_with(&[429]), "{seen:?}");

    let trail = server.get("/api/v1/audit?limit=100").await;
    let failed: Vec<_> = trail["items"].as_array().unwrap().iter().filter(|row| row["action"] == "create_session_failed").collect();
    assert!((1..=3).contains(&failed.len()), "many attempts of one source are few rows: {failed:?}");
}

#[tokio::test]
async fn a_one_time_link_opens_the_dashboard_once_within_a_minute_as_its_maker() {
    let server = Server::start().await;
    let (status, refused) = server.send(DAEMON, "POST", "/api/v1/sessions/links", None).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("no_listener")), "a link to a port that we do not hold would give it away");
    let link = server.link(DAEMON).await;
    let answer = server.follow(&link).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let cookie = answer.cookie();
    let me = server.me(&cookie).await.ok();
    assert_eq!((me["account"].as_str(), me["role"].as_str(), me["host_user"].as_str()), (Some("daemon"), Some("user"), Some("daemon")));
    server.ask(&cookie, "GET", "/api/v1/profiles", None).await.is(403, "not_permitted");
    server.follow(&link).await.is(401, "link_used");

    let link = server.link(DAEMON).await;
    later(61);
    server.follow(&link).await.is(401, "link_used");
    // A newer one takes the place of the older.
    let (older, newer) = (server.link(DAEMON).await, server.link(DAEMON).await);
    server.follow(&older).await.is(401, "link_used");
    assert_eq!(server.follow(&newer).await.status, 201);
    server.follow("").await.is(401, "link_used");
    server.follow(&"x".repeat(10_000)).await.is(401, "link_used");

    // Only on the host itself: who has a cookie makes no more of it.
    server.ask(&cookie, "POST", "/api/v1/sessions/links", None).await.is(403, "host_account_required");
    let root = server.follow(&server.link(ROOT).await).await.cookie();
    assert_eq!(server.me(&root).await.ok()["role"], "admin");
}

#[tokio::test]
async fn a_host_account_that_is_tied_to_an_administrator_has_his_role() {
    let server = Server::start().await;
    let new = json!({ "name": "carol", "role": "operator", "password": PASSWORD, "host_user": "daemon" });
    let (status, made) = server.send(ROOT, "POST", "/api/v1/admins", Some(new)).await;
    assert_eq!((status, made["host_user"].as_str()), (201, Some("daemon")), "{made}");
    let (_, me) = server.send(DAEMON, "GET", "/api/v1/me", None).await;
    assert_eq!((me["role"].as_str(), me["admin"].as_str(), me["account"].as_str()), (Some("operator"), Some("carol"), Some("daemon")));
    let cookie = server.follow(&server.link(DAEMON).await).await.cookie();
    assert_eq!(server.me(&cookie).await.ok()["role"], "operator");
    let second = json!({ "name": "dora", "role": "admin", "password": PASSWORD, "host_user": "daemon" });
    let (status, refused) = server.send(ROOT, "POST", "/api/v1/admins", Some(second)).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("host_user_tied")));
    let (status, _) = server.send(ROOT, "PATCH", "/api/v1/admins/carol", Some(json!({ "enabled": false }))).await;
    assert_eq!(status, 200);
    let (_, me) = server.send(DAEMON, "GET", "/api/v1/me", None).await;
    assert_eq!(me["role"], "user");
    assert_eq!(server.me(&cookie).await.ok()["role"], "user");
}

#[tokio::test]
async fn s04_sessions_end_when_unused_when_old_and_when_revoked() {
    let server = Server::start().await;
    server.administrator("carol", "admin").await;
    server.administrator("dora", "operator").await;
    let idle = server.sign_in("carol").await;
    later(2 * HOUR - 1);
    server.me(&idle).await.ok();
    // The use is noted beside the request.
    let seen = |list: Value| list["items"][0]["seen_at"].as_i64().unwrap() - list["items"][0]["created_at"].as_i64().unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while seen(server.ask(&idle, "GET", "/api/v1/sessions", None).await.ok()) < HOUR * 1_000 {
        assert!(tokio::time::Instant::now() < deadline, "the use was not noted");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    later(2 * HOUR - 1);
    server.me(&idle).await.ok();
    later(2 * HOUR + 1);
    server.me(&idle).await.is(401, "session_ended");

    let old = server.sign_in("carol").await;
    for _ in 0..24 {
        // Used all the time, each use noted.
        later(HOUR);
        let _ = server.me(&old).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.me(&old).await.is(401, "session_ended");

    let (mine, other, doras) = (server.sign_in("carol").await, server.sign_in("carol").await, server.sign_in("dora").await);
    let list = server.ask(&mine, "GET", "/api/v1/sessions", None).await.ok();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{list}");
    assert_eq!(items.iter().filter(|session| session["current"] == true).count(), 1);
    assert_eq!(server.ask(&mine, "GET", "/api/v1/sessions?all=true", None).await.ok()["items"].as_array().unwrap().len(), 3);
    let carols = items[0]["id"].as_str().unwrap();
    // Dora's list is hers, and carol's session does not exist for her.
    assert_eq!(server.ask(&doras, "GET", "/api/v1/sessions?all=true", None).await.ok()["items"].as_array().unwrap().len(), 1);
    server.ask(&doras, "DELETE", &format!("/api/v1/sessions/{carols}"), None).await.is(404, "session_not_found");
    assert_eq!(server.ask(&mine, "DELETE", "/api/v1/sessions", None).await.ok()["ended"], 1);
    server.me(&other).await.is(401, "session_ended");
    server.me(&mine).await.ok();
    server.me(&doras).await.ok();
}

#[tokio::test]
async fn s04_a_token_works_within_its_scope_until_it_ends_or_is_revoked() {
    let server = Server::start().await;
    server.administrator("carol", "admin").await;
    let cookie = server.sign_in("carol").await;
    let (_, read) = server.token(&cookie, "read").await;
    let (id, all) = server.token(&cookie, "admin").await;
    server.ask(&read, "GET", "/api/v1/berths", None).await.ok();
    server.ask(&read, "POST", "/api/v1/berths", Some(json!({ "user": "bin" }))).await.is(403, "not_permitted");
    server.ask(&all, "POST", "/api/v1/profiles", Some(json!({ "name": "mine" }))).await.ok();
    // Who finds a token makes himself nothing lasting with it.
    for (path, body) in [
        ("/api/v1/tokens", json!({ "name": "more", "scope": "read" })),
        ("/api/v1/admins", json!({ "name": "mallory", "role": "admin", "password": PASSWORD })),
        ("/api/v1/admins/carol/password", json!({ "password": "short grey cup 8!" })),
    ] {
        server.ask(&all, "POST", path, Some(body)).await.is(403, "not_permitted");
    }
    for text in ["berth_", "berth_x", "x", "", &"x".repeat(9_000)] {
        server.me(&Credential::Bearer(text.to_owned())).await.is(401, "invalid_token");
    }
    let (Credential::Bearer(secret), Credential::Cookie(session)) = (&all, &cookie) else { panic!() };
    server.me(&Credential::Cookie(secret.clone())).await.is(401, "session_ended");
    server.me(&Credential::Bearer(session.clone())).await.is(401, "invalid_token");

    let gone = server.ask(&cookie, "DELETE", &format!("/api/v1/tokens/{id}"), None).await;
    assert_eq!(gone.status, 204, "{}", gone.body);
    server.me(&all).await.is(401, "invalid_token");
    later(90 * DAY + 1);
    server.me(&read).await.is(401, "invalid_token");
    server.exchange(&read).await.is(401, "invalid_token");

    let cookie = server.sign_in("carol").await;
    for life in [0, 59, 367 * DAY] {
        let body = json!({ "name": "odd", "scope": "read", "expires_in": life });
        server.ask(&cookie, "POST", "/api/v1/tokens", Some(body)).await.is(400, "invalid_expiry");
    }
}

#[tokio::test]
async fn s04_a_token_is_exchanged_for_a_quarter_of_an_hour() {
    let server = Server::start().await;
    server.administrator("carol", "operator").await;
    let cookie = server.sign_in("carol").await;
    let (id, token) = server.token(&cookie, "operate").await;
    let answer = server.exchange(&token).await.ok();
    assert_eq!((answer["token_type"].as_str(), answer["expires_in"].as_i64()), (Some("Bearer"), Some(15 * MINUTE)), "{answer}");
    let access = Credential::Bearer(answer["access_token"].as_str().unwrap().to_owned());
    let me = server.me(&access).await.ok();
    assert_eq!((me["via"].as_str(), me["scope"].as_str(), me["role"].as_str()), (Some("access_token"), Some("operate"), Some("operator")));
    // Neither is an access token exchanged for another, nor anything else.
    server.exchange(&access).await.is(401, "invalid_token");
    server.exchange(&Credential::None).await.is(401, "unauthenticated");
    server.exchange(&cookie).await.is(401, "unauthenticated");

    later(15 * MINUTE - 2);
    server.me(&access).await.ok();
    later(3);
    server.me(&access).await.is(401, "invalid_token");

    // What is revoked takes along what was got with it, at once.
    let access = server.access(&token).await;
    server.me(&access).await.ok();
    assert_eq!(server.send(ROOT, "DELETE", &format!("/api/v1/tokens/{id}"), None).await.0, 204);
    server.me(&access).await.is(401, "invalid_token");

    // Never longer than the token that it was got with.
    let cookie = server.sign_in("carol").await;
    let made =
        server.ask(&cookie, "POST", "/api/v1/tokens", Some(json!({ "name": "brief", "scope": "read", "expires_in": 120 }))).await.ok();
    let brief = Credential::Bearer(made["secret"].as_str().unwrap().to_owned());
    assert!(server.exchange(&brief).await.ok()["expires_in"].as_i64().unwrap() <= 120);
    // One token, again and again.
    let mut last = 0;
    for _ in 0..30 {
        last = server.exchange(&brief).await.status;
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn s04_two_keys_count_and_the_third_pushes_the_first_out() {
    let server = Server::start().await;
    server.administrator("carol", "admin").await;
    let cookie = server.sign_in("carol").await;
    let (_, token) = server.token(&cookie, "read").await;
    let first = server.access(&token).await;
    let keys = server.ask(&cookie, "POST", "/api/v1/tokens/keys/rotate", None).await.ok();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2, "{keys}");
    let second = server.access(&token).await;
    let kid = |who: &Credential| {
        let Credential::Bearer(text) = who else { panic!() };
        let header = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["alg"], "EdDSA");
        header["kid"].as_str().unwrap().to_owned()
    };
    assert_eq!(kid(&second), keys["keys"][0]["id"].as_str().unwrap());
    assert_eq!(kid(&first), keys["keys"][1]["id"].as_str().unwrap());
    server.me(&first).await.ok();
    server.me(&second).await.ok();
    server.ask(&cookie, "POST", "/api/v1/tokens/keys/rotate", None).await.ok();
    server.me(&first).await.is(401, "invalid_token");
    server.me(&second).await.ok();
    // By itself when a key is a month old.
    later(31 * DAY);
    let third = server.access(&token).await;
    assert!(![kid(&first), kid(&second)].contains(&kid(&third)));
    assert_eq!(server.send(DAEMON, "POST", "/api/v1/tokens/keys/rotate", None).await.0, 403);
}

#[tokio::test]
async fn the_last_administrator_is_removed_by_root_alone() {
    let server = Server::start().await;
    server.administrator("carol", "admin").await;
    let cookie = server.sign_in("carol").await;
    let path = "/api/v1/admins/carol";
    server.ask(&cookie, "DELETE", path, None).await.is(409, "last_admin");
    server.ask(&cookie, "PATCH", path, Some(json!({ "enabled": false }))).await.is(409, "last_admin");
    server.ask(&cookie, "PATCH", path, Some(json!({ "role": "operator" }))).await.is(409, "last_admin");
    let (status, refused) =
        server.send(ROOT, "POST", "/api/v1/admins", Some(json!({ "name": "carol", "role": "admin", "password": PASSWORD }))).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("admin_exists")));
    server.administrator("dora", "admin").await;
    server.ask(&cookie, "PATCH", path, Some(json!({ "role": "operator" }))).await.ok();
    assert_eq!(server.send(ROOT, "DELETE", "/api/v1/admins/dora", None).await.0, 204);
    assert_eq!(server.send(ROOT, "DELETE", path, None).await.0, 204);
    server.me(&cookie).await.is(401, "session_ended");
    assert_eq!(server.get("/api/v1/admins").await["items"], json!([]));
}

/// An administrator has nothing of the host account of the same name.
#[tokio::test]
async fn s05_an_administrator_is_not_the_host_account_of_his_name() {
    let server = Server::start().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "bin", "allow_system": true }))).await;
    server.end_of(accepted).await;
    assert_eq!(server.send(BIN, "GET", "/api/v1/berths/bin", None).await.0, 200);
    server.administrator("bin", "operator").await;
    let cookie = server.sign_in("bin").await;
    let headers = [("upgrade", "berth-exec"), ("connection", "upgrade")];
    let exec = server
        .ask_with(&cookie, support::browser::CLIENT, &headers, "POST", "/api/v1/berths/bin/exec", Some(json!({ "argv": ["true"] })))
        .await;
    exec.is(404, "berth_not_found");
}

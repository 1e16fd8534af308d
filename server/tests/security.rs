//! What a browser meets: pages of other sites, other names, headers; and what must be nowhere.

#![forbid(unsafe_code)]

mod support;

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use support::{
    BIN, ROOT, Server,
    browser::{CLIENT, Credential, PASSWORD},
};

#[tokio::test]
async fn s04_a_page_of_another_site_writes_nothing() {
    let server = Server::start().await;
    server.administrator("carol", "admin").await;
    let cookie = server.sign_in("carol").await;
    let body = || Some(json!({ "name": "mine" }));
    let path = "/api/v1/profiles";
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "http://evil.example.org")],
        &[("origin", "null")],
        &[("origin", "http://localhost:8471")],
        &[("sec-fetch-site", "cross-site"), ("origin", "http://localhost:8470")],
    ] {
        let answer = server.ask_with(&cookie, CLIENT, headers, "POST", path, body()).await;
        answer.is(403, "cross_site");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        // Nobody is signed in by another site's page either.
        let sign_in = Some(json!({ "name": "carol", "password": PASSWORD }));
        server.ask_with(&Credential::None, CLIENT, headers, "POST", "/api/v1/sessions", sign_in).await.is(403, "cross_site");
    }
    let ours = [("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8470")];
    assert_eq!(server.ask_with(&cookie, CLIENT, &ours, "POST", path, body()).await.status, 201);
}

#[tokio::test]
async fn s04_a_terminal_opens_for_a_page_of_ours_alone() {
    let server = Server::start().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "bin", "allow_system": true }))).await;
    server.end_of(accepted).await;
    let cookie = server.follow(&server.link(BIN).await).await.cookie();
    let path = "/api/v1/berths/bin/terminal";
    for headers in [&[("origin", "http://evil.example.org")][..], &[("origin", "http://localhost:8471")], &[]] {
        server.ask_with(&cookie, CLIENT, headers, "GET", path, None).await.is(403, "cross_site");
    }
    let ours = [("origin", "http://localhost:8470")];
    server.ask_with(&cookie, CLIENT, &ours, "GET", path, None).await.is(426, "upgrade_required");
}

#[tokio::test]
async fn another_name_that_was_made_to_lead_here_gets_nothing() {
    let server = Server::start().await;
    for host in ["evil.example.org", "evil.example.org:8470", "localhost.evil.example.org", "", "a@localhost"] {
        let answer = server.ask_with(&Credential::None, CLIENT, &[("host", host)], "GET", "/healthz", None).await;
        answer.is(421, "unknown_host");
    }
    for host in ["localhost:8470", "127.0.0.1:8470", "[::1]:8470"] {
        assert_eq!(server.ask_with(&Credential::None, CLIENT, &[("host", host)], "GET", "/healthz", None).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let server = Server::start().await;
    for (path, status) in [("/healthz", 200), ("/api/v1/me", 401), ("/nothing", 404), ("/openapi.json", 200)] {
        let answer = server.ask(&Credential::None, "GET", path, None).await;
        assert_eq!(answer.status, status, "{path}");
        for (name, value) in [
            ("content-security-policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{path} {name}");
        }
        // What has an ETag may be kept by the browser that asked, and is asked for again each time.
        assert!(["no-store", "private, no-cache"].contains(&answer.headers["cache-control"].to_str().unwrap()), "{path}");
        assert!(answer.headers.get("strict-transport-security").is_none(), "without TLS");
    }
}

/// All that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn s04_no_secret_is_in_log_trail_or_database() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start().await;
    server.administrator("carol", "admin").await;
    let typed = "my-password-as-a-name";
    server.try_sign_in(typed, "quite another one").await.is(401, "sign_in_failed");
    let cookie = server.sign_in("carol").await;
    let (_, token) = server.token(&cookie, "admin").await;
    let access = server.access(&token).await;
    let link = server.link(ROOT).await;
    let unused = server.link(BIN).await;
    let other = server.follow(&link).await.cookie();
    let new = "short grey cup 8!";
    for who in [&cookie, &token, &access, &other] {
        server.me(who).await.ok();
    }
    let set = server.send(ROOT, "POST", "/api/v1/admins/carol/password", Some(json!({ "password": new }))).await;
    assert_eq!(set.0, 204, "{}", set.1);
    let trail = server.get("/api/v1/audit?limit=500").await;
    let actions: Vec<&str> = trail["items"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    for action in ["create_admin", "create_session_failed", "create_session", "create_token", "create_link", "set_password"] {
        assert!(actions.contains(&action), "{action} is not in {actions:?}");
    }
    let text = |who: &Credential| match who {
        Credential::Cookie(text) | Credential::Bearer(text) => text.clone(),
        Credential::None => panic!(),
    };
    let mut secrets: Vec<String> = [&cookie, &token, &access, &other].map(text).into();
    secrets.extend([PASSWORD, new, typed, "quite another one", &link, &unused].map(str::to_owned));
    server.store.close().await;
    let mut places = vec![("log", log.0.lock().unwrap().clone()), ("trail", trail.to_string().into_bytes())];
    assert!(!places[0].1.is_empty(), "nothing was logged, so nothing was tested");
    for file in std::fs::read_dir(server.directory.path()).unwrap().filter_map(Result::ok) {
        if file.file_type().unwrap().is_file() {
            places.push(("database", std::fs::read(file.path()).unwrap()));
        }
    }
    for (place, bytes) in &places {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in the {place}");
        }
    }
    let hashes: Vec<&Value> = trail["items"].as_array().unwrap().iter().filter(|row| row.to_string().contains("argon2")).collect();
    assert!(hashes.is_empty(), "{hashes:?}");
}

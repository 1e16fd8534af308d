//! Clients that come over TCP, with a cookie or a token; and a clock that a test can set forward.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, Request, header},
};
use berth_server::{
    config::{Listen, Tls},
    domain::Clock,
    http::{Certificate, Front, Remote, serve_tcp},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{ROOT, Server};

thread_local! {
    /// Each test has a thread of its own, on which its server runs too.
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

pub const CLOCK: Clock = Clock { now: || (Clock::SYSTEM.now)() + AHEAD.get(), id: uuid::Uuid::now_v7 };

/// Sets the clock of the server forward.
pub fn later(seconds: i64) {
    AHEAD.set(AHEAD.get() + seconds * 1_000);
}

pub const PASSWORD: &str = "tall green mug 7";
pub const CLIENT: &str = "192.0.2.1";

/// What a client proves itself with.
#[derive(Clone, Debug)]
pub enum Credential {
    None,
    Cookie(String),
    Bearer(String),
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Status and code in one.
    pub fn is(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.body);
    }

    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.body);
        self.body
    }

    /// The secret of the cookie that was set.
    pub fn cookie(&self) -> Credential {
        let text = self.headers[header::SET_COOKIE].to_str().unwrap();
        let secret = text.strip_prefix("__Host-berth=").unwrap().split(';').next().unwrap();
        Credential::Cookie(secret.to_owned())
    }
}

impl Server {
    /// One request over TCP, as a browser or program at [`CLIENT`].
    pub async fn ask(&self, who: &Credential, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.ask_with(who, CLIENT, &[], method, path, body).await
    }

    pub async fn ask_with(
        &self,
        who: &Credential,
        from: &str,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let remote = Remote { address: from.parse::<IpAddr>().unwrap(), secure: false, uid: None };
        let mut request = Request::builder().method(method).uri(path).extension(remote);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header(header::HOST, "localhost:8470");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request = match who {
            Credential::None => request,
            Credential::Cookie(secret) => request.header(header::COOKIE, format!("__Host-berth={secret}")),
            Credential::Bearer(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        };
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.answer(request.unwrap()).await
    }

    /// The answer; of a stream that has no end, its head.
    pub async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        if parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream") {
            return Answer { status: parts.status.as_u16(), headers: parts.headers, body: Value::Null };
        }
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Makes an administrator with [`PASSWORD`].
    pub async fn administrator(&self, name: &str, role: &str) -> Value {
        let new = json!({ "name": name, "role": role, "password": PASSWORD });
        let (status, made) = self.send(ROOT, "POST", "/api/v1/admins", Some(new)).await;
        assert_eq!(status, 201, "{made}");
        made
    }

    pub async fn try_sign_in(&self, name: &str, password: &str) -> Answer {
        self.ask(&Credential::None, "POST", "/api/v1/sessions", Some(json!({ "name": name, "password": password }))).await
    }

    pub async fn sign_in(&self, name: &str) -> Credential {
        let answer = self.try_sign_in(name, PASSWORD).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.cookie()
    }

    /// The secret of a one-time link of this host account.
    pub async fn link(&self, uid: u32) -> String {
        self.listening.at("http://127.0.0.1:8470".to_owned(), None);
        let (status, link) = self.send(uid, "POST", "/api/v1/sessions/links", None).await;
        assert_eq!(status, 201, "{link}");
        link["url"].as_str().unwrap().strip_prefix("http://127.0.0.1:8470/#link=").unwrap().to_owned()
    }

    pub async fn follow(&self, link: &str) -> Answer {
        self.ask(&Credential::None, "POST", "/api/v1/sessions", Some(json!({ "link": link }))).await
    }

    /// A new API token of whoever has the credential: its id and itself.
    pub async fn token(&self, who: &Credential, scope: &str) -> (String, Credential) {
        let made = self.ask(who, "POST", "/api/v1/tokens", Some(json!({ "name": "test", "scope": scope }))).await.ok();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["token"]["id"]), Credential::Bearer(text(&made["secret"])))
    }

    pub async fn exchange(&self, token: &Credential) -> Answer {
        self.ask(token, "POST", "/api/v1/tokens/exchange", None).await
    }

    /// A new access token for an API token.
    pub async fn access(&self, token: &Credential) -> Credential {
        let got = self.exchange(token).await.ok();
        Credential::Bearer(got["access_token"].as_str().unwrap().to_owned())
    }

    pub async fn me(&self, who: &Credential) -> Answer {
        self.ask(who, "GET", "/api/v1/me", None).await
    }

    /// Listens on a free port of loopback; with TLS, its certificate too.
    pub async fn listen(&self, tls: Tls) -> (SocketAddr, Option<Arc<Certificate>>) {
        let listen = Listen { tls, address: "127.0.0.1:0".to_owned(), ..Listen::default() };
        let certificate = Certificate::open(&listen, &self.directory.path().join("tls"), &Clock::SYSTEM).unwrap();
        let listening = Arc::clone(&self.listening);
        let front = Front { address: listen.socket_address().unwrap(), listen, certificate: certificate.clone(), listening };
        let life = &self.life;
        life.tasks.spawn(serve_tcp(front, self.router.clone(), life.tasks.clone(), life.soft.clone(), life.hard.clone()));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(url) = self.listening.url() {
                return (url.rsplit('/').next().unwrap().parse().unwrap(), certificate);
            }
            assert!(tokio::time::Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

//! Malformed, huge, slow and concurrent requests at every endpoint: no 5xx, no growth, no panic.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{Request, header},
};
use berth_server::http::{PeerUid, openapi};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use support::{DAEMON, ROOT, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Method and path of every operation, its parameters filled in with `part`.
fn operations(part: &str) -> Vec<(String, String)> {
    let document = openapi();
    let paths = document["paths"].as_object().unwrap().clone();
    let filled =
        |path: &str| path.split('/').map(|segment| if segment.starts_with('{') { part } else { segment }).collect::<Vec<_>>().join("/");
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect::<Vec<_>>();
        methods.into_iter().map(move |method| (method, filled(path)))
    });
    // A stream of events has no end; it has tests of its own.
    all.filter(|(_, path)| !path.ends_with("/events")).collect()
}

fn request(uid: u32, method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).extension(PeerUid(uid)).header(header::CONTENT_TYPE, "application/json")
}

/// Refused with a problem, or done; never a failure of the server.
fn check(what: &str, status: u16, answer: &Value) {
    assert!(status < 500, "{what}: {status} {answer}");
    if status >= 400 {
        assert!(answer["code"].is_string() && answer["status"] == status, "{what}: {status} {answer}");
    }
}

#[tokio::test]
async fn s06_malformed_and_huge_requests_at_every_endpoint_are_refused() {
    let server = Server::start().await;
    let deep = "[".repeat(100_000);
    let long = format!("{{\"user\":\"{}\"}}", "a".repeat(300_000));
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"x\"",
        b"\xff\xfe\x00",
        br#"{"user":null,"name":1e999,"reason":{},"argv":"x"}"#,
        deep.as_bytes(),
        long.as_bytes(),
    ];
    let parts =
        ["alice", "%00", "%2e%2e%2f%2e%2e", "%F0%9F%A6%80", "x%0d%0ay", &"a".repeat(5_000), "' OR 1=1 --".replace(' ', "%20").as_str()]
            .map(str::to_owned);
    for part in &parts {
        for (method, path) in operations(part) {
            for (number, body) in bodies.iter().enumerate() {
                // One body for every odd path is enough.
                if part != "alice" && number > 1 {
                    continue;
                }
                for uid in [ROOT, DAEMON] {
                    let body = Body::from(Bytes::copy_from_slice(body));
                    let (status, answer) = server.raw(request(uid, &method, &path).body(body).unwrap()).await;
                    check(&format!("{method} {} body {number} as {uid}", &path[..path.len().min(80)]), status, &answer);
                }
            }
        }
    }
    for query in [
        "?limit=-1",
        "?limit=99999999999999999999",
        "?cursor=%00",
        "?cursor=%FF",
        "?x=1",
        "?user=%00&user=b",
        "?since=x",
        "?&&&=",
        "?sort=;--",
    ] {
        for (method, path) in operations("alice").iter().filter(|(method, _)| method == "GET") {
            let (status, answer) = server.raw(request(ROOT, method, &format!("{path}{query}")).body(Body::empty()).unwrap()).await;
            check(&format!("{path}{query}"), status, &answer);
        }
    }
    for name in ["if-match", "if-none-match", "idempotency-key", "last-event-id", "content-type", "authorization", "x-request-id"] {
        for value in [&b""[..], b"\xff", b"\"", b"W/", &[b'a'; 5_000]] {
            let request = request(ROOT, "PATCH", "/api/v1/berths/alice").header(name, value);
            let (status, answer) = server.raw(request.body(Body::from("{}")).unwrap()).await;
            check(&format!("{name}: {value:?}"), status, &answer);
        }
    }
    assert_eq!(server.get("/readyz").await["status"], "ready");
}

#[tokio::test]
async fn s06_a_body_that_never_comes_or_never_ends_is_given_up() {
    let server = Server::start().await;
    let endless = || stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 64 * 1024])));
    for key in [None, Some("k")] {
        let mut request = request(ROOT, "POST", "/api/v1/berths");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (status, answer) = server.raw(request.body(Body::from_stream(endless())).unwrap()).await;
        assert_eq!((status, answer["code"].as_str()), (413, Some("body_too_large")));
    }
    tokio::time::pause();
    let never = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"{")) }).chain(stream::pending());
    let (status, answer) = server.raw(request(ROOT, "POST", "/api/v1/berths").body(Body::from_stream(never)).unwrap()).await;
    assert_eq!((status, answer["code"].as_str()), (408, Some("slow_body")));
}

/// Over the real listener: heads that do not end, and more connections than one user may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_slow_heads_and_many_connections_keep_nobody_out() {
    let server = Server::start().await;
    let path = server.listen_really();
    let mut held = Vec::new();
    // Fewer than one user may have.
    for _ in 0..40 {
        let Ok(mut stream) = UnixStream::connect(&path).await else { break };
        let _ = stream.write_all(b"GET /api/v1/berths HTTP/1.1\r\nX-Slow: ").await;
        held.push(stream);
    }
    let mut quick = UnixStream::connect(&path).await.unwrap();
    quick.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), quick.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for garbage in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[b'A'; 200_000]]
    {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(server.get("/healthz").await["status"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_the_same_writes_at_once_end_in_order_and_nothing_grows() {
    let server = Server::start().await;
    let users: Vec<String> = (0..10).map(|number| format!("user{number}")).collect();
    let tasks = users.iter().flat_map(|user| (0..8).map(move |number| (user.clone(), number)));
    let sent = tasks.map(|(user, number)| {
        let (method, path, body) = match number {
            0..=2 => ("POST", "/api/v1/berths".to_owned(), Some(json!({ "user": user }))),
            3 => ("PATCH", format!("/api/v1/berths/{user}"), Some(json!({ "pids": 600 }))),
            4 => ("POST", format!("/api/v1/berths/{user}/stop"), None),
            5 => ("POST", format!("/api/v1/berths/{user}/restart"), None),
            6 => ("DELETE", format!("/api/v1/berths/{user}"), None),
            _ => ("GET", "/api/v1/berths?sort=memory&order=desc".to_owned(), None),
        };
        let server = &server;
        async move {
            let (status, answer) = server.send(ROOT, method, &path, body).await;
            check(&format!("{method} {path}"), status, &answer);
        }
    });
    stream::iter(sent).for_each_concurrent(40, |sent| sent).await;
    // All of it comes to an end: no operation stays open.
    server.until("/api/v1/operations?state=pending", |list| list["items"].as_array().is_some_and(Vec::is_empty)).await;
    server.until("/api/v1/operations?state=running", |list| list["items"].as_array().is_some_and(Vec::is_empty)).await;
}

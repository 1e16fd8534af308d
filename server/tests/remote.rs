//! Over a real TCP connection: TLS, the command line with a token, a terminal, and clients that mean harm.

#![forbid(unsafe_code)]

mod support;

use std::{path::Path, time::Duration};

use berth_server::config::Tls;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::{
    BIN, ROOT, Server,
    browser::Credential,
    program::{Berth, Ran, program},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

async fn run(arguments: &[&str]) -> Ran {
    let output = Command::new(program()).args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(30), output).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn keep(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn with_berth() -> Server {
    let server = Server::start().await;
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "bin", "allow_system": true }))).await;
    server.end_of(accepted).await;
    server
}

#[tokio::test]
async fn the_command_line_reaches_another_host_with_a_token_and_the_right_certificate_alone() {
    let server = with_berth().await;
    let root = Berth(server.listen_as(ROOT));
    let (address, certificate) = server.listen(Tls::SelfSigned).await;
    let fingerprint = certificate.unwrap().fingerprint();
    let created = root.run(&["token", "create", "--name", "ci", "--scope", "operate", "--expires", "1h", "--json"]).await.json();
    let directory = tempfile::tempdir().unwrap();
    let token = keep(directory.path(), "token", &format!("{}\n", created["secret"].as_str().unwrap()));
    let (url, other) = (format!("https://{address}"), "ab".repeat(32));
    let good = ["--url", &url, "--token-file", &token, "--fingerprint", &fingerprint];
    let with = |more: &[&'static str]| [&good[..], more].concat();

    let list = run(&with(&["list", "--json"])).await.json();
    assert_eq!(list["items"][0]["user"], "bin", "{list}");
    assert_eq!(run(&with(&["stop", "bin"])).await.code, 0);
    let refused = run(&with(&["profile", "create", "mine", "--json"])).await;
    assert_eq!((refused.code, refused.problem()["code"].as_str()), (4, Some("not_permitted")), "{}", refused.err);
    // By its own certificate as the one that is trusted, too.
    let pem = server.directory.path().join("tls/certificate.pem");
    let by_file = ["--url", &url, "--token-file", &token, "--ca-file", pem.to_str().unwrap(), "list"];
    run(&by_file).await.ok();

    for wrong in [
        &["--url", &url, "--token-file", &token, "--fingerprint", &other, "list", "--json"][..],
        &["--url", &url, "--token-file", &token, "list", "--json"],
    ] {
        let refused = run(wrong).await;
        assert_eq!((refused.code, refused.problem()["code"].as_str()), (6, Some("service_unreachable")), "{}", refused.err);
    }
    let nobody = keep(directory.path(), "nobody", "berth_nothing\n");
    let refused = run(&["--url", &url, "--token-file", &nobody, "--fingerprint", &fingerprint, "list", "--json"]).await;
    assert_eq!((refused.code, refused.problem()["code"].as_str()), (4, Some("invalid_token")), "{}", refused.err);
    for usage in
        [&["--url", &url, "list"][..], &["--url", "http://192.0.2.1", "--token-file", &token, "list"], &with(&["status"]), &with(&["env"])]
    {
        assert_eq!(run(usage).await.code, 2, "{usage:?}");
    }
    let id = created["token"]["id"].as_str().unwrap();
    root.run(&["token", "revoke", id]).await.ok();
    assert_eq!(run(&with(&["list"])).await.code, 4);
}

#[tokio::test]
async fn the_command_line_manages_accounts() {
    let server = Server::start().await;
    let root = Berth(server.listen_as(ROOT));
    let made = root.fed(&["admin", "create", "carol", "--role", "operator", "--host-user", "daemon"], b"tall green mug 7\n").await.ok();
    assert_eq!(made, "carol is operator and can sign in; the host account daemon has the same role.\n");
    let weak = root.fed(&["admin", "create", "dora", "--role", "admin", "--json"], b"password1234\n").await;
    assert_eq!((weak.code, weak.problem()["code"].as_str()), (2, Some("weak_password")), "{}", weak.err);
    assert_eq!(root.fed(&["admin", "create", "dora", "--role", "admin"], b"").await.code, 2);
    let cookie = server.sign_in("carol").await;
    let listed = root.run(&["session", "list", "--all", "--json"]).await.json();
    assert_eq!(listed["items"][0]["account"], "admin:carol");
    assert_eq!(
        root.run(&["admin", "set-role", "carol", "auditor"]).await.ok(),
        "carol is auditor and can sign in; the host account daemon has the same role.\n"
    );
    assert_eq!(server.me(&cookie).await.ok()["role"], "auditor");
    root.run(&["admin", "untie", "carol"]).await.ok();
    root.fed(&["admin", "passwd", "carol"], b"short grey cup 8!\n").await.ok();
    server.me(&cookie).await.is(401, "session_ended");
    assert_eq!(root.run(&["admin", "disable", "carol"]).await.ok(), "carol is auditor and is disabled.\n");
    root.run(&["admin", "enable", "carol"]).await.ok();
    let table = root.run(&["admin", "list"]).await.ok();
    assert!(table.contains("carol") && table.contains("enabled"), "{table}");
    root.run(&["token", "rotate-keys"]).await.ok();
    root.run(&["admin", "delete", "carol"]).await.ok();
    assert_eq!(root.run(&["admin", "delete", "carol"]).await.code, 3);
    let no_listener = root.run(&["webui", "--json"]).await;
    assert_eq!((no_listener.code, no_listener.problem()["code"].as_str()), (5, Some("no_listener")));
    let (address, _) = server.listen(Tls::None).await;
    let link = root.run(&["webui"]).await.ok();
    let secret = link.trim().strip_prefix(&format!("http://{address}/#link=")).unwrap().to_owned();
    assert_eq!(server.follow(&secret).await.status, 201);
    let doctor = root.run(&["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&doctor.out).unwrap();
    let line = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "listener").unwrap();
    assert_eq!((line["level"].as_str(), line["detail"].as_str().unwrap()), (Some("ok"), format!("http://{address}").as_str()));
}

#[tokio::test]
async fn a_terminal_carries_both_ways_tells_the_end_and_ends_with_the_session() {
    let server = with_berth().await;
    let (address, _) = server.listen(Tls::None).await;
    let cookie = server.follow(&server.link(BIN).await).await.cookie();
    // The link named another address; browsers come to this one.
    let Credential::Cookie(secret) = &cookie else { panic!() };
    let open = |origin: String| {
        let mut request = format!("ws://{address}/api/v1/berths/bin/terminal?columns=100&rows=30").into_client_request().unwrap();
        request.headers_mut().insert("cookie", format!("__Host-berth={secret}").parse().unwrap());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        async move { tokio_tungstenite::client_async(request, TcpStream::connect(address).await.unwrap()).await }
    };
    let refused = open("http://evil.example.org".to_owned()).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    let (mut socket, _) = open(format!("http://{address}")).await.unwrap();
    let next = async |socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>| loop {
        match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
            Some(Ok(Message::Binary(bytes))) => return String::from_utf8(bytes.to_vec()).unwrap(),
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(Message::Close(_))) | None => return "closed".to_owned(),
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
        }
    };
    socket.send(Message::binary("ls\n")).await.unwrap();
    assert_eq!(next(&mut socket).await, "ls\n");
    socket.send(Message::text(r#"{"resize":{"columns":256,"rows":3}}"#)).await.unwrap();
    assert_eq!(next(&mut socket).await, "[1, 0, 0, 3]");
    socket.send(Message::text("nonsense")).await.unwrap();
    socket.send(Message::binary(vec![4])).await.unwrap();
    assert_eq!(next(&mut socket).await, r#"{"exit":7}"#);
    assert_eq!(next(&mut socket).await, "closed");

    let (mut socket, _) = open(format!("http://{address}")).await.unwrap();
    socket.send(Message::binary("still here")).await.unwrap();
    assert_eq!(next(&mut socket).await, "still here");
    assert_eq!(server.ask(&cookie, "DELETE", "/api/v1/sessions/current", None).await.status, 204);
    let last: Value = serde_json::from_str(&next(&mut socket).await).unwrap();
    assert_eq!(last["error"]["code"], "session_ended");
    assert_eq!(next(&mut socket).await, "closed");
}

#[tokio::test]
async fn s06_slow_and_many_connections_over_tcp_keep_nobody_out_for_long() {
    let server = Server::start().await;
    let (address, _) = server.listen(Tls::None).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A head that never ends.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx:").await;
        held.push(stream);
    }
    // What is too much was closed at once, and the unix socket has places of its own.
    let mut closed = 0;
    for stream in held.iter_mut().rev().take(80) {
        let mut byte = [0];
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut byte)).await {
            closed += 1;
        }
    }
    assert_eq!(closed, 80);
    let root = Berth(server.listen_as(ROOT));
    root.run(&["list"]).await.ok();
    // The others lose their places when the time for a head is over.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(25);
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        let mut answer = String::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no place became free");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // A head beyond all bounds is refused, not read.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(200_000)).as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
}

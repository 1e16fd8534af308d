//! How the berths of a profile join the host.

#![forbid(unsafe_code)]

mod support;

use serde_json::json;
use support::{ROOT, Server};

const DEFAULT: &str = "/api/v1/profiles/default";

#[tokio::test]
async fn profiles_begin_with_the_nodes_own_defaults() {
    let server = Server::start().await;
    for profile in ["default", "student", "developer"] {
        let policy = server.get(&format!("/api/v1/profiles/{profile}")).await["policy"].clone();
        assert_eq!(
            policy,
            json!({ "home": "rw", "paths": [], "ports": { "first": 1024, "last": 65535 }, "ports_open_to": "user",
                    "freeze_after": 900, "stop_after": 43200, "egress": "internet",
                    "restart": "on_failure" })
        );
    }
    server.assign("alice").await;
    assert_eq!(server.node.inner.lock().unwrap().asked["alice"].policy, berth_protocol::Policy::default());
}

#[tokio::test]
async fn a_change_reaches_every_berth_of_the_profile_and_leaves_a_row() {
    let server = Server::start().await;
    server.assign("alice").await;
    let change = json!({ "home": "ro", "paths": [{ "path": "/data", "read_only": true }], "ports": null, "ports_open_to": "host",
                         "freeze_after": 60, "stop_after": null, "egress": { "list": ["10.0.0.0/8", "192.0.2.7/32"] }, "restart": "never" });
    let (status, changed) = server.send(ROOT, "PATCH", DEFAULT, Some(json!({ "policy": change }))).await;
    assert_eq!((status, &changed["policy"]), (200, &change), "{changed}");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
    let asked = loop {
        let asked = server.node.inner.lock().unwrap().asked["alice"].policy.clone();
        if asked.home == berth_protocol::HomeAccess::Ro {
            break asked;
        }
        assert!(tokio::time::Instant::now() < deadline, "{asked:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(asked.paths, [berth_protocol::SharedPath { path: "/data".to_owned(), read_only: true }]);
    assert_eq!(asked.ports, berth_protocol::Ports { range: None, open_to: berth_protocol::OpenTo::Host });
    assert_eq!(asked.egress, berth_protocol::Egress::List { cidrs: vec!["10.0.0.0/8".to_owned(), "192.0.2.7/32".to_owned()] });
    assert_eq!(asked.restart, berth_protocol::Restart::Never);
    assert_eq!(asked.idle, berth_protocol::Idle { freeze_after: Some(60), stop_after: None });
    assert_eq!(server.get("/api/v1/berths/alice").await["policy"], change);
    let row = server.get("/api/v1/audit?limit=1").await["items"][0].clone();
    assert_eq!((&row["action"], &row["details"]["before"]["policy"]["home"]), (&json!("change_profile"), &json!("rw")));
    // What is left out stays; a new profile begins as the default one.
    let (_, changed) = server.send(ROOT, "PATCH", DEFAULT, Some(json!({ "policy": { "stop_after": 3600 } }))).await;
    assert_eq!((&changed["policy"]["home"], &changed["policy"]["stop_after"]), (&json!("ro"), &json!(3600)));
    let (status, made) = server.send(ROOT, "POST", "/api/v1/profiles", Some(json!({ "name": "lab", "policy": { "home": "none" } }))).await;
    assert_eq!((status, &made["policy"]["home"], &made["policy"]["freeze_after"]), (201, &json!("none"), &json!(60)));
    assert_eq!(server.get("/api/v1/profiles/lab").await["policy"], made["policy"]);
}

#[tokio::test]
async fn policies_that_no_host_could_follow_are_refused_with_field_value_and_limit() {
    let server = Server::start().await;
    let before = server.get(DEFAULT).await;
    for (policy, status, part) in [
        (json!({ "paths": [{ "path": "data" }] }), 422, "\"data\" is not absolute"),
        (json!({ "paths": [{ "path": "/a/../b" }] }), 422, "not clean"),
        (json!({ "paths": [{ "path": "/a" }, { "path": "/a", "read_only": true }] }), 422, "listed twice"),
        (json!({ "ports": { "first": 80, "last": 90 } }), 422, "ports begin at 80, the least is 1024"),
        (json!({ "ports": { "first": 2000, "last": 1999 } }), 422, "end before they begin"),
        (json!({ "freeze_after": 9 }), 422, "freeze_after is 9 s, the least is 10 s"),
        (json!({ "stop_after": 4_000_000_000_u32 }), 422, "stop_after is 4000000000 s, the most is"),
        (json!({ "egress": { "list": ["10.0.0.0/33"] } }), 422, "\"10.0.0.0/33\" is no IPv4 network"),
        (json!({ "egress": { "list": ["10.0.0.1/8"] } }), 422, "the network is 10.0.0.0/8"),
        (json!({ "egress": { "list": ["::/0"] } }), 422, "is no IPv4 network"),
        (json!({ "egress": { "list": [] } }), 422, "egress lists no network"),
        (json!({ "egress": { "list": vec!["10.0.0.0/8"; 65] } }), 422, "egress lists 65 networks, the most is 64"),
        (json!({ "egress": "some" }), 400, "`all`, `internet`, `none`, `list`"),
        (json!({ "home": "yes" }), 400, "`rw`, `ro`, `none`"),
        (json!({ "open": 1 }), 400, "open"),
    ] {
        let (got, answer) = server.send(ROOT, "PATCH", DEFAULT, Some(json!({ "policy": policy }))).await;
        assert_eq!(got, status, "{policy}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(part), "{policy}: {answer}");
        assert!(status == 400 || answer["hint"].is_string(), "{answer}");
    }
    assert_eq!(server.get(DEFAULT).await, before);
}

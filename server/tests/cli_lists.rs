//! Lists and operations on the command line.

#![forbid(unsafe_code)]

mod support;

use serde_json::json;
use support::{DAEMON, ROOT, Server, program::Berth};

#[tokio::test]
async fn berth_list_is_narrowed_and_ordered() {
    let server = Server::start().await;
    for user in ["alice", "bob", "user1"] {
        server.assign(user).await;
    }
    let accepted = server.send(ROOT, "POST", "/api/v1/berths/user1/stop", None).await;
    server.end_of(accepted).await;
    server.node.change("bob", |status| status.usage.as_mut().unwrap().memory_bytes = 3 << 30);
    server.until("/api/v1/berths?sort=memory&order=desc&limit=1", |list| list["items"][0]["user"] == "bob").await;
    let root = Berth(server.listen_as(ROOT));
    for (arguments, wanted) in [
        (&["list"][..], &["alice", "bob", "user1"][..]),
        (&["list", "--state", "stopped"], &["user1"]),
        (&["list", "--search", "o"], &["bob"]),
        (&["list", "--sort", "memory"], &["bob", "alice", "user1"]),
        (&["list", "--sort", "-memory"], &["user1", "alice", "bob"]),
        (&["ls", "--sort", "-user", "--state", "running"], &["bob", "alice"]),
    ] {
        let told = root.run(&[arguments, &["--json"]].concat()).await.json();
        let users: Vec<_> = told["items"].as_array().unwrap().iter().map(|berth| berth["user"].as_str().unwrap()).collect();
        assert_eq!(users, wanted, "{arguments:?}");
    }
    assert!(root.run(&["list", "--profile", "none"]).await.ok().contains("none of these"));
    assert_eq!(root.run(&["list", "--state", "asleep"]).await.code, 2);
}

#[tokio::test]
async fn operations_are_listed_shown_waited_for_and_cancelled() {
    let server = Server::start().await;
    let root = Berth(server.listen_as(ROOT));
    let made = server.send(ROOT, "POST", "/api/v1/berths", Some(json!({ "user": "alice" }))).await;
    let id = server.end_of(made).await["id"].as_str().unwrap().to_owned();
    let listed = root.run(&["operations", "list", "--json", "--kind", "berth_create", "--state", "succeeded"]).await.json();
    assert_eq!(listed["items"][0]["id"], id.as_str());
    assert!(root.run(&["operations", "list", "--subject", "bob"]).await.ok().contains("There are none."));
    assert!(root.run(&["operations", "ls"]).await.ok().contains("berth_create"));
    assert!(root.run(&["operations", "show", &id]).await.ok().contains("succeeded"));
    assert_eq!(root.run(&["operations", "wait", &id, "--json"]).await.json()["state"], "succeeded");
    let ended = root.run(&["operations", "cancel", &id, "--json"]).await;
    assert_eq!((ended.code, ended.problem()["code"].as_str()), (5, Some("operation_finished")));

    server.node.inner.lock().unwrap().hangs = true;
    let (_, accepted) = server.send(ROOT, "POST", "/api/v1/images", Some(json!({ "name": "slow" }))).await;
    let slow = accepted["operation"]["id"].as_str().unwrap().to_owned();
    assert_eq!(root.run(&["operations", "wait", &slow, "--timeout", "1"]).await.code, 7);
    assert!(root.run(&["operations", "cancel", &slow]).await.ok().contains("is cancelled"));
    let waited = root.run(&["operations", "wait", &slow, "--json"]).await;
    assert_eq!((waited.code, waited.problem()["code"].as_str()), (5, Some("cancelled")));
    // For another user there are none of these.
    let daemon = Berth(server.listen_as(DAEMON));
    assert_eq!(daemon.run(&["operations", "list", "--json"]).await.json()["items"], json!([]));
    assert_eq!(daemon.run(&["operations", "show", &id]).await.code, 3);
}

//! The program `berth` as people run it, against a server in this process over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use std::process::Stdio;

use serde_json::Value;
use support::{
    DAEMON, ROOT, Server, problem,
    program::{Berth, program},
};
use tokio::process::Command;

#[tokio::test]
async fn from_assign_to_delete() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    let said = berth.run(&["list"]).await.ok();
    assert_eq!(said, "There are no berths. To make one: berth assign USER\n");

    let line = ["assign", "alice", "--cpus", "1.5", "--memory", "4g", "--pids-limit", "512", "--disk", "20g"];
    let said = berth.run(&line).await.ok();
    assert!(said.contains("alice has a berth: 1.5 CPUs, 4 GiB memory, 512 processes, 20 GiB disk.\n"), "{said}");
    assert!(said.contains("eval \"$(berth env)\""), "{said}");

    let table = berth.run(&["ls"]).await.ok();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["USER", "STATE", "CPUS", "MEMORY", "DISK", "PIDS", "PROFILE", "IMAGE", "ADDRESS"]);
    assert_eq!(lines[1][..3], ["alice", "running", "1.5"]);
    assert!(!table.contains('\x1b'), "colours belong to terminals: {table:?}");

    let shown = berth.run(&["show", "alice", "--json"]).await.json();
    assert_eq!((shown["state"].as_str(), shown["limits"]["memory_bytes"].as_u64()), (Some("running"), Some(4 << 30)));
    assert!(
        berth
            .run(&["show", "alice"])
            .await
            .ok()
            .lines()
            .any(|line| line.starts_with("socket ") && line.ends_with(" /run/berth/users/1005/docker.sock"))
    );
    assert_eq!(berth.run(&["env", "alice"]).await.ok(), "export DOCKER_HOST=unix:///run/berth/users/1005/docker.sock\n");
    let fish = berth.run(&["env", "alice", "--shell", "fish"]).await.ok();
    assert_eq!(fish, "set -gx DOCKER_HOST unix:///run/berth/users/1005/docker.sock\n");

    assert_eq!(
        berth.run(&["set", "alice", "--cpus", "profile", "--pids-limit", "100"]).await.ok(),
        "alice has 2 CPUs, 4 GiB memory, 100 processes, 20 GiB disk.\n"
    );
    assert_eq!(berth.run(&["stop", "alice"]).await.ok(), "The berth of alice is stopped.\n");
    assert_eq!(berth.run(&["start", "alice"]).await.ok(), "The berth of alice runs.\n");
    let done = berth.run(&["restart", "alice", "--json"]).await.json();
    assert_eq!(done["operation"]["state"], "succeeded");

    let refused = berth.run(&["delete", "alice"]).await;
    assert_eq!((refused.code, refused.err.contains("--yes")), (2, true), "{}", refused.err);
    assert_eq!(berth.run(&["rm", "alice", "--yes"]).await.ok(), "The berth of alice is deleted.\n");
    assert_eq!(berth.run(&["list", "--json"]).await.json(), serde_json::json!({ "items": [] }));
}

#[tokio::test]
async fn failures_have_their_exit_codes_and_one_problem_document() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "bob"]).await.ok();
    for (line, code, name) in [
        (&["assign", "carol"][..], 3, "user_not_found"),
        (&["assign", "root"], 5, "root_not_allowed"),
        (&["assign", "daemon"], 5, "system_account"),
        (&["assign", "bob"], 5, "berth_exists"),
        (&["assign", "alice", "--disk", "100m"], 5, "limit_too_low"),
        (&["assign", "alice", "--disk", "1t"], 5, "disk_overcommitted"),
        (&["assign", "../etc"], 2, "invalid_user_name"),
        (&["show", "alice"], 3, "berth_not_found"),
        (&["show"], 2, "usage"),
        (&["set", "bob"], 2, "usage"),
        (&["image", "rm", "gone"], 3, "image_not_found"),
        (&["profile", "show", "gone"], 3, "profile_not_found"),
        (&["exec", "alice", "--", "true"], 125, "berth_not_found"),
        (&["exec", "-t", "bob", "true"], 125, "usage"),
    ] {
        let line: Vec<_> = ["--json"].iter().chain(line).copied().collect();
        if nix::unistd::geteuid().is_root() || line != ["--json", "show"] {
            let ran = berth.run(&line).await;
            assert_eq!((ran.code, ran.problem()["code"].as_str()), (code, Some(name)), "{line:?}: {}", ran.err);
            assert_eq!(ran.out, "");
        }
    }
    assert_eq!(berth.run(&["assign", "alice", "--disk", "x"]).await.code, 2);
    assert_eq!(berth.run(&["moor"]).await.code, 2);
    server.node.refuse(500, problem("start_failed", "the berth did not start"));
    let ran = berth.run(&["restart", "bob"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (1, "berth: the berth did not start\n"));

    let user = Berth(server.listen_as(DAEMON));
    let ran = user.run(&["image", "list"]).await;
    assert_eq!((ran.code, ran.err.contains("hint: ")), (4, true), "{}", ran.err);
    let ran = Berth("/nonexistent.sock".into()).run(&["list"]).await;
    assert_eq!((ran.code, ran.err.contains("/nonexistent.sock")), (6, true), "{}", ran.err);
}

#[tokio::test]
async fn warnings_go_to_stderr_and_into_the_document() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    let ran = berth.run(&["assign", "alice", "--cpus", "9"]).await;
    assert!(ran.err.contains("warning: all berths together may use 9 CPUs, the host has 4"), "{}", ran.err);
    ran.ok();
    let document = berth.run(&["assign", "bob", "--json"]).await.json();
    assert_eq!(document["warnings"][0]["code"], "cpu_overcommitted");
    assert_eq!(document["berth"]["user"], "bob");
}

#[tokio::test]
async fn exec_passes_input_output_and_status_on() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "alice"]).await.ok();
    let text = "a line\n".repeat(50_000);
    assert_eq!(berth.fed(&["exec", "-i", "alice", "cat"], text.as_bytes()).await.ok(), text);
    assert_eq!(berth.fed(&["exec", "alice", "cat"], b"not passed on").await.ok(), "");
    assert_eq!(berth.run(&["exec", "alice", "--", "exit", "42"]).await.code, 42);
    assert_eq!(berth.run(&["exec", "alice", "-u", "1000", "size"]).await.err, "false None");
    let ran = berth.run(&["exec", "alice", "nothing"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (125, "berth: nothing cannot be run\n"));
    // A berth that is stopped is started first.
    berth.run(&["stop", "alice"]).await.ok();
    assert_eq!(berth.run(&["exec", "alice", "exit", "7"]).await.code, 7);
    assert_eq!(berth.run(&["logs", "alice", "--tail", "5"]).await.ok(), "tail Some(\"5\") follow Some(\"false\")\n");
}

#[tokio::test]
async fn suspend_and_resume_one_and_all() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    for user in ["alice", "bob"] {
        berth.run(&["assign", user]).await.ok();
    }
    assert_eq!(berth.run(&["suspend", "alice"]).await.code, 2, "a reason is needed");
    assert_eq!(berth.run(&["suspend", "--reason", "x"]).await.code, 2, "somebody must be named");
    assert_eq!(berth.run(&["suspend", "alice", "--all", "--reason", "x"]).await.code, 2);
    assert_eq!(berth.run(&["suspend", "alice", "--reason", "mining"]).await.ok(), "The berth of alice is suspended.\n");
    let shown = berth.run(&["show", "alice"]).await.ok();
    assert!(shown.contains("suspended by root for ") && shown.contains(": mining\n"), "{shown}");
    let ran = berth.run(&["start", "alice"]).await;
    assert_eq!((ran.code, ran.err.contains("mining"), ran.err.contains("berth resume alice")), (5, true, true), "{}", ran.err);
    let said = berth.run(&["suspend", "--all", "--reason", "maintenance"]).await.ok();
    assert_eq!(said, "1 berth suspended; 1 needed no change.\n");
    assert_eq!(berth.run(&["resume", "alice"]).await.ok(), "The berth of alice is as it was.\n");
    let done = berth.run(&["resume", "--all", "--json"]).await.json();
    assert_eq!((done["operations"][0]["kind"].as_str(), done["unchanged"].as_u64()), (Some("berth_resume"), Some(1)));
    assert_eq!(berth.run(&["resume", "alice"]).await.code, 5);
}

#[tokio::test]
async fn a_profile_says_how_its_berths_join_the_host() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    let line = ["profile", "create", "lab", "--home", "ro", "--path", "/data:ro", "--path", "/srv", "--ports", "8000-8999"];
    berth.run(&line).await.ok();
    berth
        .run(&["profile", "set", "lab", "--ports-open-to", "host", "--freeze-after", "90s", "--stop-after", "never", "--restart", "never"])
        .await
        .ok();
    let shown = berth.run(&["profile", "show", "lab"]).await.ok();
    for part in [
        "read only; further: /data (read only), /srv\n",
        "8000-8999 at 127.0.0.1, open to every account of the host\n",
        "not started again before the next connection when it ends unasked\n",
        "frozen after 90s, stopped after never\n",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let policy = berth.run(&["profile", "set", "lab", "--no-paths", "--ports", "none", "--json"]).await.json()["policy"].clone();
    assert_eq!((&policy["paths"], &policy["ports"], &policy["home"]), (&serde_json::json!([]), &Value::Null, &serde_json::json!("ro")));
    let list = berth.run(&["profile", "list"]).await.ok();
    assert!(list.lines().any(|line| line.starts_with("lab") && line.contains("90s") && line.contains("never")), "{list}");
    for bad in [["--path", "data"], ["--ports", "80-90"], ["--freeze-after", "5s"]] {
        let ran = berth.run(&["profile", "set", "lab", bad[0], bad[1]]).await;
        assert_eq!((ran.code, ran.err.contains("hint: ")), (5, true), "{bad:?}: {}", ran.err);
    }
    assert_eq!(berth.run(&["profile", "set", "lab", "--freeze-after", "soon"]).await.code, 2);
}

#[tokio::test]
async fn a_berth_says_why_it_sleeps_and_where_its_ports_are() {
    use berth_protocol::{HostPort, PublishedPort, Sleep, State};
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "alice"]).await.ok();
    let port = |port, host| PublishedPort { protocol: "tcp".to_owned(), port, container: "we\u{1b}b".to_owned(), container_port: 80, host };
    server.node.change("alice", |status| {
        status.state = State::Frozen;
        status.sleep = Some(Sleep { since: 1, reason: "nobody used it for 15 minutes".to_owned() });
        status.running_containers = Some(0);
        status.last_used_at = Some(1);
        status.ports = vec![
            port(8080, HostPort::Open),
            port(8081, HostPort::Pending),
            port(8082, HostPort::Taken { detail: "another program has it".to_owned() }),
            port(8083, HostPort::NotAllowed { detail: "the profile allows none".to_owned() }),
        ];
        let condition = berth_protocol::Condition { kind: "PendingRestart".to_owned(), message: "later".to_owned(), since: 1 };
        status.conditions.push(condition);
    });
    server.until("/api/v1/berths/alice", |berth| berth["state"] == "frozen").await;
    let shown = berth.run(&["show", "alice"]).await.ok();
    let table: Vec<Vec<&str>> =
        shown.lines().skip_while(|line| !line.starts_with("PORT")).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(table[1], ["8080/tcp", "we\u{fffd}b:80", "open"], "{shown}");
    for part in [
        " days: nobody used it for 15 minutes\n",
        "containers  0 running\n",
        "taken: another program has it\n",
        "not allowed: the profile allows none\n",
        "next: berth restart alice\n",
        "home        read and write\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    assert_eq!(berth.run(&["list"]).await.ok().lines().count(), 2, "one line a berth");
}

/// `script` of util-linux gives the program a terminal.
#[tokio::test]
async fn a_terminal_is_passed_on_with_its_size_and_left_as_it_was() {
    let server = Server::start().await;
    let socket = server.listen_as(ROOT);
    Berth(socket.clone()).run(&["assign", "alice"]).await.ok();
    let line = format!(
        "stty cols 91 rows 31; before=$(stty -g); {} exec -t alice size; echo; echo $?; test \"$before\" = \"$(stty -g)\" && echo same",
        program().display()
    );
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env("BERTH_SOCKET", &socket).stdin(Stdio::null());
    let output = script.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("true Some((91, 31))") && text.contains("same"), "{text}");
}

#[tokio::test]
async fn a_wait_outlasts_a_node_that_is_away() {
    let mut server = Server::start().await;
    let socket = server.listen_as(ROOT);
    Berth(socket.clone()).run(&["assign", "alice"]).await.ok();
    server.stop_node().await;
    let waiting = tokio::spawn(async move { Berth(socket).run(&["stop", "alice"]).await });
    server.until("/api/v1/operations?limit=1", |page| page["items"][0]["kind"] == "berth_stop").await;
    server.start_node();
    assert_eq!(waiting.await.unwrap().ok(), "The berth of alice is stopped.\n");
}

#[tokio::test]
async fn images_and_profiles() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    let ran = berth.run(&["image", "build", "--name", "tools"]).await;
    assert!(ran.err.contains("step 150") && !ran.err.contains('\x1b'), "{}", ran.err);
    assert!(ran.ok().starts_with("The image tools is there (sha256:cdcd"));
    let said = berth.fed(&["image", "import", "-", "--name", "mine"], &vec![1; 1 << 20]).await.ok();
    assert!(said.starts_with("The image mine is there (sha256:efef"), "{said}");
    assert_eq!(server.node.inner.lock().unwrap().imported, 1 << 20);
    assert_eq!(berth.fed(&["image", "import", "-"], b"x").await.code, 2);
    assert!(berth.run(&["image", "default", "mine"]).await.ok().contains("mine"));
    assert!(berth.run(&["image", "list"]).await.ok().lines().any(|line| line.starts_with("mine") && line.contains("yes")));
    assert_eq!(berth.run(&["image", "rm", "tools"]).await.ok(), "The image tools is removed.\n");

    let said = berth.run(&["profile", "create", "lab", "--cpus", "0.5", "--memory", "512m"]).await.ok();
    assert_eq!(said, "The profile lab gives 0.5 CPUs, 512 MiB memory, 1024 processes, 10 GiB disk.\n");
    assert!(berth.run(&["profile", "set", "lab", "--disk", "2g"]).await.ok().contains("2 GiB disk"));
    assert_eq!(berth.run(&["profile", "show", "lab", "--json"]).await.json()["limits"]["disk_bytes"], 2_u64 << 30);
    assert_eq!(berth.run(&["profile", "list"]).await.ok().lines().count(), 5);
    assert_eq!(berth.run(&["profile", "rm", "lab"]).await.ok(), "The profile lab is deleted.\n");
}

#[tokio::test]
async fn doctor_ends_with_one_when_something_failed() {
    let server = Server::without_node().await;
    let ran = Berth(server.listen_as(ROOT)).run(&["doctor"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("fix:") && ran.out.contains("berth-node"), "{}", ran.out);
}

#[tokio::test]
async fn the_audit_trail_is_a_table_json_lines_or_followed() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "alice"]).await.ok();
    let id = serde_json::from_value(berth.run(&["show", "alice", "--json"]).await.json()["id"].clone()).unwrap();
    let call = |path: &str| {
        berth_protocol::CallRecord::Call(berth_protocol::Call {
            at: support::now(),
            user: "alice".to_owned(),
            uid: 1005,
            pid: 42,
            command: "docker\x1b[2J".to_owned(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            image: Some("busybox".to_owned()),
            container: None,
            status: Some(201),
            request_bytes: 1536,
            response_bytes: 88,
            duration_ms: 1500,
            outcome: berth_protocol::Outcome::Answered,
        })
    };
    server.node.append(id, [call("/v1.45/containers/create?name=x"), call("/v1.45/images/create")]);
    server.until("/api/v1/audit?kind=call", |page| page["items"].as_array().unwrap().len() == 2).await;
    let table = berth.run(&["audit", "--user", "alice", "--since", "1h"]).await.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("TIME") && lines[1].contains("create_berth") && lines.len() == 4, "{table}");
    let cells = lines[2].split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    assert_eq!(cells, "alice docker\u{fffd}[2J[42] POST /containers/create?name=x busybox 201 1.5 KiB 88 B 1.5 s");
    let document = berth.run(&["audit", "--path", "/containers", "--json"]).await.json();
    assert_eq!((document["items"].as_array().unwrap().len(), document["items"][0]["version"].as_str()), (1, Some("1.45")));
    let export = berth.run(&["audit", "--export", "--limit", "2"]).await.ok();
    let paths: Vec<Value> = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].clone()).collect();
    assert_eq!(paths, ["/images/create", "/containers/create?name=x"]);
    assert_eq!(berth.run(&["audit", "--status", "500"]).await.ok(), "There is nothing of that in the audit trail.\n");
    assert_eq!(berth.run(&["audit", "--since", "soon"]).await.code, 2);
    assert_eq!(Berth(server.listen_as(DAEMON)).run(&["audit", "--export"]).await.ok(), "");

    let mut follower = Command::new(program());
    follower.args(["audit", "--follow", "--json", "--limit", "0"]).env("BERTH_SOCKET", &berth.0);
    let mut follower = follower.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(follower.stdout.take().unwrap()));
    let adding = async {
        loop {
            server.node.append(id, [call("/v1.45/volumes/create")]);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = adding => {}
        line = lines.next_line() => {
            let record: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
            assert_eq!((record["kind"].as_str(), record["path"].as_str()), (Some("call"), Some("/volumes/create")));
        }
    }
}

//! The program `berth` as people run it, against a server in this process over a stand-in for the node.

#![forbid(unsafe_code)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use serde_json::Value;
use support::{DAEMON, ROOT, Server, problem};
use tokio::{io::AsyncWriteExt, process::Command};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The problem document on stderr.
    fn problem(&self) -> Value {
        serde_json::from_str(&self.err).unwrap_or_else(|error| panic!("{error}: {}", self.err))
    }
}

/// The program: that of BERTH_TEST_PROGRAMS, or our own, built when it is not as its sources are. It belongs to another package, which
/// cargo does not build for these tests.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(directory) = std::env::var_os("BERTH_TEST_PROGRAMS") {
            return Path::new(&directory).join("berth");
        }
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "berth-cli"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "berth-cli cannot be built");
        // target/<profile>/deps/cli-… of this test
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("berth")
    })
}

struct Berth(PathBuf);

impl Berth {
    async fn run(&self, arguments: &[&str]) -> Ran {
        self.fed(arguments, b"").await
    }

    async fn fed(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = Command::new(program())
            .args(arguments)
            .env("BERTH_SOCKET", &self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = tokio::spawn(async move { stdin.write_all(&input).await });
        let output = tokio::time::timeout(std::time::Duration::from_secs(30), child.wait_with_output()).await.unwrap().unwrap();
        // A program that reads no input closes it.
        let _ = feeding.await;
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

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

#[tokio::test]
async fn q06_every_limit_is_set_shown_and_given_back_with_dockers_words() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "alice", "--memory", "2g", "--memory-swap", "3g", "--net-egress", "100mbit", "--egress", "none"]).await.ok();
    let line = ["set", "alice", "--cpu-shares", "2048", "--memory-high", "1g", "--inodes", "100000", "--io-read-bps", "10m"];
    let said = berth
        .run(&[&line[..], &["--io-write-iops", "500", "--net-ingress", "1.5gbit", "--egress", "10.0.0.0/8,192.0.2.7"]].concat())
        .await
        .ok();
    let quota = "alice has 2 CPUs, 2 GiB memory, 1024 processes, 10 GiB disk, 1 GiB swap, weight 200, slowed from 1 GiB memory, 100000 files, \
                 10 MiB/s read, 500 operations/s writing, 100 Mbit/s out, 1.5 Gbit/s in.\n";
    assert_eq!(said, quota);
    let shown = berth.run(&["show", "alice"]).await.ok();
    for part in [
        "2, weight 200 (own)\n",
        "2 GiB (own), slowed from 1 GiB (own), swap 1 GiB (own)\n",
        "10 GiB, 100000 files (own)\n",
        "read 10 MiB/s (own), write 500 operations/s (own)\n",
        "out 100 Mbit/s (own), in 1.5 Gbit/s (own)\n",
        "only 10.0.0.0/8, 192.0.2.7/32\n",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    let asked = server.node.inner.lock().unwrap().asked["alice"].clone();
    assert_eq!((asked.limits.swap_bytes, asked.limits.network.egress_bits), (1 << 30, Some(100_000_000)));
    assert_eq!(asked.policy.egress.networks().unwrap().len(), 2);
    let line = [
        "set",
        "alice",
        "--cpu-weight",
        "profile",
        "--memory-high",
        "none",
        "--swap",
        "none",
        "--inodes",
        "profile",
        "--egress",
        "profile",
    ];
    let rest = ["--io-read-bps", "profile", "--io-write-iops", "none", "--net-egress", "profile", "--net-ingress", "profile"];
    let said = berth.run(&[&line[..], &rest].concat()).await.ok();
    assert_eq!(said, "alice has 2 CPUs, 2 GiB memory, 1024 processes, 10 GiB disk.\n");
    let shown = berth.run(&["show", "alice", "--json"]).await.json();
    assert_eq!(shown["own_limits"], serde_json::json!(["memory_bytes", "swap_bytes", "memory_high_bytes", "io_write_iops"]));

    berth.run(&["profile", "create", "lab", "--io-read-iops", "300", "--swap", "1g", "--egress", "all"]).await.ok();
    let said = berth.run(&["profile", "set", "lab", "--io-read-iops", "none", "--net-ingress", "50mbit"]).await.ok();
    assert!(said.ends_with("1 GiB swap, 50 Mbit/s in.\n"), "{said}");
    let shown = berth.run(&["profile", "show", "lab"]).await.ok();
    assert!(shown.contains("in 50 Mbit/s\n") && shown.contains("everything that the host reaches\n"), "{shown}");

    for (line, code, part) in [
        (&["--io-read-bps", "1k"][..], 5, "io_read_bps is 1 KiB/s, the least is 1 MiB/s\nhint: ask for 1 MiB/s or more"),
        (&["--memory-high", "3g"], 5, "memory_high_bytes is 3 GiB, the most is the memory of the berth, 2 GiB"),
        (&["--memory", "1g", "--memory-swap", "512m"], 2, "it counts both"),
        (&["--net-egress", "100"], 2, "write for instance 500kbit, 100mbit"),
        (&["--egress", "10.0.0.1/8"], 5, "the network is 10.0.0.0/8"),
        (&["--egress", "some"], 2, "write all, internet, none"),
        (&["--cpu-shares", "1"], 2, "write 2 to 262144"),
    ] {
        let ran = berth.run(&[&["set", "alice"], line].concat()).await;
        assert_eq!((ran.code, ran.err.contains(part)), (code, true), "{line:?}: {}", ran.err);
    }
    let help = berth.run(&["set", "--help"]).await.ok();
    assert!(help.contains("--memory-swap") && help.contains("Memory and swap together, as Docker counts them"), "{help}");
}

#[tokio::test]
async fn q06_a_refused_change_prints_the_figures_and_a_dry_run_what_waits() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "alice"]).await.ok();
    let refusal = problem("disk_below_use", "alice uses 3 GiB of the disk, more than the 2 GiB wanted");
    server.node.refuse(409, refusal.clone());
    let ran = berth.run(&["set", "alice", "--disk", "2g", "--cpus", "1"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (5, "berth: alice uses 3 GiB of the disk, more than the 2 GiB wanted\n"));
    server.node.refuse(409, refusal);
    assert_eq!(berth.run(&["set", "alice", "--disk", "2g", "--dry-run"]).await.code, 5);
    let shown = berth.run(&["show", "alice", "--json"]).await.json();
    assert_eq!((&shown["limits"]["cpu_millis"], &shown["own_limits"]), (&serde_json::json!(2000), &serde_json::json!([])));

    let said = berth.run(&["set", "alice", "--dry-run", "--disk", "20g", "--pids-limit", "100", "--egress", "all"]).await.ok();
    let lines: Vec<_> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[0], "WHAT NOW THEN APPLIES");
    for line in [
        "disk_bytes 10 GiB 20 GiB later: this kernel grows no mounted disk",
        "pids 1024 100 at once",
        "egress internet all at once",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line} in {said}");
    }
    assert_eq!(lines.len(), 4);
    let preview = berth.run(&["set", "alice", "--dry-run", "--pids-limit", "100", "--json"]).await.json();
    assert_eq!(preview["changes"], serde_json::json!([{ "field": "pids", "before": 1024, "after": 100 }]));
    let said = berth.run(&["set", "alice", "--dry-run", "--pids-limit", "1024"]).await.ok();
    assert_eq!(said, "Nothing would change: alice has that already.\n");
    assert_eq!(berth.run(&["show", "alice", "--json"]).await.json()["limits"], shown["limits"]);
    // What waits is said after the change too, with what helps.
    server.node.change("alice", |status| {
        let message = "the disk grows when the berth starts anew".to_owned();
        status.conditions.push(berth_protocol::Condition { kind: "PendingRestart".to_owned(), message, since: support::now() });
    });
    let said = berth.run(&["set", "alice", "--pids-limit", "100"]).await.ok();
    assert!(said.contains("PendingRestart: the disk grows") && said.contains("  next: berth restart alice\n"), "{said}");
}

#[tokio::test]
async fn top_shows_rates_against_limits_the_busiest_first() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    assert_eq!(berth.run(&["top", "--once"]).await.ok(), "No berth is up.\n");
    for user in ["alice", "bob"] {
        berth.run(&["assign", user, "--cpus", "1.5"]).await.ok();
    }
    let node = server.node.clone();
    // bob burns half a CPU and sends; the counters grow with the clock.
    let began = support::now();
    let growing = tokio::spawn(async move {
        loop {
            let elapsed = u64::try_from(support::now() - began).unwrap();
            let usage = berth_protocol::Usage {
                memory_bytes: 512 << 20,
                pids: 30,
                cpu_usec: elapsed * 500,
                disk_bytes: 1 << 30,
                disk: Some(berth_protocol::DiskUsage { used_bytes: 1 << 30, limit_bytes: 8 << 30, used_inodes: 1, limit_inodes: 2 }),
                io: berth_protocol::IoUsage { write_bytes: elapsed * 1000, ..Default::default() },
                network: berth_protocol::NetworkUsage { egress_bytes: elapsed * 125, ..Default::default() },
                pressure: Some(berth_protocol::Pressure {
                    cpu: berth_protocol::Stall { some_avg10: 250, ..Default::default() },
                    ..Default::default()
                }),
                ..Default::default()
            };
            node.inner.lock().unwrap().berths.get_mut("bob").unwrap().usage = Some(usage);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let table = berth.run(&["top"]).await.ok();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().join(" "), "USER CPU % MEMORY SWAP PIDS DISK READ WRITE OUT IN WAIT %");
    assert_eq!((lines.len(), lines[1].starts_with("bob "), lines[2].starts_with("alice ")), (3, true, true), "{table}");
    for part in ["512 MiB / 2 GiB", "30 / 1024", "1 GiB / 8 GiB", "2.5 / 0 / 0", "/ 150"] {
        assert!(lines[1].contains(part), "{part} in {table}");
    }
    let told = berth.run(&["top", "bob", "--json"]).await.json();
    assert_eq!(told["items"].as_array().unwrap().len(), 1);
    let bob = &told["items"][0];
    let near = |field: &str, wanted: u64| {
        let found = bob["rates"][field].as_u64().unwrap();
        assert!((wanted * 9 / 10..=wanted * 11 / 10).contains(&found), "{field} {found}, not {wanted}: {bob}");
    };
    near("cpu_millis", 500);
    near("io_write_bps", 1_000_000);
    near("network_egress_bits", 1_000_000);
    assert_eq!((&bob["user"], &bob["rates"]["io_read_bps"], &bob["limits"]["cpu_millis"]), (&"bob".into(), &0.into(), &1500.into()));
    let table = berth.run(&["top", "--sort", "user"]).await.ok();
    assert!(table.lines().nth(1).unwrap().starts_with("alice "), "{table}");
    growing.abort();
    // show reads it anew as well.
    let shown = berth.run(&["show", "bob"]).await.ok();
    assert!(
        shown.contains("512 MiB memory, 1 GiB disk of 8 GiB (1 GiB on the host), 30 processes, ") && shown.contains("2.5 % for CPU"),
        "{shown}"
    );
    assert_eq!(berth.run(&["top", "carol"]).await.code, 3);
    let user = Berth(server.listen_as(DAEMON));
    assert_eq!((user.run(&["top"]).await.ok().as_str(), user.run(&["top", "bob"]).await.code), ("No berth is up.\n", 3));
}

#[tokio::test]
async fn top_draws_on_the_terminals_other_screen_and_leaves_it_as_it_was() {
    let server = Server::start().await;
    let socket = server.listen_as(ROOT);
    Berth(socket.clone()).run(&["assign", "alice"]).await.ok();
    let line = format!("stty cols 60 rows 10; timeout --preserve-status -s INT 3 {} top -d 1; echo ended $?", program().display());
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env("BERTH_SOCKET", &socket).stdin(Stdio::null());
    let output = script.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (before, rest) = text.split_once("\x1b[?1049h").unwrap_or_else(|| panic!("{text:?}"));
    let (drawn, after) = rest.split_once("\x1b[?1049l").unwrap_or_else(|| panic!("{text:?}"));
    assert!(before.trim().is_empty() && drawn.contains("1 up, by CPU; every 1 s; Ctrl-C ends"), "{text:?}");
    let row = drawn.split(['\n', '\r']).rfind(|line| line.starts_with("alice ")).unwrap_or_else(|| panic!("{drawn:?}"));
    assert!(row.contains("0.0 / 200") && row.trim_end_matches("\x1b[K").chars().count() <= 60, "{row:?}");
    assert!(after.contains("ended 0"), "{after:?}");
}

//! Every call that comes through a user's socket is in the audit trail, once, and nothing of it that is secret.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_tests::{Berth, Host, Run, Running, User, berth::BUSYBOX, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const CANARY: &str = "canary7d1f0a9e";

/// A program of the tests, where every user may execute it.
fn program(host: &Host, name: &str, built: &str) -> PathBuf {
    let program = host.slot.dir.join(name);
    if !program.exists() {
        fs::copy(built, &program).unwrap();
    }
    program
}

/// `berth audit --export` of calls.
#[track_caller]
fn trail(host: &Host, args: &[&str]) -> Vec<Value> {
    let text = host.berth(["audit", "--kind", "call", "--export"]).args(args).ok();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for so many more answered calls.
fn more(client: &mut Running, seen: &mut Vec<String>, count: usize) {
    for _ in 0..count {
        seen.push(client.line(SOON).expect("the client goes on"));
    }
}

#[test]
fn x11_every_call_that_was_answered_is_in_the_log_once_after_kills_of_node_and_server() {
    let host = Host::start();
    let a = host.new_berth("a");
    let program = program(&host, "calls", env!("CARGO_BIN_EXE_berth-tests-calls"));
    let mut client = a.user.run(&program.to_string_lossy()).arg(a.socket()).spawn();
    let mut seen = Vec::new();
    more(&mut client, &mut seen, 500);
    for _ in 0..2 {
        host.kill_server();
        more(&mut client, &mut seen, 300);
        host.start_server();
        more(&mut client, &mut seen, 300);
        host.kill_node();
        more(&mut client, &mut seen, 300);
        host.start_node();
        more(&mut client, &mut seen, 300);
        host.kill_node();
        host.kill_server();
        more(&mut client, &mut seen, 300);
        host.start_node();
        host.start_server();
        more(&mut client, &mut seen, 300);
    }
    client.close_input();
    while let Some(line) = client.line(SOON) {
        seen.push(line);
    }
    assert_eq!(client.finish(SOON).status, 0);
    assert!(seen.len() > 4000, "{}", seen.len());
    let logged = until("all answered calls are in the trail", SOON, || {
        let mut logged: BTreeMap<String, usize> = BTreeMap::new();
        for row in trail(&host, &["--user", a.name(), "--path", "/containers/call-"]) {
            *logged.entry(row["path"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        seen.iter().all(|path| logged.contains_key(path)).then_some(logged)
    });
    assert!(logged.values().all(|count| *count == 1), "{:?}", logged.iter().find(|(_, count)| **count != 1));
    // What was fetched takes no room on the node, and with the berth the rest goes.
    let spools = host.state_dir.join("node/calls");
    until("the spool is empty", SOON, || (blocks(&spools) <= 16).then_some(()));
    a.delete().ok();
    until("no spool is left", SOON, || fs::read_dir(&spools).unwrap().next().is_none().then_some(()));
}

/// Blocks of 512 bytes below a directory.
fn blocks(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::read_dir(dir).unwrap().flatten().filter_map(|entry| entry.metadata().ok()).map(|found| found.blocks()).sum()
}

/// The first call that fits, once it is there.
#[track_caller]
fn call(host: &Host, user: &User, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(what, SOON, || trail(host, &["--user", &user.name]).into_iter().find(|row| fits(row)))
}

fn is(row: &Value, method: &str, path: &str) -> bool {
    row["method"] == method && row["path"].as_str().is_some_and(|found| found.split('?').next() == Some(path))
}

#[test]
fn x11_who_what_and_how_much_are_right_and_nothing_secret_is_anywhere() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    let secret = format!("TOKEN={CANARY}");
    let (out, id) = ("x".repeat(50_000), a.docker(&["run", "-d", "--name", "one", "-e", &secret, BUSYBOX, "sleep", "600"]).ok());
    a.docker(&["exec", "-e", &secret, "one", "sh", "-c", &format!("echo {out}")]).ok();
    a.docker(&["pull", &format!("127.0.0.1:9/nobody/nothing:{}", "v1")]).fails();
    let dockerfile = format!("FROM {BUSYBOX}\nARG TOKEN\nRUN true\n");
    let build = ["build", "--build-arg", &secret, "--label", &secret, "-t", "built", "-"];
    a.docker(&build).env("DOCKER_BUILDKIT", "0").input(dockerfile).ok();
    // Credentials in a header, in a query, and where no parser would look for them.
    let stream = program(&host, "stream", env!("CARGO_BIN_EXE_berth-tests-stream"));
    let raw = |bytes: String| -> Run { a.user.run(&stream.to_string_lossy()).arg(a.socket()).input(bytes) };
    let head = format!("Host: x\r\nX-Registry-Auth: {CANARY}\r\nAuthorization: Bearer {CANARY}\r\nConnection: close\r\n\r\n");
    raw(format!("GET /v1.41/images/json?token={CANARY}&all=1 HTTP/1.1\r\n{head}")).output();
    raw(format!("\u{1}\u{2}{CANARY}\r\n\r\n")).output();

    let create = call(&host, &a.user, "create", |row| is(row, "POST", "/containers/create") && row["status"] == 201);
    assert_eq!((create["user"].as_str(), create["uid"].as_u64()), (Some(a.name()), Some(a.user.uid.into())), "{create}");
    assert_eq!((create["command"].as_str(), create["image"].as_str()), (Some("docker"), Some(BUSYBOX)), "{create}");
    assert!(create["pid"].as_u64().unwrap() > 1 && create["outcome"] == "answered", "{create}");
    assert!(create["request_bytes"].as_u64().unwrap() > 500 && create["response_bytes"].as_u64().unwrap() > 80, "{create}");
    let start = call(&host, &a.user, "start", |row| is(row, "POST", &format!("/containers/{id}/start")));
    assert_eq!((start["status"].as_u64(), start["container"].as_str()), (Some(204), Some(id.as_str())), "{start}");
    let exec = call(&host, &a.user, "exec", |row| row["outcome"] == "upgraded" && row["path"].as_str().unwrap().starts_with("/exec/"));
    assert!(exec["response_bytes"].as_u64().unwrap() > 50_000, "{exec}");
    let pull = call(&host, &a.user, "pull", |row| is(row, "POST", "/images/create"));
    assert!(pull["image"].as_str().unwrap().contains("127.0.0.1:9/nobody/nothing"), "{pull}");
    assert!(pull["status"].as_u64().unwrap() >= 400, "{pull}");
    let build = call(&host, &a.user, "build", |row| is(row, "POST", "/build"));
    assert_eq!(build["status"], 200, "{build}");
    call(&host, &a.user, "list", |row| is(row, "GET", "/images/json") && row["command"] == "stream");
    let unparsed = call(&host, &a.user, "what is no HTTP", |row| row["outcome"] == "unparsed");
    assert_eq!(unparsed["method"], "", "{unparsed}");

    // A follower sees the next call, and a user without a role his own.
    let mut follower = host.berth_as(&a.user, ["audit", "--follow", "--json", "--path", "/volumes", "--limit", "1"]).spawn();
    let own = host.berth_as(&a.user, ["audit", "--path", "/containers/create"]).ok();
    assert!(own.contains("docker[") && own.contains("201"), "{own}");
    until("the follower tells of it", SOON, || {
        a.docker(&["volume", "ls"]).ok();
        follower.line(Duration::from_secs(1)).filter(|line| line.contains("\"/volumes"))
    });
    let b = host.user("b");
    assert_eq!(host.berth_as(&b, ["audit", "--export", "--user", a.name()]).ok(), "");

    a.docker(&["rm", "-f", "one"]).ok();
    no_canary(&a);
}

/// In database, spools and logs.
fn no_canary(a: &Berth<'_>) {
    a.host.stop_server();
    a.host.stop_node();
    let grep = |dir: &Path, excluded: &[&str]| {
        let excluded = excluded.iter().map(|name| format!("--exclude-dir={name}"));
        let found = Run::new("grep").arg("-rlaF").args(excluded).arg(CANARY).arg(dir).output();
        assert_eq!((found.status, found.stdout.as_str()), (1, ""), "in {}", dir.display());
    };
    grep(&a.host.log_dir, &[]);
    // The berth's own disk and the user's home hold what is his.
    grep(&a.host.slot.dir, &["berths", "images", "home"]);
    assert!(a.host.state_dir.starts_with(&a.host.slot.dir));
    a.host.start_node();
    a.host.start_server();
}

#[test]
fn x11_what_the_node_answers_while_nothing_runs_is_in_the_log_too() {
    let host = Host::start();
    let a = host.new_berth("a");
    host.berth(["stop", a.name()]).ok();
    host.berth(["suspend", a.name(), "--reason", "exam week"]).ok();
    let answer = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"];
    let refused = a.user.run("curl").args(answer).arg(a.socket()).arg("http://docker/v1.45/volumes?x=1").ok();
    assert_eq!(refused, "403");
    let row = call(&host, &a.user, "the refused call is in the trail", |row| is(row, "GET", "/volumes"));
    assert_eq!((row["status"].as_u64(), row["command"].as_str()), (Some(403), Some("curl")), "{row}");
    assert_eq!((row["uid"].as_u64(), row["outcome"].as_str()), (Some(a.user.uid.into()), Some("refused")), "{row}");
    // The lines of the next run follow it.
    host.berth(["resume", a.name()]).ok();
    a.docker(&["network", "ls"]).ok();
    call(&host, &a.user, "a call of the next run is in the trail", |row| is(row, "GET", "/networks") && row["status"] == 200);
    assert_eq!(trail(&host, &[]).iter().filter(|row| is(row, "GET", "/volumes")).count(), 1);
}

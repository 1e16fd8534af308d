//! Sleep: berths that nobody uses are frozen, then stopped; the next to come wakes them; an administrator's bar holds.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use berth_tests::{
    Berth, Host, Run, Running,
    berth::BUSYBOX,
    snapshot::{Scope, Snapshot},
    until,
    wait::within,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// Frozen after a second without use, never stopped.
const FREEZE: (Option<u32>, Option<u32>) = (Some(1), None);
const NEVER: (Option<u32>, Option<u32>) = (None, None);
const PING: &str = "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";

/// What the server says to the node.
#[track_caller]
fn ensure(berth: &Berth<'_>, wanted: &str, (freeze_after, stop_after): (Option<u32>, Option<u32>), suspended: Option<&str>) -> Value {
    let status = berth.status();
    let ensure = json!({
        "id": status["id"], "image": status["image"], "limits": status["limits"], "wanted": wanted, "allow_system": false,
        "policy": { "idle": { "freeze_after": freeze_after, "stop_after": stop_after } }, "suspended": suspended,
    });
    let answer = berth.host.node_api("PUT", &format!("/v1/berths/{}", berth.name()), Some(&ensure.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// What the kernel says of the payload.
#[track_caller]
fn frozen(berth: &Berth<'_>) -> bool {
    let id = berth.id();
    let names = [id.clone(), format!("berth-{id}.scope")];
    let groups = berth.host.slot.groups();
    let files = groups.iter().flat_map(|group| names.iter().map(move |name| group.join(name).join("payload/cgroup.events")));
    let text = files.into_iter().find_map(|file| fs::read_to_string(file).ok());
    text.is_some_and(|text| text.contains("frozen 1"))
}

#[track_caller]
fn await_frozen(berth: &Berth<'_>) {
    until(&format!("{} is frozen", berth.name()), SOON, || frozen(berth).then_some(()));
}

/// Bytes to and from the user's socket, as the user, over one connection.
#[track_caller]
fn stream(berth: &Berth<'_>) -> Running {
    let program: PathBuf = berth.host.slot.dir.join("stream");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_berth-tests-stream"), &program).unwrap();
    }
    berth.user.run(program.to_str().unwrap()).arg(berth.socket()).spawn()
}

/// One `_ping` on an open connection.
#[track_caller]
fn ping(connection: &mut Running) {
    connection.send(PING);
    connection.line_with("HTTP/1.1 200", SOON);
}

/// What the user's client is told.
#[track_caller]
fn refused(run: Run) -> String {
    run.fails().stderr
}

#[test]
fn x08_a_frozen_berth_wakes_on_a_connection_and_on_a_byte_of_an_open_one() {
    let host = Host::start();
    let a = host.new_berth("a");
    host.stop_server();
    let mut open = stream(&a);
    ping(&mut open);
    ensure(&a, "present", FREEZE, None);
    await_frozen(&a);
    a.await_state("frozen");
    let sleep = a.status()["sleep"].clone();
    assert_eq!(sleep["reason"], "nobody used it for 1 s, and no container ran in it");

    let began = Instant::now();
    a.docker(&["info", "--format", "{{.ID}}"]).ok();
    assert!(began.elapsed() < Duration::from_secs(5), "woken in {:?}", began.elapsed());
    await_frozen(&a);
    ping(&mut open);
    until("it is told to be awake", SOON, || (a.status()["sleep"].is_null() || frozen(&a)).then_some(()));

    // Limits can be changed meanwhile.
    await_frozen(&a);
    let status = a.status();
    let mut limits = status["limits"].clone();
    limits["pids"] = json!(777);
    let wish = json!({ "id": status["id"], "image": status["image"], "limits": limits, "wanted": "present", "allow_system": false,
        "policy": { "idle": { "freeze_after": 1, "stop_after": null } } });
    let answer = host.node_api("PUT", &format!("/v1/berths/{}", a.name()), Some(&wish.to_string()));
    assert_eq!((answer.status, answer.json()["limits"]["pids"].as_u64()), (200, Some(777)));
    assert!(frozen(&a), "a change of limits wakes nobody");

    // Nobody but the shim is there.
    host.kill_node();
    ping(&mut open);
    assert_eq!(stream_ping(&a), "HTTP/1.1 200 OK");
    let payload = frozen_file(&host);
    until("asleep again without a node", SOON, || fs::read_to_string(&payload).unwrap().contains("frozen 1").then_some(()));
    assert_eq!(stream_ping(&a), "HTTP/1.1 200 OK");
    until("asleep again without a node", SOON, || fs::read_to_string(&payload).unwrap().contains("frozen 1").then_some(()));
    host.start_node();
    a.await_state("frozen");
    a.docker(&["info", "--format", "{{.ID}}"]).ok();
}

/// `cgroup.events` of the one payload of an instance.
#[track_caller]
fn frozen_file(host: &Host) -> PathBuf {
    let dirs = host.slot.groups().into_iter().flat_map(|group| fs::read_dir(group).into_iter().flatten().flatten());
    let mut files = dirs.map(|entry| entry.path().join("payload/cgroup.events")).filter(|file| file.exists());
    files.next().expect("a payload")
}

/// The first line of an answer on a new connection.
#[track_caller]
fn stream_ping(berth: &Berth<'_>) -> String {
    let mut connection = stream(berth);
    connection.send(PING);
    connection.line_with("HTTP/1.1 ", SOON).trim_end().to_owned()
}

#[test]
fn polls_keep_nothing_awake_and_a_running_container_does() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    host.stop_server();
    let mut open = stream(&a);
    ensure(&a, "present", FREEZE, None);
    let mut slept = |limit| {
        within(limit, || {
            // Before the next poll, which wakes it.
            if frozen(&a) {
                return Some(());
            }
            for path in ["/_ping", "/version", "/containers/json"] {
                open_ask(&mut open, path);
            }
            None
        })
    };
    assert!(slept(SOON).is_some(), "an editor that polls keeps it awake");

    // Also one that is between two restarts.
    a.docker(&["run", "-d", "--name", "again", "--restart", "always", BUSYBOX, "sh", "-c", "sleep 1"]).ok();
    assert!(slept(Duration::from_secs(6)).is_none(), "asleep with a restart policy at work");
    a.docker(&["rm", "-f", "again"]).ok();
    a.docker(&["run", "-d", "--name", "busy", BUSYBOX, "sleep", "600"]).ok();
    assert!(slept(Duration::from_secs(4)).is_none(), "asleep with a running container");
    assert_eq!(a.status()["running_containers"], 1);
    a.docker(&["stop", "busy"]).ok();
    await_frozen(&a);
    // One that was stopped is there after all this.
    assert_eq!(a.docker(&["ps", "-aq", "--filter", "name=busy"]).ok().lines().count(), 1);
}

/// A request over an open connection, its answer read to the end of its head.
#[track_caller]
fn open_ask(connection: &mut Running, path: &str) {
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n"));
    connection.line_with("HTTP/1.1 200", SOON);
}

#[test]
fn what_nobody_used_for_long_is_stopped_and_show_says_why() {
    let host = Host::start();
    let a = host.new_berth("a");
    host.stop_server();
    ensure(&a, "present", (Some(1), Some(3)), None);
    a.await_state("stopped");
    let status = a.status();
    assert_eq!(status["sleep"]["reason"], "nobody used it for 3 s, and no container ran in it", "{status}");
    assert!(status["last_used_at"].as_i64() < status["sleep"]["since"].as_i64(), "{status}");
    assert_eq!(status["conditions"], json!([]), "a berth that sleeps is a healthy one");
    // It stays so over a restart of the node, and the next to come wakes it.
    ensure(&a, "present", NEVER, None);
    host.stop_node();
    host.start_node();
    a.await_state("stopped");
    assert_eq!(a.status()["sleep"], status["sleep"]);
    a.docker(&["info", "--format", "{{.ID}}"]).ok();
    assert_eq!((a.state(), a.status()["sleep"].clone()), ("running".to_owned(), Value::Null));
}

#[test]
fn idle_while_the_node_was_away_it_is_stopped_when_that_returns() {
    let host = Host::start();
    let a = host.new_berth("a");
    host.stop_server();
    ensure(&a, "present", (Some(1), Some(2)), None);
    host.kill_node();
    let payload = frozen_file(&host);
    until("asleep", SOON, || fs::read_to_string(&payload).unwrap().contains("frozen 1").then_some(()));
    thread::sleep(Duration::from_secs(2));
    assert!(payload.exists(), "only the node stops it");
    host.start_node();
    a.await_state("stopped");
    assert_eq!(a.status()["sleep"]["reason"], "nobody used it for 2 s, and no container ran in it");
}

#[test]
fn commands_of_the_administrator_wake_it_and_keep_it_awake() {
    let host = Host::start();
    let a = host.new_berth("a");
    ensure(&a, "present", FREEZE, None);
    await_frozen(&a);
    let mut command = a.exec(&["sh", "-c", "echo in; sleep 600"]).spawn();
    assert_eq!(command.line(SOON).as_deref(), Some("in"));
    assert!(within(Duration::from_secs(4), || frozen(&a).then_some(())).is_none(), "asleep under a command");
    command.signal(nix::sys::signal::Signal::SIGTERM);
    await_frozen(&a);
    assert_eq!(a.sh("echo awake").ok(), "awake");
    await_frozen(&a);
    let began = Instant::now();
    a.stop().ok();
    assert!(began.elapsed() < Duration::from_secs(10), "a frozen berth stopped in {:?}: it was not thawed", began.elapsed());
    assert_eq!(a.status()["conditions"], json!([]));
    let log = fs::read_to_string(host.log_dir.join("berths").join(a.id()).join("console.log")).unwrap();
    assert!(log.contains("stopping"), "it heard of its stop: {log}");
}

#[test]
fn l07_a_suspended_berth_stands_still_and_refuses_until_it_is_resumed() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "busy", BUSYBOX, "sleep", "600"]).ok();
    b.stop().ok();
    host.stop_server();
    let mut open = stream(&a);
    ping(&mut open);
    let pid = a.pid();

    let began = Instant::now();
    ensure(&a, "running", NEVER, Some("it mines coins"));
    assert!(began.elapsed() < Duration::from_secs(1), "suspended in {:?}", began.elapsed());
    assert!(frozen(&a));
    ensure(&b, "present", NEVER, Some("it mines coins"));
    for berth in [&a, &b] {
        let status = berth.status();
        assert_eq!((status["state"].as_str(), status["suspended"].as_str()), (Some("suspended"), Some("it mines coins")));
        let told = refused(berth.docker(&["ps"]));
        assert!(told.contains("suspended by an administrator: it mines coins"), "{told}");
        assert!(told.contains("berth resume"), "{told}");
    }
    open.send(PING);
    assert!(within(Duration::from_secs(2), || (!frozen(&a)).then_some(())).is_none(), "a byte wakes a suspended berth");
    let answer = host.node_api("POST", &format!("/v1/berths/{}/stop", a.name()), None);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (409, Some("berth_suspended")));

    // Also over a new node, and one that died before it told the shim or after.
    host.kill_node();
    host.start_node();
    until("taken up", SOON, || (a.state() == "suspended").then_some(()));
    assert!(frozen(&a));
    assert!(refused(a.docker(&["ps"])).contains("it mines coins"));

    // Resumed: what waited goes on, what ran runs, what was stopped sleeps until the next connection.
    ensure(&a, "present", NEVER, None);
    ensure(&b, "present", NEVER, None);
    open.line_with("HTTP/1.1 200", SOON);
    assert_eq!((a.state().as_str(), a.pid(), b.state().as_str()), ("running", pid, "stopped"));
    assert_eq!(a.docker(&["ps", "-q"]).ok().lines().count(), 1);
    b.docker(&["info", "--format", "{{.ID}}"]).ok();

    // A shim that dies meanwhile takes its berth along; it runs again after the resume, and not before.
    ensure(&a, "present", NEVER, Some("again"));
    Run::new("kill").args(["-9", &a.shim_pid().to_string()]).ok();
    until("the berth has ended with its shim", SOON, || (!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(()));
    until("the node knows", SOON, || a.status()["pid"].is_null().then_some(()));
    assert_eq!(a.state(), "suspended");
    assert!(refused(a.docker(&["ps"])).contains("again"));
    host.kill_node();
    host.start_node();
    until("taken up", SOON, || (a.state() == "suspended").then_some(()));
    assert!(a.status()["pid"].is_null());
    ensure(&a, "present", NEVER, None);
    assert_eq!(a.state(), "running");
    a.docker(&["info", "--format", "{{.ID}}"]).ok();
}

#[test]
fn l07_a_suspension_does_not_wait_for_a_start_nor_for_an_orderly_stop() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    b.load_busybox();
    // Docker gives it ten seconds.
    b.docker(&["run", "-d", "--stop-signal", "TERM", BUSYBOX, "sh", "-c", "trap '' TERM; while :; do sleep 1; done"]).ok();
    a.stop().ok();
    host.stop_server();
    thread::scope(|scope| {
        let stopping = scope.spawn(|| host.node_api("POST", &format!("/v1/berths/{}/stop", b.name()), None));
        b.await_state("stopping");
        let began = Instant::now();
        ensure(&b, "present", NEVER, Some("now"));
        assert!(began.elapsed() < Duration::from_secs(6), "suspended in {:?}", began.elapsed());
        assert_eq!((b.state().as_str(), b.status()["pid"].is_null()), ("suspended", true));
        stopping.join().unwrap();

        let connection = scope.spawn(|| a.docker(&["ps"]).output());
        a.await_state("starting");
        let began = Instant::now();
        ensure(&a, "present", NEVER, Some("now"));
        assert!(began.elapsed() < Duration::from_secs(2), "suspended in {:?}", began.elapsed());
        let output = connection.join().unwrap();
        assert!(!output.success() && output.stderr.contains("suspended by an administrator: now"), "{output:?}");
    });
    assert_eq!(a.state(), "suspended");
    // Whether it was before its start or after it: it runs after the resume.
    ensure(&a, "present", NEVER, None);
    a.docker(&["info", "--format", "{{.ID}}"]).ok();
}

#[test]
fn l04_a_frozen_and_a_suspended_berth_are_deleted_without_a_trace() {
    let host = Host::start();
    let (a, b, c) = (host.user("a"), host.user("b"), host.user("c"));
    let scope = Scope::slot(&host.slot);
    let _other = host.assign(&c, &[]);
    let before = Snapshot::take(&scope);
    let (a, b) = (host.assign(&a, &[]), host.assign(&b, &[]));
    ensure(&a, "present", FREEZE, None);
    ensure(&b, "present", NEVER, Some("evidence"));
    await_frozen(&a);
    assert!(frozen(&b));
    let began = Instant::now();
    a.delete().ok();
    b.delete().ok();
    assert!(began.elapsed() < Duration::from_secs(20), "deleted in {:?}", began.elapsed());
    before.assert_back_but(&scope, SOON, "/home/");
}

/// Where a reader waits for its shim, the kernel cannot stop it: that must be short.
#[test]
fn a_berth_that_reads_its_emulated_files_all_the_time_falls_asleep_and_wakes() {
    let host = Host::start();
    let a = host.new_berth("a");
    let reader = "while cat /proc/stat /proc/loadavg /proc/meminfo > /dev/null; do date +%s%N > /tmp/$$ && mv /tmp/$$ /tmp/read; done; touch /tmp/failed";
    a.sh(&format!("for n in 1 2 3; do setsid sh -c '{reader}' > /dev/null 2>&1 < /dev/null & done")).ok();
    ensure(&a, "present", FREEZE, None);
    let mut last = 0_u64;
    for _ in 0..5 {
        await_frozen(&a);
        let read = a.sh("sleep 0.2; test ! -e /tmp/failed && cat /tmp/read").ok().parse().expect("a time");
        assert!(read > last, "nobody reads any more");
        last = read;
    }
}

#[test]
fn the_death_of_the_shim_of_a_frozen_berth_ends_it() {
    let host = Host::start();
    let a = host.new_berth("a");
    ensure(&a, "present", FREEZE, None);
    await_frozen(&a);
    let pid = a.pid();
    Run::new("kill").args(["-9", &a.shim_pid().to_string()]).ok();
    until("PID 1 has ended", SOON, || (!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(()));
    until("the node knows, and says why", SOON, || {
        let status = a.status();
        (status["pid"] != pid && status["conditions"].to_string().contains("its shim died")).then_some(())
    });
    a.docker(&["info", "--format", "{{.ID}}"]).ok();
}

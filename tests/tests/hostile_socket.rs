//! Clients and inner Dockers that do not behave: nobody else notices, memory stays bounded, and the user is told.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Run, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// What a shim may have of its own at most.
const SHIM_MEMORY: u64 = 8 << 20;
/// What another user's `docker ps` may take meanwhile.
const OTHERS: Duration = Duration::from_secs(3);

fn program(host: &Host, name: &str, built: &str) -> PathBuf {
    let program = host.slot.dir.join(name);
    if !program.exists() {
        fs::copy(built, &program).unwrap();
    }
    program
}

/// Raw bytes to and from the socket of `berth`, as its user.
fn raw(berth: &Berth<'_>) -> Run {
    let program = program(berth.host, "stream", env!("CARGO_BIN_EXE_berth-tests-stream"));
    berth.user.run(&program.to_string_lossy()).arg(berth.socket())
}

/// Bytes of the shim of `berth` that are its own now.
#[track_caller]
fn small(berth: &Berth<'_>, when: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", berth.shim_pid())).expect("the shim lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a field of proc(5)");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number") << 10
    };
    let own = field("RssAnon:") + field("RssShmem:");
    eprintln!("{when}: the shim has {} KiB of its own, VmRSS {} KiB", own >> 10, field("VmRSS:") >> 10);
    assert!(own < SHIM_MEMORY, "{when}: {own} bytes");
    own
}

/// Another user's Docker answers as ever.
#[track_caller]
fn unaffected(other: &Berth<'_>, when: &str) {
    let began = Instant::now();
    other.docker(&["ps"]).limit(SOON).ok();
    let took = began.elapsed();
    assert!(took < OTHERS, "{when}: `docker ps` of another user took {took:?}");
}

/// A call in the audit trail that fits, once it is there.
#[track_caller]
fn call(berth: &Berth<'_>, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(what, SOON, || {
        let text = berth.host.berth(["audit", "--kind", "call", "--export", "--user", berth.name()]).ok();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|row| fits(row))
    })
}

fn path_is(row: &Value, path: &str) -> bool {
    row["path"].as_str().is_some_and(|found| found.split('?').next() == Some(path))
}

/// Host pid of the berth's dockerd.
#[track_caller]
fn dockerd(berth: &Berth<'_>) -> Pid {
    let named = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "dockerd");
    let pid = berth.group_pids("payload").into_iter().find(named).expect("dockerd runs");
    Pid::from_raw(pid.cast_signed())
}

#[test]
fn x07_garbage_and_a_head_of_1_mib_pass_and_are_answered_by_docker_and_logged_unparsed() {
    let host = Host::start();
    let a = host.new_berth("a");
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9 x\r\n\r\n"] {
        let answer = raw(&a).input(garbage).limit(SOON).ok();
        assert!(answer.starts_with("HTTP/1.1 400"), "what dockerd says of {garbage:?}: {answer}");
    }
    let garbage = call(&a, "garbage", |row| row["outcome"] == "unparsed" && row["method"] == "");
    assert!(garbage["request_bytes"].as_u64().unwrap() > 4, "{garbage}");
    // dockerd reads about 1 MiB of a head, and has something to say about this one.
    let head = format!("GET /_ping HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let answer = raw(&a).input(head.clone()).limit(SOON).output();
    assert!(answer.stdout.starts_with("HTTP/1.1 431") || answer.stdout.starts_with("HTTP/1.1 200"), "{answer:?}");
    call(&a, "the long head", |row| row["outcome"] == "unparsed" && row["request_bytes"].as_u64().unwrap() > 60_000);
    small(&a, "after a head of 1 MiB");
    // Many of them at once: what is kept of all heads together has a bound.
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| raw(&a).input(head.clone()).limit(SOON).output());
        }
    });
    small(&a, "after 40 heads of 1 MiB at once");
    a.docker(&["ps"]).ok();
}

#[test]
fn x10_a_client_that_sends_a_byte_a_second_is_served_and_holds_nobody_up() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let mut slow = raw(&a).spawn();
    slow.send("GET /_ping HT");
    for byte in ["T", "P", "/", "1", "."] {
        thread::sleep(Duration::from_secs(1));
        slow.send(byte);
        a.docker(&["ps"]).limit(OTHERS).ok();
        unaffected(&b, "beside a slow client");
    }
    slow.send("1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(slow.line(SOON).unwrap().starts_with("HTTP/1.1 200"));
    drop(slow);
    let slow = |row: &Value| path_is(row, "/_ping") && row["command"] == "stream";
    assert_eq!(call(&a, "the slow call", slow)["outcome"], "answered");
}

#[test]
fn x06_clients_that_never_read_hold_docker_back_and_cost_no_memory() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "teller", berth_tests::berth::BUSYBOX, "yes", "0123456789abcdef"]).ok();
    let request = b"GET /containers/teller/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let request = String::from_utf8_lossy(request).replace('\r', "\\r").replace('\n', "\\n");
    // 200 streams without end, of which only the first bytes are read.
    let crowd = program(&host, "crowd", env!("CARGO_BIN_EXE_berth-tests-crowd"));
    let mut crowd = a.user.run(&crowd.to_string_lossy()).arg(a.socket()).args(["200", &request]).spawn();
    let told: Value = serde_json::from_str(&crowd.line(SOON * 2).unwrap()).unwrap();
    assert_eq!(told["held"], 200, "{told}");
    let before = small(&a, "200 clients that do not read");
    a.docker(&["ps"]).limit(SOON).ok();
    unaffected(&b, "beside clients that do not read");
    thread::sleep(Duration::from_secs(3));
    let after = small(&a, "and some seconds later");
    assert!(after < before + (1 << 20), "the shim grows: {before}, {after}");
    a.docker(&["kill", "teller"]).limit(SOON).ok();
    drop(crowd);
    call(&a, "a log that was cut", |row| path_is(row, "/containers/teller/logs") && row["outcome"] == "cut");
}

#[test]
fn x10_5000_connections_of_one_user_meet_the_limit_and_nobody_else_notices() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    small(&a, "before");
    let program = program(&host, "crowd", env!("CARGO_BIN_EXE_berth-tests-crowd"));
    let request = "GET /events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n";
    let mut crowd = a.user.run(&program.to_string_lossy()).arg(a.socket()).args(["5000", request]).spawn();
    // While they come.
    unaffected(&b, "while 5,000 connections come");
    let told: Value = serde_json::from_str(&crowd.line(SOON * 3).unwrap()).unwrap();
    eprintln!("{told}");
    assert_eq!((told["silent"].as_u64(), told["held"].as_u64()), (Some(0), Some(1024)), "{told}");
    assert_eq!(told["refused"].as_u64().unwrap() + told["cut"].as_u64().unwrap(), 5000 - 1024, "{told}");
    assert!(told["refused"].as_u64().unwrap() > 3900, "a refusal is told, not a cut: {told}");
    let first = told["first"].as_str().unwrap();
    assert!(first.starts_with("HTTP/1.1 429") && first.contains("1024 connections") && first.contains("close some"), "{first}");
    small(&a, "at the limit");
    for _ in 0..5 {
        let shown = a.docker(&["ps"]).limit(SOON).fails();
        assert!(shown.stderr.contains("1024 connections to this Docker open already"), "{shown:?}");
    }
    unaffected(&b, "at the limit");
    call(&a, "the refusals", |row| path_is(row, "/events") && row["outcome"] == "refused" && row["status"] == 429);
    crowd.close_input();
    crowd.finish(SOON);
    until("places are free again", SOON, || a.docker(&["ps"]).output().success().then_some(()));

    // The same by clients that say nothing, whose requests are waited for: others are told the reason all the same.
    let before = descriptors(&a);
    let _crowd = a.user.run(&program.to_string_lossy()).arg(a.socket()).args(["2000", ""]).spawn();
    until("all places are taken", SOON, || (descriptors(&a) >= before + 2 * 1000).then_some(()));
    for _ in 0..5 {
        let shown = a.docker(&["ps"]).limit(SOON).fails();
        assert!(shown.stderr.contains("1024 connections to this Docker open already"), "{shown:?}");
    }
    unaffected(&b, "at the limit again");
    small(&a, "afterwards");
}

#[test]
fn x10_a_client_that_dies_in_the_middle_of_an_upload_leaves_nothing_behind() {
    let host = Host::start();
    let a = host.new_berth("a");
    let size = 100 << 20;
    let head = format!("POST /images/create?fromSrc=-&repo=torn HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
    let before = descriptors(&a);
    let mut clients: Vec<_> = (0..20).map(|_| raw(&a).spawn()).collect();
    for client in &mut clients {
        client.send(&head);
        client.send(tar_head(size));
        client.send(vec![0x41; 3 << 20]);
    }
    until("all are connected", SOON, || (descriptors(&a) >= before + 40).then_some(()));
    for (number, client) in clients.iter().enumerate() {
        client.signal(if number % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
    }
    // Two pipes are kept for the next one.
    until("nothing is open for them", SOON, || (descriptors(&a) <= before + 4).then_some(()));
    drop(clients);
    let cut = call(&a, "the upload", |row| path_is(row, "/images/create"));
    assert_eq!(cut["outcome"], "cut", "{cut}");
    let bytes = cut["request_bytes"].as_u64().unwrap();
    assert!(bytes > 1 << 20 && bytes < 4 << 20, "{cut}");
    small(&a, "afterwards");
    assert_eq!(a.docker(&["images", "-q", "torn"]).ok(), "");
    a.load_busybox();
}

/// The head of a file of `size` bytes in a tar archive (ustar).
fn tar_head(size: usize) -> Vec<u8> {
    let mut head = vec![0; 512];
    let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "file");
    put(100, "0000644\0\x30000000\0\x30000000\0");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

#[test]
fn x08_an_inner_docker_that_hangs_is_waited_for_and_one_that_is_killed_is_spoken_for() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let pid = dockerd(&a);
    let quiet = descriptors(&a);
    kill(pid, Signal::SIGSTOP).unwrap();
    let mut asked = a.docker(&["ps"]).spawn();
    let mut many: Vec<_> = (0..50).map(|_| raw(&a).input("GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").spawn()).collect();
    for _ in 0..5 {
        unaffected(&b, "beside a Docker that hangs");
    }
    assert!(asked.alive(), "it hangs, and so does its client");
    small(&a, "while Docker hangs");
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(asked.line(SOON).unwrap().starts_with("CONTAINER ID"));
    assert!(asked.finish(SOON).success());
    for client in &mut many {
        assert!(client.line(SOON).unwrap().starts_with("HTTP/1.1 200"));
    }
    drop(many);

    // Killed while a client waits for an answer.
    kill(pid, Signal::SIGSTOP).unwrap();
    // The last of them may still be going: what is open is what stays.
    let before = until("the clients of before are gone", SOON, || {
        let open = descriptors(&a);
        thread::sleep(Duration::from_millis(500));
        (open <= quiet + 8 && descriptors(&a) == open).then_some(open)
    });
    let mut waiting = raw(&a).spawn();
    waiting.send("GET /info HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut docker = a.docker(&["version"]).spawn();
    until("both are connected", SOON, || (descriptors(&a) >= before + 4).then_some(()));
    kill(pid, Signal::SIGKILL).unwrap();
    assert!(waiting.line(SOON).unwrap().starts_with("HTTP/1.1 502"));
    waiting.line_with("ended before it answered", SOON);
    docker.close_input();
    let told = docker.finish(SOON);
    assert!(told.success() || told.stderr.contains("ended before it answered"), "{told:?}");
    call(&a, "the call", |row| path_is(row, "/info") && row["outcome"] == "refused" && row["status"] == 502);
    unaffected(&b, "beside a Docker that was killed");
    // PID 1 starts it again, and a client is held meanwhile.
    a.docker(&["ps"]).limit(SOON * 2).ok();
    small(&a, "afterwards");
}

/// Descriptors of the shim: two for each connection.
fn descriptors(berth: &Berth<'_>) -> usize {
    fs::read_dir(format!("/proc/{}/fd", berth.shim_pid())).unwrap().count()
}

#[test]
fn x07_an_inner_docker_that_answers_garbage_is_passed_on_and_logged_unparsed() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let (_peer, told) = a.hold(&["echo", "/run/docker.sock"]);
    assert_eq!(told["ok"], true, "{told}");
    // What the peer says to whom.
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (name, answer, outcome) in [
        ("noise", b"\x00\x01\x02 no HTTP\r\n\r\n".to_vec(), "unparsed"),
        ("length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456".to_vec(), "unparsed"),
        ("negative", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n1".to_vec(), "unparsed"),
        ("short", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123".to_vec(), "cut"),
    ] {
        let program = format!("=S{:08x}{};", answer.len(), hex(&answer));
        let request = format!("POST /{name}/{program} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let got = raw(&a).input(request).limit(SOON).output();
        assert_eq!(got.stdout.as_bytes(), String::from_utf8_lossy(&answer).as_bytes(), "{name}");
        let row = call(&a, name, |row| row["path"].as_str().is_some_and(|path| path.starts_with(&format!("/{name}/"))));
        assert_eq!(row["outcome"], outcome, "{name}: {row}");
    }
    // A head without end, which is too long to be asked for in the head of a request.
    let begin = b"HTTP/1.1 200 OK\r\nX: ";
    let long = |head: usize| {
        let program = format!("=T{head:08x}S{:08x}{}E{:08x};", begin.len(), hex(begin), 100_000);
        format!("POST /long/{program} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    };
    let request = long(long(0).len()) + &"y".repeat(100_000);
    let got = raw(&a).input(request).limit(SOON).ok();
    assert!(got.starts_with("HTTP/1.1 200 OK\r\nX: yyy") && got.len() == begin.len() + 100_000, "{} bytes", got.len());
    let row = call(&a, "the head without end", |row| row["path"].as_str().is_some_and(|path| path.starts_with("/long/")));
    assert_eq!(row["outcome"], "unparsed", "{row}");
    // What asks for nothing of the kind gets noise, and Docker's own client says so.
    let told = a.docker(&["ps"]).limit(SOON).fails();
    assert!(told.stderr.contains("malformed HTTP"), "{told:?}");
    unaffected(&b, "beside a Docker that answers garbage");
    small(&a, "after garbage");
}

//! Berths that come back: after their shim or PID 1 was killed, after the host went down, with a newer program.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use berth_tests::{
    Berth, Host,
    berth::BUSYBOX,
    fault::signal,
    image, programs,
    snapshot::{Scope, Snapshot},
    until,
    wait::within,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// What the server says to the node, with another policy of what becomes of a berth that fell.
#[track_caller]
fn ensure(berth: &Berth<'_>, wanted: &str, policy: &Value) {
    let status = berth.status();
    let ensure = json!({
        "id": status["id"], "image": status["image"], "limits": status["limits"], "wanted": wanted, "allow_system": false,
        "policy": policy,
    });
    let answer = berth.host.node_api("PUT", &format!("/v1/berths/{}", berth.name()), Some(&ensure.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn condition(berth: &Berth<'_>, kind: &str) -> Option<String> {
    let status = berth.status();
    let found = status["conditions"].as_array()?.iter().find(|c| c["kind"] == kind)?;
    Some(found["message"].as_str()?.to_owned())
}

/// A container that comes back with its Docker and writes when it is asked to end.
#[track_caller]
fn with_witness(berth: &Berth<'_>) {
    berth.load_busybox();
    let script = "trap 'echo asked to end >> /v/told; exit 0' TERM; echo began >> /v/told; while :; do sleep 0.1; done";
    berth
        .docker(&[
            "run",
            "-d",
            "--name",
            "witness",
            "--stop-signal",
            "TERM",
            "--restart",
            "always",
            "-v",
            "witness:/v",
            BUSYBOX,
            "sh",
            "-c",
            script,
        ])
        .ok();
    let began = within(SOON, || (told(berth) == ["began"]).then_some(()));
    let says = || (berth.docker(&["ps", "-a"]).output(), berth.docker(&["exec", "witness", "cat", "/v/told"]).output());
    assert!(began.is_some(), "the witness did not begin: {:?}", says());
}

fn told(berth: &Berth<'_>) -> Vec<String> {
    let text = berth.docker(&["exec", "witness", "cat", "/v/told"]).output().stdout;
    text.lines().map(str::to_owned).collect()
}

#[test]
fn l01_whose_shim_or_first_process_was_killed_is_told_and_started_again() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    with_witness(&a);
    let neighbour = b.pid();
    for (what, why) in [("shim", "its shim died (signal: 9 (SIGKILL))"), ("first process", "PID 1 was killed by SIGKILL")] {
        let before = a.pid();
        signal(if what == "shim" { a.shim_pid() } else { before }, Signal::SIGKILL);
        let again = |message: &String| message.contains(why);
        until(&format!("{what}: it runs again and says why"), SOON, || condition(&a, "Restarted").filter(again));
        a.await_docker();
        assert_ne!(a.pid(), before, "{what}");
        until(&format!("{what}: the container is back"), SOON, || told(&a).last().filter(|line| *line == "began").cloned());
        let exit = fs::read_to_string(host.state_dir.join(format!("node/berths/{}.json", a.id()))).unwrap();
        assert!(exit.contains(why), "{what}: the record tells how it ended: {exit}");
    }
    assert_eq!(b.pid(), neighbour);
    assert_eq!(told(&a), ["began"; 3], "nothing was asked to end");
    a.stop().ok();
    assert_eq!(condition(&a, "Restarted"), None, "an ordinary stop takes it back");
}

#[test]
fn l01_what_a_profile_does_not_start_again_waits_for_a_connection() {
    let host = Host::start();
    let a = host.new_berth("a");
    host.stop_server();
    ensure(&a, "present", &json!({ "restart": "never" }));
    let before = a.pid();
    signal(a.shim_pid(), Signal::SIGKILL);
    let message = until("the death is told", SOON, || condition(&a, "ShimDied"));
    assert!(message.contains("the next connection or berth start starts it anew"), "{message}");
    a.await_state("failed");
    until("a client is served again", SOON, || a.docker(&["ps"]).output().success().then_some(()));
    assert_ne!(a.pid(), before);
    assert_eq!((condition(&a, "ShimDied"), condition(&a, "Restarted")), (None, None));
}

/// Seconds between two starts of a berth, from the node's log.
fn starts(host: &Host) -> Vec<f64> {
    let log = host.log("node");
    let at = |line: &str| {
        let time = line.split_whitespace().next()?.trim_end_matches('Z');
        let mut parts = time.split_once('T')?.1.split(':').map(|part| part.parse::<f64>().unwrap_or_default());
        Some(parts.next()? * 3600.0 + parts.next()? * 60.0 + parts.next()?)
    };
    let times: Vec<f64> = log.lines().filter(|line| line.contains(": started user=")).filter_map(at).collect();
    // Past midnight the clock begins anew.
    times.windows(2).map(|pair| (pair[1] - pair[0]).rem_euclid(86_400.0)).collect()
}

#[test]
fn l01_what_keeps_ending_is_started_again_more_and_more_slowly_and_what_was_switched_off_stays_off() {
    let host = Host::start();
    let root = host.cache.as_ref().unwrap().busybox();
    image::import(&host, "broken", &root, &json!({ "Entrypoint": ["/bin/sh", "-c", "exit 3"] }));
    image::import(&host, "brief", &root, &json!({ "Entrypoint": ["/bin/sh", "-c", "sleep 1"] }));
    let (broken, brief) = (host.user("a"), host.user("b"));
    host.assign_command(&broken, &["--image", "broken", "--no-start"]).ok();
    host.berth(["start", &broken.name, "--no-wait"]).ok();
    let gaps = until("it was started four times", SOON, || Some(starts(&host)).filter(|gaps| gaps.len() >= 3));
    for (gap, least) in gaps.iter().zip([1.0, 2.0, 4.0]) {
        assert!(*gap >= least * 0.95, "{gaps:?}");
    }
    let message = until("it is told", SOON, || condition(&host.berth_of(&broken), "Exited"));
    assert!(message.contains("PID 1 exited with status 3"), "{message}");
    let refused = host.berth_of(&broken).docker(&["ps"]).fails();
    assert!(refused.stderr.contains("exited with status 3") && refused.stderr.contains("next attempt"), "{refused:?}");
    host.berth(["stop", &broken.name]).ok();

    host.assign_command(&brief, &["--image", "brief", "--no-start"]).ok();
    let berth = host.berth_of(&brief);
    berth.start().ok();
    until("it ended by itself", SOON, || condition(&berth, "Exited"));
    host.kill_node();
    host.start_node();
    let record = fs::read_to_string(host.state_dir.join(format!("node/berths/{}.json", berth.id()))).unwrap();
    assert!(record.contains("\"intent\": \"stopped\""), "{record}");
    assert_eq!(berth.state(), "stopped", "a berth that ended in order is not meant to run");
}

/// The most berths that were started and had no Docker yet at one time, since `from` bytes of the node's log.
fn at_once(host: &Host, from: usize) -> usize {
    let log = host.log("node");
    let (mut open, mut most) = (0_usize, 0);
    for line in log[from..].lines() {
        if line.contains(": started user=") {
            open += 1;
            most = most.max(open);
        } else if line.contains("docker is ready") {
            open = open.saturating_sub(1);
        }
    }
    most
}

#[test]
fn l03_a_host_that_goes_down_stops_berths_in_order_and_they_come_back_a_few_at_a_time() {
    let host = Host::start();
    let berths: Vec<_> = ["a", "b", "c", "d"].into_iter().map(|name| host.new_berth(name)).collect();
    let stopped = host.new_berth("e");
    stopped.stop().ok();
    with_witness(&berths[0]);
    let began = Instant::now();
    signal(host.node_pid(), Signal::SIGPWR);
    assert!(host.node_died(Duration::from_secs(60)), "the node ends when all is stopped");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(50), "all at once, within the deadline: {took:?}");
    for berth in host.slot.groups() {
        let left = fs::read_dir(&berth).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).count();
        assert_eq!(left, 0, "{} has no group of a berth left", berth.display());
    }
    for entry in fs::read_dir(host.state_dir.join("node/berths")).unwrap().flatten() {
        let record = fs::read_to_string(entry.path()).unwrap();
        let meant = if record.contains(&format!("{:?}", stopped.name())) { "stopped" } else { "running" };
        assert!(record.contains(&format!("\"intent\": \"{meant}\"")), "{record}");
        assert!(record.contains("PID 1 exited with status 0"), "in order, not killed: {record}");
    }
    let log = host.log("node").len();
    host.start_node();
    for berth in &berths {
        berth.await_docker();
        berth.docker(&["ps"]).ok();
    }
    assert_eq!(stopped.state(), "stopped", "what was stopped stays so");
    let bound = std::thread::available_parallelism().unwrap().get().clamp(2, 8);
    let most = at_once(&host, log);
    assert!((1..=bound).contains(&most), "{most} came back at once, the bound is {bound}");
    until("the container is back", SOON, || (told(&berths[0]) == ["began", "asked to end", "began"]).then_some(()));
    assert_eq!(condition(&berths[0], "Restarted"), None, "it did not fall");
}

/// Another file with other bytes, as an upgrade puts it there: made beside and renamed.
#[track_caller]
fn upgrade(host: &Host) {
    for name in ["berth-shim", "berth-init", "berth-runc"] {
        let (file, new) = (host.slot.dir.join("programs").join(name), host.slot.dir.join("programs").join(format!("{name}.new")));
        let mut bytes = fs::read(programs::find(name)).unwrap();
        // Behind what the program's head describes: it stays the same program.
        bytes.extend(b"the next release");
        fs::write(&new, bytes).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, file).unwrap();
    }
}

fn shims(host: &Host) -> Value {
    let report: Value = serde_json::from_str(&host.berth(["doctor", "--json"]).output().stdout).unwrap();
    report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "shims").unwrap_or_else(|| panic!("{report}")).clone()
}

#[test]
fn l02_an_upgrade_leaves_a_stream_alone_and_old_shims_go_at_the_next_stop_or_sleep() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "sleeper", BUSYBOX, "sleep", "600"]).ok();
    let mut shell = a.docker(&["exec", "-i", "sleeper", "sh"]).spawn();
    shell.send("echo before\n");
    assert_eq!(shell.line(SOON).as_deref(), Some("before"));
    assert_eq!(shims(&host)["level"], "ok", "{}", shims(&host));
    let (pid, shim, installed) = (a.pid(), a.shim_pid(), host.slot.dir.join("programs/berth-shim"));

    upgrade(&host);
    host.stop_node();
    host.stop_server();
    shell.send("echo meanwhile\n");
    assert_eq!(shell.line(SOON).as_deref(), Some("meanwhile"), "with neither node nor server");
    host.start_node();
    host.start_server();
    shell.send("echo after; exit 7\n");
    assert_eq!(shell.line(SOON).as_deref(), Some("after"));
    assert_eq!(shell.finish(SOON).status, 7);
    assert_eq!((a.pid(), a.shim_pid()), (pid, shim), "the old shim goes on");

    let told = shims(&host);
    let detail = told["detail"].as_str().unwrap();
    assert_eq!(told["level"], "warning", "{told}");
    for berth in [&a, &b] {
        assert!(detail.contains(&format!("{} (since 20", berth.name())), "user and since when: {told}");
    }
    a.stop().ok();
    a.start().ok();
    a.await_docker();
    let runs = fs::read_link(format!("/proc/{}/exe", a.shim_pid())).unwrap();
    assert_eq!(runs, installed, "the new one");
    assert!(!shims(&host)["detail"].as_str().unwrap().contains(a.name()), "{}", shims(&host));

    // The other falls asleep, which is the moment for it.
    host.stop_server();
    ensure(&b, "present", &json!({ "idle": { "freeze_after": 1, "stop_after": null } }));
    let sleep = until("it is stopped instead of frozen", SOON, || {
        let status = b.status();
        (status["state"] == "stopped").then(|| status["sleep"]["reason"].as_str().unwrap_or_default().to_owned())
    });
    assert!(sleep.contains("older than the installed one"), "{sleep}");
    b.docker(&["ps"]).ok();
    let runs = fs::read_link(format!("/proc/{}/exe", b.shim_pid())).unwrap();
    assert_eq!(runs, installed, "it woke with the new one");
    host.start_server();
    assert_eq!(shims(&host)["level"], "ok", "{}", shims(&host));
}

#[test]
fn l01_a_berth_that_is_deleted_while_it_waits_to_come_back_leaves_nothing() {
    let host = Host::start();
    let user = host.user("a");
    host.assign(&user, &[]).delete().ok();
    let before = Snapshot::take(&Scope::slot(&host.slot));
    let a = host.assign(&user, &[]);
    signal(a.shim_pid(), Signal::SIGKILL);
    until("it fell", SOON, || (a.state() != "running").then_some(()));
    a.delete().ok();
    before.assert_back(&Scope::slot(&host.slot), SOON);
}

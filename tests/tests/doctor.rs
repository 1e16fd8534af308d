//! `berth doctor --deep`: a container in a throw-away berth, of which nothing is left, whoever ends meanwhile.
#![forbid(unsafe_code)]

use std::{fs, time::Duration};

use berth_tests::{
    Host, image,
    run::Running,
    snapshot::{Scope, Snapshot},
    until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const CHECK: Duration = Duration::from_secs(100);

/// Exit code, and the lines of the deep check: name, level, what was found and what to do.
fn deep(host: &Host) -> (i32, Vec<(String, String, String)>) {
    let output = host.berth(["doctor", "--deep", "--json"]).limit(CHECK).output();
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(output.status == 0, report["healthy"] == true, "{report}");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let told = |check: &Value| (text(check, "name"), text(check, "level"), format!("{} {}", text(check, "detail"), text(check, "fix")));
    let lines = report["checks"].as_array().unwrap().iter().map(told).filter(|(name, ..)| name.starts_with("deep: "));
    (output.status, lines.collect())
}

/// A check whose throw-away berth runs.
fn under_way(host: &Host) -> Running {
    let running = host.berth(["doctor", "--deep"]).spawn();
    let records = host.state_dir.join("node/berths");
    until("the throw-away berth runs", SOON, || {
        let record = fs::read_dir(&records).unwrap().flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "json"))?;
        fs::read_to_string(record.path()).ok()?.contains("\"intent\": \"running\"").then_some(())
    });
    running
}

#[test]
fn a_deep_check_runs_a_container_and_nothing_is_left_whoever_ends_meanwhile() {
    let host = Host::start();
    let scope = Scope::slot(&host.slot);
    let (_, lines) = deep(&host);
    let words: Vec<(&str, &str)> = lines.iter().map(|(name, level, _)| (name.as_str(), level.as_str())).collect();
    assert_eq!(words, [("deep: berth", "ok"), ("deep: docker", "ok"), ("deep: container", "ok"), ("deep: removal", "ok")], "{lines:?}");
    for (line, part) in [(0, "sha256:"), (1, "containerd "), (1, "runc "), (1, "overlay2"), (2, "memory limit of 64 MiB"), (2, "eth0")] {
        assert!(lines[line].2.contains(part), "{part}: {lines:?}");
    }
    assert_eq!(fs::read_dir(host.state_dir.join("node/berths")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(host.state_dir.join("berths")).unwrap().count(), 0);
    let before = Snapshot::take(&scope);

    let check = under_way(&host);
    assert_eq!(host.node_api("GET", "/v1/berths", None).json(), json!([]), "no server is told of it");
    check.signal(Signal::SIGINT);
    check.finish(SOON);
    before.assert_back(&scope, SOON);

    // A node that is told to stop does not leave it to the next.
    let check = under_way(&host);
    host.stop_node();
    check.finish(SOON);
    assert_eq!(fs::read_dir(host.state_dir.join("node/berths")).unwrap().count(), 0);
    host.start_node();
    before.clone().of_any_run().assert_back(&scope, SOON);

    let check = under_way(&host);
    host.kill_node();
    host.start_node();
    check.finish(SOON);
    before.clone().of_any_run().assert_back(&scope, SOON);
}

#[test]
fn an_image_without_docker_is_named_with_the_cure_and_nothing_is_left() {
    let host = Host::start();
    let busybox = host.cache.as_ref().unwrap().busybox();
    image::import(&host, "plain", &busybox, &json!({}));
    host.berth(["image", "default", "plain"]).ok();
    let (status, lines) = deep(&host);
    assert_eq!((status, lines.len()), (1, 3), "{lines:?}");
    let (name, level, told) = &lines[1];
    assert_eq!((name.as_str(), level.as_str()), ("deep: docker", "failed"), "{lines:?}");
    assert!(told.contains("dockerd not found in the image") && told.contains("berth image build"), "{told}");
    assert_eq!((lines[2].0.as_str(), lines[2].1.as_str()), ("deep: removal", "ok"), "{lines:?}");
    assert_eq!(fs::read_dir(host.state_dir.join("berths")).unwrap().count(), 0);
}

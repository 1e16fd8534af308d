//! I07: who gets a range of host ids that somebody else had, when, and what keeps it from him; and what is told when none is left.
#![forbid(unsafe_code)]

use std::{fs, time::Duration};

use berth_tests::{Host, Options, Run, Running, fault::signal, programs, until};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn doctor(host: &Host) -> Value {
    let report: Value = serde_json::from_str(&host.berth(["doctor", "--json"]).output().stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "id ranges").unwrap_or_else(|| panic!("{report}")).clone()
}

#[track_caller]
fn says(host: &Host, level: &str, parts: &[&str]) {
    let check = doctor(host);
    assert_eq!(check["level"], level, "{check}");
    for part in parts {
        assert!(check.to_string().contains(part), "{part:?} in {check}");
    }
}

/// A process of the host's with ids of `base` + 1000, as a setuid program that a berth left in a home.
#[track_caller]
fn left_running(base: u32) -> Running {
    let id = (base + 1000).to_string();
    Run::new("setpriv").args(["--reuid", &id, "--regid", &id, "--clear-groups", "sleep", "600"]).spawn()
}

#[test]
fn i07_a_range_is_not_handed_on_while_a_process_has_its_ids() {
    let host = Host::with(Options { quarantine_days: 0, id_ranges: 3, ..Options::default() });
    let (a, b) = (host.user("a"), host.user("b"));
    let base = host.assign(&a, &["--no-start"]).id_base();
    let mut process = left_running(base);
    until("it runs with those ids", SOON, || {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
        status.contains(&format!("Uid:\t{}", base + 1000)).then_some(())
    });
    host.berth_of(&a).delete().ok();
    says(&host, "warning", &["1 held", &format!("{base} by process {}", process.pid()), "2 free, of 3"]);
    assert_ne!(host.assign(&b, &["--no-start"]).id_base(), base);
    host.berth_of(&b).delete().ok();
    signal(process.pid(), Signal::SIGKILL);
    until("it ended", SOON, || (!process.alive()).then_some(()));
    says(&host, "ok", &["0 held", "3 free, of 3"]);
    assert_eq!(host.assign(&b, &["--no-start"]).id_base(), base);
}

#[test]
fn i07_a_setuid_program_that_a_berth_left_keeps_its_range_until_it_ends() {
    let host = Host::with(Options { quarantine_days: 0, id_ranges: 2, ..Options::default() });
    let (user, other) = (host.user("a"), host.user("b"));
    let a = host.assign(&user, &[]);
    let base = a.id_base();
    let program = user.home.join("left");
    let text = program.display().to_string();
    // Uid 1000 of the inside, by whose id the user may run it on the host.
    a.exec_input(&["sh", "-c", &format!("cat > {text} && chown 1000:1000 {text} && chmod 6755 {text}")], fs::read("/bin/busybox").unwrap())
        .ok();
    let link = user.home.join("sleep");
    user.run("ln").arg("-s").arg("left").arg(&link).ok();
    let mut left = user.run(&link.to_string_lossy()).arg("600").spawn();
    until("it runs with an id of the range", SOON, || {
        let status = fs::read_to_string(format!("/proc/{}/status", left.pid())).unwrap_or_default();
        status.contains(&(base + 1000).to_string()).then_some(())
    });
    a.delete().ok();
    assert_ne!(host.assign(&other, &["--no-start"]).id_base(), base);
    says(&host, "failed", &["0 free", &format!("{base} by process {}", left.pid())]);
    signal(left.pid(), Signal::SIGKILL);
    until("it ended", SOON, || (!left.alive()).then_some(()));
    until("what it left in the home is the user's again", SOON, || doctor(&host).to_string().contains("1 free").then_some(()));
}

#[test]
fn i07_when_no_range_is_left_that_is_said_with_figures_and_a_purge_helps() {
    let host = Host::with(Options { id_ranges: 2, ..Options::default() });
    let (a, b, c) = (host.user("a"), host.user("b"), host.user("c"));
    let first = host.assign(&a, &["--no-start"]).id_base();
    host.berth_of(&a).delete().ok();
    says(&host, "ok", &["0 in use, 1 in quarantine, 0 held, 1 free, of 2", "the first quarantine ends 20"]);
    host.assign(&b, &["--no-start"]);
    says(&host, "failed", &["1 in use, 1 in quarantine", "no further berth can be made", "berth-node ids purge"]);
    let refused = host.assign_command(&c, &["--no-start"]).fails();
    for part in ["of 2, 1 are in use, 1 in quarantine", "hint: ", "quarantine_days", "berth-node ids purge"] {
        assert!(refused.stderr.contains(part), "{part:?} in {refused:?}");
    }
    let told = host.berth(["assign", &c.name, "--no-start", "--json", "--disk", "1g"]).fails();
    assert!(told.text().contains("ids_exhausted"), "{told:?}");
    assert_eq!(host.berth(["show", &c.name]).output().status, 3, "nothing half-made");

    let purge = || Run::new(programs::find("berth-node")).args(["--config"]).arg(host.slot.node_config()).args(["ids", "purge"]);
    let busy = purge().fails();
    assert!(busy.stderr.contains("stop the node first"), "{busy:?}");
    host.stop_node();
    let purged = purge().output();
    assert!(purged.success() && purged.stderr.contains("quarantines ended: 1"), "{purged:?}");
    host.start_node();
    assert_eq!(host.assign(&c, &["--no-start"]).id_base(), first);
}

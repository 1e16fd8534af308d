//! From assign to delete and back to nothing; full disks, damaged records, and asking twice.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use berth_tests::{
    Host, Options, Run,
    berth::BUSYBOX,
    snapshot::{Scope, Snapshot},
    until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// What the allocator of `host` has written down.
fn ranges(host: &Host) -> Vec<Value> {
    let text = fs::read_to_string(host.state_dir.join("node/ids.json")).unwrap_or_else(|_| "[]".into());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn l04_delete_leaves_nothing_but_the_quarantined_range() {
    let host = Host::start();
    let (a, b) = (host.user("a"), host.user("b"));
    let scope = Scope::slot(&host.slot);
    // Another berth stands by all the time, and what the instance makes once is there before the listing.
    let other = host.assign(&b, &[]);
    let before = Snapshot::take(&scope);
    for round in 0..2 {
        let berth = host.assign(&a, &[]);
        berth.load_busybox();
        berth.docker(&["run", "-d", "-p", "8080:80", "-v", "data:/d", "--restart", "always", BUSYBOX, "sleep", "600"]).ok();
        berth.docker(&["network", "create", "net"]).ok();
        let (base, id) = (berth.id_base(), berth.id());
        let pids = berth.group_pids("payload");
        assert!(!Snapshot::take(&scope).since(&before).0.is_empty(), "a listing that sees no berth proves nothing");
        berth.delete().ok();

        // What his own programs write into the user's home is his.
        before.assert_back_but(&scope, SOON, "/home/");
        for pid in pids {
            let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            assert!(!group.contains(&id), "process {pid} of the berth still runs");
        }
        assert!(!berth.socket().exists() && !host.run_dir.join("users").join(&a.name).exists());
        assert_eq!(host.berth(["show", &a.name]).output().status, 3);
        let ranges = ranges(&host);
        let kept: Vec<_> = ranges.iter().filter(|range| range["base"] == base).collect();
        assert_eq!(kept.len(), 1, "{ranges:?}");
        let until_ms = kept[0]["quarantined_until"].as_i64().expect("the range is in quarantine");
        let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let days = (until_ms - now_ms) as f64 / 86_400_000.0;
        assert!((29.9..30.1).contains(&days), "in quarantine for {days} days");
        assert_eq!(ranges.len(), 2 + round, "each berth had a range of its own: {ranges:?}");
    }
    other.docker(&["ps"]).ok();
}

#[test]
fn asking_twice_is_harmless() {
    let host = Host::start();
    let a = host.new_berth("a");
    let pid = a.pid();
    a.start().ok();
    assert_eq!(a.pid(), pid, "a berth that runs is not started anew");
    a.restart().ok();
    a.await_docker();
    assert_ne!(a.pid(), pid);
    a.stop().ok();
    a.stop().ok();
    assert_eq!(a.state(), "stopped");
    a.delete().ok();
    assert_eq!(a.delete().fails().status, 3);
    // The node says yes to whoever asks for what is so already.
    let gone = host.node_api("DELETE", &format!("/v1/berths/{}", a.name()), None);
    assert_eq!(gone.status, 204, "{gone:?}");
}

#[test]
fn start_stop_and_delete_at_once_end_in_what_was_asked_for_last() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--no-start"]);
    for command in ["start", "stop", "start", "restart", "stop", "start"] {
        host.berth([command, a.name(), "--no-wait"]).ok();
    }
    a.await_docker();
    a.docker(&["ps"]).ok();
    host.berth(["restart", a.name(), "--no-wait"]).ok();
    a.delete().ok();
    assert_eq!(host.berth(["show", a.name()]).output().status, 3);
    assert!(!a.socket().exists());
}

/// A small file system over a directory of the instance, taken off before the instance ends.
struct Small {
    dir: PathBuf,
}

impl Small {
    fn mount(dir: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&dir).unwrap();
        Run::new("mount").args(["-t", "tmpfs", "-o", &format!("{options},mode=0711"), "none"]).arg(&dir).ok();
        Self { dir }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Run::new("umount").arg("-l").arg(&self.dir).output_within();
    }
}

#[test]
fn a_full_host_disk_during_create_is_undone() {
    let host = Host::with(Options { disk_overcommit: 1000.0, ..Options::default() });
    let (a, b) = (host.user("a"), host.user("b"));
    let scope = Scope::slot(&host.slot);
    host.assign(&b, &["--no-start"]).delete().ok();
    let before = Snapshot::take(&scope);
    // Too small, which is seen before anything is made; then no inode for the directory, and one for the directory alone.
    for (options, why) in [("size=1100k", "does not fit"), ("size=2g,nr_inodes=1", "No space"), ("size=2g,nr_inodes=2", "No space")] {
        host.stop_node();
        let small = Small::mount(host.state_dir.join("berths"), options);
        host.start_node();
        let refused = host.assign_command(&a, &["--no-start", "--disk", "1g"]).fails();
        assert_eq!(refused.status, 5, "{options}: {refused:?}");
        assert!(refused.stderr.contains(why) && refused.stderr.contains("hint: "), "{options}: {refused:?}");
        assert_eq!(fs::read_dir(&small.dir).unwrap().count(), 0, "{options}: what was half made is gone");
        assert_eq!(host.berth(["show", &a.name]).output().status, 3, "{options}");
        host.stop_node();
        drop(small);
        host.start_node();
        before.assert_back(&scope, SOON);
    }
    // With room again, the same call works.
    host.assign(&a, &["--no-start"]);
}

#[test]
fn a_full_disk_under_the_records_is_told_and_undone() {
    let host = Host::start();
    let a = host.user("a");
    // What the first berth leaves belongs to the instance.
    host.assign(&a, &["--no-start"]).delete().ok();
    let node = host.state_dir.join("node");
    host.stop_node();
    let kept = host.slot.dir.join("node.kept");
    Run::new("cp").arg("-a").arg(&node).arg(&kept).ok();
    let small = Small::mount(node.clone(), "size=256k");
    Run::new("cp").arg("-a").arg(kept.join(".")).arg(&node).ok();
    host.start_node();
    let scope = Scope::slot(&host.slot);
    let before = Snapshot::take(&scope);
    let full = Run::new("dd").args(["if=/dev/zero", "bs=4k", &format!("of={}", node.join("ballast").display())]).output();
    assert!(full.stderr.contains("No space"), "{full:?}");
    let refused = host.assign_command(&a, &["--no-start"]).fails();
    assert_eq!(refused.status, 5, "{refused:?}");
    assert!(refused.stderr.contains("No space"), "{refused:?}");
    fs::remove_file(node.join("ballast")).unwrap();
    before.assert_back(&scope, SOON);
    host.assign(&a, &["--no-start"]).delete().ok();
    host.stop_node();
    drop(small);
    host.start_node();
}

/// No room for a record: what cannot be written down is not done, and nothing of what is gets lost. A delete still can be: it makes room.
#[test]
fn a_full_disk_under_the_records_refuses_changes_and_loses_nothing() {
    let host = Host::start();
    let (a, b) = (host.assign(&host.user("a"), &["--no-start"]), host.new_berth("b"));
    let node = host.state_dir.join("node");
    host.stop_node();
    let kept = host.slot.dir.join("node.kept");
    Run::new("cp").arg("-a").arg(&node).arg(&kept).ok();
    let small = Small::mount(node.clone(), "size=512k");
    Run::new("cp").arg("-a").arg(kept.join(".")).arg(&node).ok();
    host.start_node();
    let (pid, records) = (b.pid(), |name: &str| fs::read_to_string(node.join(format!("berths/{name}.json"))).unwrap());
    let (of_a, of_b) = (records(&a.id()), records(&b.id()));
    let ballast = node.join("ballast");
    Run::new("dd").args(["if=/dev/zero", "bs=4k", &format!("of={}", ballast.display())]).fails();
    for (what, run) in [
        ("start", a.start()),
        ("stop", b.stop()),
        ("set", host.berth(["set", b.name(), "--pids-limit", "900"])),
        ("suspend", host.berth(["suspend", b.name(), "--reason", "it is looked at"])),
    ] {
        let refused = run.fails();
        assert!(refused.stderr.contains("No space") && refused.stderr.contains("hint: "), "{what}: {refused:?}");
    }
    assert_eq!((records(&a.id()), records(&b.id())), (of_a, of_b), "each record is the old one, whole");
    assert_eq!(b.pid(), pid, "and it runs as before");
    host.kill_node();
    host.start_node();
    assert_eq!(b.pid(), pid, "taken up again from the record");
    b.delete().ok();
    fs::remove_file(&ballast).unwrap();
    until("with room again the same works", SOON, || a.start().output().success().then_some(()));
    a.await_docker();
    a.stop().ok();
    host.stop_node();
    drop(small);
    host.start_node();
}

fn doctor(host: &Host) -> (i32, Value) {
    let output = host.berth(["doctor", "--json"]).output();
    (output.status, serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}")))
}

/// The checks of a report that failed and speak of `about`.
fn complaints(report: &Value, about: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["level"] == "failed");
    checks.map(Value::to_string).filter(|text| text.contains(about)).collect()
}

#[test]
fn a_corrupt_record_is_reported_and_harms_no_other_berth() {
    let host = Host::start();
    let (a, b) = (host.assign(&host.user("a"), &["--no-start"]), host.new_berth("b"));
    let (id, pid) = (a.id(), b.pid());
    let record = host.state_dir.join(format!("node/berths/{id}.json"));
    let whole = fs::read_to_string(&record).unwrap();
    for (what, text) in [
        ("half of it", &whole[..whole.len() / 2]),
        ("nothing", ""),
        ("no JSON", "not a record\n"),
        ("another shape", "{\"version\": 1}"),
        ("a version that nobody knows", &whole.replacen("\"version\": 1", "\"version\": 999", 1)),
    ] {
        host.kill_node();
        fs::write(&record, text).unwrap();
        host.start_node();
        // The other one neither notices nor stops.
        assert_eq!(b.pid(), pid, "{what}");
        b.docker(&["ps"]).ok();
        let (status, report) = doctor(&host);
        assert_eq!(status, 1, "{what}: {report}");
        let told = complaints(&report, &id);
        assert_eq!(told.len(), 1, "{what}: {report}");
        assert!(told[0].contains("\"fix\""), "{what}: {told:?}");
        // Whatever is asked of it is refused with a reason, and the file is not written over.
        let refused = a.start().fails();
        assert_eq!(refused.status, 5, "{what}: {refused:?}");
        assert!(refused.stderr.contains(&id) && refused.stderr.contains("hint: "), "{what}: {refused:?}");
        assert_eq!(fs::read_to_string(&record).unwrap(), text, "{what}");
    }
    host.kill_node();
    fs::write(&record, &whole).unwrap();
    host.start_node();
    assert_eq!(complaints(&doctor(&host).1, &id), Vec::<String>::new());
    until("the mended berth starts", SOON, || a.start().output().success().then_some(()));
    a.docker(&["ps"]).ok();
}

#[test]
fn a_berth_with_a_corrupt_record_can_be_deleted() {
    let host = Host::start();
    let b = host.user("b");
    host.assign(&b, &["--no-start"]).delete().ok();
    let user = host.user("a");
    let before = Snapshot::take(&Scope::slot(&host.slot));
    let a = host.assign(&user, &[]);
    let record = host.state_dir.join(format!("node/berths/{}.json", a.id()));
    a.stop().ok();
    host.kill_node();
    fs::write(&record, "{").unwrap();
    host.start_node();
    a.delete().ok();
    // The parent of the control groups was made by the first start, and stays with the instance.
    before.assert_back_but(&Scope::slot(&host.slot), SOON, "control group: ");
    assert!(!Path::new(&record).exists());
    host.assign(&user, &["--no-start"]);
}

#[test]
fn an_image_that_a_berth_stands_on_stays() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--no-start"]);
    let image = a.show()["image"]["digest"].as_str().unwrap().to_owned();
    let refused = host.berth(["image", "rm", &image]).fails();
    assert_eq!(refused.status, 5, "{refused:?}");
    assert!(refused.stderr.contains(a.name()), "says who uses it: {refused:?}");
    a.start().ok();
    a.await_docker();
}

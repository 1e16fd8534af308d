//! Limits of disk I/O. Bytes go past the page cache where that matters: on cgroup v1 only such come under a limit.
#![forbid(unsafe_code)]

use std::time::Duration;

use berth_tests::{Berth, Host, Need, Output, elsewhere, until};

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// Bytes a second, as dd says: `33554432 bytes (34 MB, 32 MiB) copied, 4.00123 s, 8.4 MB/s`.
#[track_caller]
fn rate(output: &Output) -> f64 {
    assert!(output.success(), "{output:?}");
    let text = output.text();
    let line = text.lines().find(|l| l.contains(" copied, ")).unwrap_or_else(|| panic!("no figures: {output:?}"));
    let bytes: f64 = line.split(' ').next().and_then(|w| w.parse().ok()).expect("bytes");
    let seconds: f64 = line.split(" copied, ").nth(1).and_then(|w| w.split(' ').next()?.parse().ok()).expect("seconds");
    bytes / seconds
}

#[track_caller]
fn within_10_percent(what: &str, rate: f64, limit: f64) {
    assert!((limit * 0.9..=limit * 1.1).contains(&rate), "{what}: {rate:.0} of {limit:.0} a second");
}

/// dd past the page cache, on the berth's own disk.
fn dd(berth: &Berth, words: &str) -> Output {
    berth.sh(&format!("LC_ALL=C dd {words}")).output()
}

/// The same from a container, with the berth's own dd: busybox's cannot go past the cache.
fn dd_in_container(berth: &Berth, words: &str) -> Output {
    berth
        .docker(&["run", "--rm", "--privileged", "-v", "/:/h", "busybox", "chroot", "/h", "env", "LC_ALL=C", "dd"])
        .args(words.split(' '))
        .output()
}

const READ: &str = "if=/root/f of=/dev/null iflag=direct";
const WRITE: &str = "if=/dev/zero of=/root/f conv=notrunc oflag=direct";

#[test]
fn q04_bytes_and_operations_a_second_hold_within_10_percent() {
    let host = Host::start();
    let args = ["--io-read-bps", "8m", "--io-write-bps", "4m", "--io-read-iops", "300", "--io-write-iops", "100"];
    let a = host.assign(&host.user("a"), &args);
    let b = host.new_berth("b");
    a.load_busybox();
    // Made as far as possible, so that no byte of what is measured is the file system's.
    dd(&b, "if=/dev/zero of=/root/f bs=1M count=64 oflag=direct");
    dd(&a, "if=/dev/zero of=/root/f bs=1M count=32 oflag=direct");
    let before = a.status()["usage"]["io"].clone();
    within_10_percent("bytes written", rate(&dd(&a, &format!("{WRITE} bs=256k count=64"))), (4 * MIB) as f64);
    within_10_percent("bytes read", rate(&dd(&a, &format!("{READ} bs=256k count=128"))), (8 * MIB) as f64);
    within_10_percent("writes", rate(&dd(&a, &format!("{WRITE} bs=4k count=400"))) / 4096.0, 100.0);
    within_10_percent("reads", rate(&dd(&a, &format!("{READ} bs=4k count=1200"))) / 4096.0, 300.0);
    // Each byte counts once, though it passes two devices.
    let after = a.status()["usage"]["io"].clone();
    let moved = |key: &str| after[key].as_u64().expect("a number") - before[key].as_u64().expect("a number");
    for (key, least) in [("write_bytes", 16 * MIB), ("read_bytes", 32 * MIB), ("write_ops", 400), ("read_ops", 1200)] {
        assert!((least..least * 3 / 2).contains(&moved(key)), "{key}: {} for {least}, {after}", moved(key));
    }

    // From containers, and from two at once together.
    within_10_percent("from a container", rate(&dd_in_container(&a, &format!("{READ} bs=256k count=64"))), (8 * MIB) as f64);
    let two: Vec<Output> = std::thread::scope(|scope| {
        let run = || dd_in_container(&a, &format!("{READ} bs=256k count=64"));
        [scope.spawn(run), scope.spawn(run)].map(|thread| thread.join().expect("a thread")).into()
    });
    let sum: f64 = two.iter().map(rate).sum();
    assert!(sum <= (8 * MIB) as f64 * 1.15, "two containers together: {sum:.0}");

    // Nobody else is slower for it.
    let neighbour = rate(&dd(&b, &format!("{READ} bs=1M count=64")));
    assert!(neighbour > (24 * MIB) as f64, "{neighbour:.0}");
    // The home lies on the host's disk and comes under the same limit.
    let home = a.user.home.join("f");
    let home = home.display();
    a.sh(&format!("head -c 16M /dev/zero > {home} && sync {home}")).ok();
    within_10_percent("from the home", rate(&dd(&a, &format!("if={home} of=/dev/null iflag=direct bs=256k"))), (8 * MIB) as f64);
}

#[test]
fn q06_io_limits_come_and_go_on_a_running_berth() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "before", "--privileged", "-v", "/:/h", "busybox", "sleep", "100000"]).ok();
    dd(&a, "if=/dev/zero of=/root/f bs=1M count=64 oflag=direct");
    let free = rate(&dd(&a, &format!("{READ} bs=1M count=64")));
    assert!(free > (24 * MIB) as f64, "without a limit: {free:.0}");
    host.berth(["set", a.name(), "--io-read-bps", "8m"]).ok();
    within_10_percent("limited", rate(&dd(&a, &format!("{READ} bs=256k count=64"))), (8 * MIB) as f64);
    let inside = a.docker(&["exec", "before", "chroot", "/h", "env", "LC_ALL=C", "dd"]).args(READ.split(' ')).args(["bs=256k", "count=64"]);
    within_10_percent("limited in a container of before", rate(&inside.output()), (8 * MIB) as f64);
    // On cgroup v1 a container has its rate by itself until the next start, which is said.
    let pending = || a.status()["conditions"].as_array().is_some_and(|all| all.iter().any(|c| c["kind"] == "PendingRestart"));
    assert_eq!(pending(), !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "{}", a.status());
    a.restart().ok();
    a.await_docker();
    assert!(!pending(), "{}", a.status());
    within_10_percent("from its start", rate(&dd_in_container(&a, &format!("{READ} bs=256k count=64"))), (8 * MIB) as f64);
    host.berth(["set", a.name(), "--io-read-bps", "none"]).ok();
    let free = rate(&dd(&a, &format!("{READ} bs=1M count=64")));
    assert!(free > (24 * MIB) as f64, "without a limit again: {free:.0}");
}

#[test]
fn q04_on_cgroup_v2_what_goes_through_the_page_cache_comes_under_the_limit_too() {
    if elsewhere(&[Need::CgroupV2]) {
        return;
    }
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--io-write-bps", "2m"]);
    // It is written back by the kernel in the berth's name.
    let rate = rate(&dd(&a, "if=/dev/zero of=/root/f bs=1M count=24 conv=fsync"));
    assert!(rate <= (2 * MIB) as f64 * 1.1, "{rate:.0}");
    let usage = until("all of it is counted", SOON, || {
        let usage = a.status()["usage"].clone();
        (usage["io"]["write_bytes"].as_u64() >= Some(24 * MIB)).then_some(usage)
    });
    assert!(usage["pressure"]["io"]["some_avg10"].as_u64() > Some(0), "{usage}");
}

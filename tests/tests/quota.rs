//! Quotas: who passes them is stopped, and nobody else notices.
#![forbid(unsafe_code)]

use std::{
    fs,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Run, cache, until};

const SOON: Duration = Duration::from_secs(30);

/// A shell on the host answers within a second.
#[track_caller]
fn host_is_well() {
    let start = Instant::now();
    Run::new("sh").args(["-c", "ls / > /dev/null && sleep 0"]).ok();
    assert!(start.elapsed() < Duration::from_secs(1), "a host shell took {:?}", start.elapsed());
}

#[track_caller]
fn neighbour_is_well(b: &Berth) {
    let ran = b.docker_run(&["--network=none"], "echo well");
    assert_eq!(ran.stdout, "well\n", "{ran:?}");
}

#[test]
fn q01_a_memory_hog_is_killed_inside_and_all_others_live() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--memory", "512m"]);
    let b = host.new_berth("b");
    b.load_busybox();
    a.load_busybox();
    let first = a.pid();
    a.copy_probe();
    let hog = a.probe(&["hog", "4294967296"]).output();
    assert_eq!(hog.status, 137, "the hog is killed: {hog:?}");
    let touched: u64 =
        hog.stdout.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()?["touched"].as_u64()).max().unwrap_or(0);
    assert!(touched < 512 << 20, "it got {touched} bytes");
    host_is_well();
    neighbour_is_well(&b);
    // In an inner container too, where Docker names the cause.
    a.docker(&["run", "--name", "hog", "busybox", "sh", "-c", "tail /dev/zero"]).fails();
    until("the killed container is accounted for", SOON, || {
        (a.docker(&["inspect", "--format", "{{.State.ExitCode}}", "hog"]).ok() == "137").then_some(())
    });
    assert_eq!((a.pid(), a.state().as_str()), (first, "running"), "the berth itself lives");
    until("A's Docker works", SOON, || a.docker_run(&["--network=none"], "true").success().then_some(()));
}

#[test]
fn q01_a_fork_bomb_stops_at_the_quota_and_the_host_answers_within_a_second() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--pids-limit", "200"]);
    let b = host.new_berth("b");
    b.load_busybox();
    let told = a.tells(&["forkbomb", "100000"]);
    assert_eq!(told["errno"], "EAGAIN", "{told}");
    assert!(told["count"].as_u64() < Some(200), "{told}");

    // One that does not stop by itself.
    a.exec(&["bash", "-c", "b() { b | b & }; b > /dev/null 2>&1 & sleep 0.1"]).output();
    let full = || a.status()["usage"]["pids"].as_u64().filter(|&n| n >= 190);
    until("the bomb fills the quota", SOON, full);
    for _ in 0..5 {
        host_is_well();
        assert!(a.status()["usage"]["pids"].as_u64() <= Some(200));
    }
    neighbour_is_well(&b);
    // An administrator can still end it.
    a.stop().ok();
    a.await_state("stopped");
    assert!(a.group_pids("payload").is_empty());
    a.start().ok();
    a.await_docker();
}

/// Bytes that the disk image occupies on the host.
fn occupied(berth: &Berth) -> u64 {
    berth.status()["usage"]["disk_bytes"].as_u64().expect("what it occupies")
}

#[test]
fn q03_a_full_disk_is_enospc_inside_only_and_deleted_bytes_come_back_to_the_host() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--disk", "1g"]);
    let b = host.new_berth("b");
    a.load_busybox();
    b.load_busybox();

    let df = |path: &str| -> Vec<u64> {
        let text = a.sh(&format!("df -B1 --output=size,avail {path} | tail -1")).ok();
        text.split_whitespace().map(|w| w.parse().expect("a number")).collect()
    };
    for path in ["/", "/var/lib/docker", "/var/lib/containerd"] {
        let size = df(path)[0];
        assert!((900 << 20..=1 << 30).contains(&size), "df {path} shows {size}");
    }
    let in_container = a.docker_run(&[], "df -k / | tail -1").stdout;
    let kib: u64 = in_container.split_whitespace().find_map(|w| w.parse().ok()).expect("a size");
    assert!(kib <= 1 << 20, "df in a container shows {in_container}");

    // A volume takes a third, an image layer a third, the root file system the rest: one quota for all.
    let before = occupied(&a);
    let volume = a.docker_run(&["-v", "vol:/v"], "dd if=/dev/urandom of=/v/f bs=1M count=300");
    assert!(volume.success(), "{volume:?}");
    a.docker(&["run", "--name", "big", "busybox", "dd", "if=/dev/urandom", "of=/f", "bs=1M", "count=300"]).ok();
    let told = a.tells(&["disk-fill", "/root/f", "4294967296"]);
    assert_eq!((&told["ok"], &told["errno"]), (&false.into(), &"ENOSPC".into()), "{told}");
    let written = told["written"].as_u64().expect("a number");
    assert!((100 << 20..=450 << 20).contains(&written), "what was left of 1 GiB: {told}");
    let volume = a.docker_run(&["-v", "vol:/v"], "dd if=/dev/urandom of=/v/g bs=1M count=100").stderr;
    let shell = a.sh("dd if=/dev/urandom of=/home/g bs=1M count=100").fails();
    assert!(volume.to_lowercase().contains("no space left") && shell.stderr.contains("No space left"), "{volume}\n{shell:?}");

    // Nobody else notices.
    b.sh("dd if=/dev/urandom of=/root/f bs=1M count=100 conv=fsync").ok();
    neighbour_is_well(&b);
    fs::write(host.slot.dir.join("file"), vec![7; 10 << 20]).expect("the host can write");
    // No error reached the file system: it is not aborted, and reads go on.
    a.sh("cat /root/f > /dev/null && ls / > /dev/null").ok();

    a.sh("sync").ok();
    let full = occupied(&a);
    assert!(full > before + (700 << 20), "the disk occupies {full} of the host, before it was {before}");
    a.sh("rm -f /root/f /home/g").ok();
    a.docker(&["rm", "-f", "big"]).ok();
    a.docker(&["volume", "rm", "vol"]).ok();
    a.sh("sync").ok();
    until("what was deleted inside is free on the host again", SOON, || (occupied(&a) < full - (700 << 20)).then_some(()));
    assert!(df("/")[1] > 700 << 20, "it can be used again");
    a.sh("dd if=/dev/urandom of=/root/again bs=1M count=200 conv=fsync").ok();
}

/// A value of the first process's control group, on whichever hierarchy it lies, read on the host.
fn limit(berth: &Berth, controller: &str, names: &[&str]) -> String {
    let pid = berth.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    let mut directories = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ':');
        let (_, controllers, path) = (words.next(), words.next().expect("controllers"), words.next().expect("path"));
        if controllers.split(',').any(|c| c == controller) {
            directories.push(format!("/sys/fs/cgroup/{controller}{path}"));
        } else if controllers.is_empty() {
            directories.push(format!("/sys/fs/cgroup{path}"));
        }
    }
    // The payload may have moved to a group below the one with the limits.
    for directory in &directories {
        let mut at = std::path::Path::new(directory);
        while at.starts_with("/sys/fs/cgroup/") && at.to_string_lossy().contains("berth") {
            for name in names {
                let value = fs::read_to_string(at.join(name)).unwrap_or_default().trim().to_owned();
                if !value.is_empty() && !value.starts_with("max") && value != "-1" && value.len() < 19 {
                    return value;
                }
            }
            at = at.parent().expect("a parent");
        }
    }
    panic!("no limit for {controller} in {directories:?}");
}

#[test]
fn q07_a_berth_has_all_four_limits_whatever_is_asked_for() {
    let host = Host::start();
    let user = host.user("a");
    // Nothing said: the profile's.
    host.berth(["assign", &user.name]).ok();
    let a = host.berth_of(&user);
    a.await_docker();
    let limits = a.status()["limits"].clone();
    for key in ["cpu_millis", "memory_bytes", "pids", "disk_bytes"] {
        assert!(limits[key].as_u64() > Some(0), "{key} in {limits}");
    }
    let of = |key: &str| limits[key].as_u64().expect("a number").to_string();
    assert_eq!(limit(&a, "memory", &["memory.max", "memory.limit_in_bytes"]), of("memory_bytes"));
    assert_eq!(limit(&a, "pids", &["pids.max"]), of("pids"));
    let quota = limit(&a, "cpu", &["cpu.max", "cpu.cfs_quota_us"]);
    let quota: u64 = quota.split(' ').next().expect("a word").parse().expect("a number");
    assert_eq!(quota, limits["cpu_millis"].as_u64().expect("a number") * 100);
    if !a.disk().is_dir() {
        assert_eq!(fs::metadata(a.disk()).expect("disk").len(), limits["disk_bytes"].as_u64().expect("a number"));
    }

    // No limit is no answer, neither at creation nor later.
    let other = host.user("b");
    for (flag, value) in
        [("--memory", "0"), ("--cpus", "0"), ("--pids-limit", "0"), ("--disk", "0"), ("--pids-limit", "-1"), ("--memory", "-1")]
    {
        let told = host.berth(["assign", &other.name]).arg(format!("{flag}={value}")).fails();
        assert!([2, 5].contains(&told.status), "{told:?}");
        let told = host.berth(["set", &user.name]).arg(format!("{flag}={value}")).fails();
        assert!([2, 5].contains(&told.status), "{told:?}");
    }
    assert_eq!(a.status()["limits"], limits);
    assert_eq!(host.berth(["show", &other.name]).output().status, 3, "nothing half-made");
}

/// An image whose own first process tells the limits that it finds.
#[test]
fn q07_the_limits_hold_from_the_first_instant() {
    let host = Host::start();
    let maker = host.new_berth("maker");
    maker.load_busybox();
    let script = "for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
                  /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max; do test -f $f && echo limit $f $(cat $f); done; \
                  echo disk $(df -k / | tail -1); echo told; trap exit TERM; sleep 100000 & wait";
    let dockerfile = format!("FROM {}\nENTRYPOINT {}\n", berth_tests::berth::BUSYBOX, serde_json::json!(["sh", "-c", script]));
    maker.docker(&["build", "-t", "teller", "-"]).input(dockerfile).ok();
    let tar = maker.user.home.join("teller.tar");
    maker.docker(&["save", "-o", &tar.to_string_lossy(), "teller"]).ok();
    host.berth(["image", "import"]).arg(&tar).args(["--name", "teller"]).ok();
    assert!(host.berth(["image", "list"]).ok().contains(cache::IMAGE));

    let user = host.user("a");
    host.assign_command(
        &user,
        &["--image", "teller", "--memory", "512m", "--cpus", "0.5", "--pids-limit", "100", "--disk", "1g", "--no-start"],
    )
    .ok();
    let a = host.berth_of(&user);
    // Nobody waits for a Docker that such an image never promised.
    let order = Instant::now();
    a.start().ok();
    assert!(order.elapsed() < Duration::from_secs(20), "the start of an image with its own entry point took {:?}", order.elapsed());
    let log = until("the image's own first process has spoken", SOON, || {
        let log = host.berth(["logs", a.name()]).output().stdout;
        log.contains("told").then_some(log)
    });
    let has = |what: &str, value: &str| {
        let found = log.lines().any(|l| l.contains(what) && l.contains("limit ") && l.split_whitespace().nth(2) == Some(value));
        assert!(found, "no {what} {value} in:\n{log}");
    };
    has("memory", "536870912");
    has("pids.max", "100");
    has("cpu", "50000");
    let disk = log.lines().find(|l| l.contains("disk ")).expect("df").to_owned();
    let kib: u64 = disk.split_whitespace().find_map(|w| w.parse().ok()).expect("a size");
    assert!(kib <= 1 << 20, "{disk}");
    a.delete().ok();
}

//! Limits as figures of the kernel: that they hold, that they nest, and what becomes of them when they are changed while a berth runs.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, time::Duration};

use berth_tests::{
    Berth, Host, Options, Running,
    fault::{Fault, Step, signal},
    group::{self, CPU_QUOTA, CPU_WEIGHT, MEMORY, PIDS},
    until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// A measure.
const WINDOW: Duration = Duration::from_secs(10);
/// Windows that a busy host may spoil.
const WINDOWS: usize = 6;
const MIB: u64 = 1 << 20;

/// The kernel's own cgroup version for limits.
fn hybrid() -> bool {
    !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// For the measuring: the berths of this instance together weigh so many times what other work of the machine does.
#[track_caller]
fn first_in_line(host: &Host, times: u64) {
    let (file, _) = group::file(&host.slot.groups(), CPU_WEIGHT);
    let weight = times * if hybrid() { 1024 } else { 100 };
    fs::write(&file, weight.to_string()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

/// One endless loop on each CPU.
#[track_caller]
fn burn(berth: &Berth) -> Running {
    let script = "for cpu in $(seq 0 $(($(nproc --all) - 1))); do taskset -c $cpu sh -c 'while :; do :; done' & done; echo burning; wait";
    let mut running = berth.sh(script).spawn();
    running.line_with("burning", SOON);
    running
}

#[test]
fn q02_a_cpu_quota_holds_within_5_percent_also_from_inner_containers() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--cpus", "0.5"]);
    a.load_busybox();
    first_in_line(&host, 100);
    let dirs = a.group_dirs("payload");
    let half = |what: &str, dirs: &[PathBuf], quota: f64| {
        let cpus = group::cpus_at_quota(dirs, WINDOW, WINDOWS, quota * 1.05).unwrap_or_else(|| panic!("{what}: the host is too busy"));
        assert!(cpus >= quota * 0.95, "{what}: {cpus:.3} CPUs of {quota}");
    };
    let burning = burn(&a);
    half("from the berth", &dirs, 0.5);
    drop(burning);
    // Without finding itself.
    a.sh("pkill -KILL -f '[w]hile :' || true").ok();

    let name = a.docker(&["run", "-d", "busybox", "sh", "-c", "while :; do :; done"]).ok();
    a.docker(&["run", "-d", "busybox", "sh", "-c", "while :; do :; done & while :; do :; done"]).ok();
    half("from two inner containers", &dirs, 0.5);
    let usage = a.status()["usage"].clone();
    assert!(usage["throttled_usec"].as_u64() > Some(1_000_000), "{usage}");

    // Changed while it runs.
    host.berth(["set", a.name(), "--cpus", "0.25"]).ok();
    half("after it was lowered", &dirs, 0.25);
    assert!(!a.inner_group(&name[..12]).is_empty(), "the container still runs");
}

#[test]
fn q02_weights_share_a_busy_host_in_proportion() {
    // Without the trim of each second.
    let host = Host::with(Options { node_config: String::new(), ..Options::default() });
    let all = std::thread::available_parallelism().expect("CPUs").to_string();
    let a = host.assign(&host.user("a"), &["--cpus", &all, "--cpu-weight", "300"]);
    let b = host.assign(&host.user("b"), &["--cpus", &all]);
    let weight = |berth: &Berth| berth.group_number("", CPU_WEIGHT);
    assert_eq!((weight(&a), weight(&b)), if hybrid() { (3072, 1024) } else { (300, 100) });
    // Their quota is the whole host, so that only the weights part it.
    first_in_line(&host, 16);
    let _burning = (burn(&a), burn(&b));
    // Who wakes now and then makes Linux 6.18 weigh his group anew, to the loss of the lighter one: 300 : 100 gives 3.6 beside idle
    // Docker daemons and 2.98 beside stopped ones. Groups made by hand do the same: 6 beside three loops of sleep(20 ms), 3.00 without.
    for berth in [&a, &b] {
        berth.sh("pkill -STOP dockerd; pkill -STOP containerd").ok();
    }
    let (of_a, of_b) = (a.group_dirs("payload"), b.group_dirs("payload"));
    let now = || (group::cpu(&of_a).usage_usec, group::cpu(&of_b).usage_usec);
    let ratio = || {
        let before = now();
        std::thread::sleep(WINDOW);
        let after = now();
        (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
    };
    // Others on the host take their part too, now of the one's processor, now of the other's: one of some measures is of these two alone.
    let within = |what: &str, range: std::ops::RangeInclusive<f64>| {
        let mut found: Vec<f64> = Vec::new();
        while found.len() < 4 && !found.last().is_some_and(|last| range.contains(last)) {
            found.push(ratio());
        }
        assert!(found.last().is_some_and(|last| range.contains(last)), "{what} gave {found:.2?}\n{}\n{}", processes(&a), processes(&b));
    };
    within("300 : 100", 2.55..=3.45);
    host.berth(["set", b.name(), "--cpu-weight", "300"]).ok();
    within("300 : 300", 0.85..=1.17);
}

/// Name, CPUs and used time (ticks) of each process.
fn processes(berth: &Berth) -> String {
    let told = |pid: u32| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (stat, status) = (read("stat"), read("status"));
        let cpus = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or_default().trim().to_owned();
        let used = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(12)).unwrap_or_default().to_owned();
        format!("{} on {cpus}: {used}", read("comm").trim())
    };
    berth.group_pids("payload").into_iter().map(told).collect::<Vec<_>>().join(", ")
}

/// Every file of the control groups inside that says a limit of the berth.
const INSIDE: &str = "for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes \
                      /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/pids/pids.max \
                      /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.high /sys/fs/cgroup/memory.swap.max /sys/fs/cgroup/cpu.max \
                      /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/pids.max /sys/fs/cgroup/io.max \
                      /sys/fs/cgroup/memory.oom.group /sys/fs/cgroup/cgroup.max.descendants; do test -e $f && echo $f; done; true";

#[test]
fn q05_root_inside_reads_its_limits_and_changes_none() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--memory", "512m", "--pids-limit", "300", "--cpus", "0.5"]);
    let figures = || [MEMORY, PIDS, CPU_QUOTA].map(|names| a.group_file("payload", names).1);
    let before = figures();
    assert_eq!(before[0], (512 * MIB).to_string());
    let files = a.sh(INSIDE).ok();
    let files: Vec<&str> = files.lines().collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let text = a.exec(&["cat", file]).ok();
        assert!(!text.is_empty(), "{file}");
        for value in ["max", "-1", "4294967296"] {
            let told = a.tells(&["write", file, value]);
            assert_eq!(told["ok"], false, "{file} {value}: {told}");
            assert!(["EACCES", "EPERM"].iter().any(|errno| told["errno"] == *errno), "{file} {value}: {told}");
        }
        a.exec(&["chmod", "0666", file]).fails();
        a.exec(&["chown", "0:0", file]).fails();
    }
    // The same hierarchies mounted anew, and a group of its own with more than the berth has: all of it below the payload.
    let anew = "mkdir -p /tmp/c; for o in memory cpu pids; do mount -t cgroup -o $o none /tmp/c 2>/dev/null || continue; \
                for f in memory.limit_in_bytes cpu.cfs_quota_us pids.max cpu.shares; do test -e /tmp/c/$f && echo 100000 > /tmp/c/$f && echo CHANGED $f; \
                test -e /tmp/c/../$f && echo OUTSIDE; done; umount /tmp/c; done; mount -t cgroup2 none /tmp/c && { \
                for f in memory.max cpu.max pids.max; do echo max > /tmp/c/$f && echo CHANGED $f; done; umount /tmp/c; }; true";
    let told = a.sh(anew).output();
    assert!(!told.stdout.contains("CHANGED") && !told.stdout.contains("OUTSIDE"), "{told:?}");
    let larger = "for d in /sys/fs/cgroup/memory /sys/fs/cgroup; do mkdir -p $d/larger 2>/dev/null || continue; \
                  for f in memory.limit_in_bytes memory.max; do test -e $d/larger/$f && echo 4294967296 > $d/larger/$f; done; \
                  echo $$ > $d/larger/cgroup.procs && break; done; exec berth-probe hog 4294967296";
    a.copy_probe();
    let hog = a.sh(larger).output();
    assert_eq!(hog.status, 137, "{hog:?}");
    assert_eq!(figures(), before);
}

#[test]
fn q05_limits_of_inner_containers_nest_below_the_berths() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    first_in_line(&host, 100);
    let limits = ["-m", "64m", "--cpus", ".5", "--pids-limit", "20"];
    let burn = "while :; do :; done & while :; do :; done";
    let id = a.docker(&["run", "-d"]).args(limits).args(["busybox", "sh", "-c", burn]).ok();
    let dirs = until("the container has its groups", SOON, || Some(a.inner_group(&id)).filter(|dirs| !dirs.is_empty()));
    assert_eq!(group::file(&dirs, MEMORY).1, (64 * MIB).to_string());
    assert_eq!(group::file(&dirs, PIDS).1, "20");
    assert_eq!(group::first_number(&group::file(&dirs, CPU_QUOTA).1), Some(50_000));
    let cpus = group::cpus_at_quota(&dirs, WINDOW, WINDOWS, 0.525).expect("the host is too busy");
    assert!(cpus >= 0.475, "{cpus:.3} CPUs of 0.5");
    a.docker(&["rm", "-f", &id]).ok();

    // They bind: for memory, and for processes.
    let hog = a.docker(&["run", "--name", "hog"]).args(limits).args(["busybox", "sh", "-c", "tail /dev/zero"]).output();
    assert_eq!(hog.status, 137, "{hog:?}");
    assert_eq!(a.docker(&["inspect", "--format", "{{.State.OOMKilled}}", "hog"]).ok(), "true");
    let forks = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i + 1)); done; echo never";
    let bomb = a.docker_run(&limits, forks);
    assert!(!bomb.stdout.contains("never") && bomb.text().contains("fork"), "{bomb:?}");
    // The container's own root sees them.
    let seen = a.docker_run(&limits, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null").stdout;
    assert_eq!(seen.trim(), (64 * MIB).to_string());
    assert!(a.status()["usage"]["oom_kills"].as_u64() >= Some(1) || hybrid(), "{}", a.status());
}

/// Limits in the kernel: CPU quota, weight, memory, processes.
#[track_caller]
fn in_force(berth: &Berth) -> [u64; 4] {
    let number = |names| berth.group_number("payload", names);
    [number(CPU_QUOTA), berth.group_number("", CPU_WEIGHT), number(MEMORY), number(PIDS)]
}

#[test]
fn q06_limits_of_a_running_berth_change_at_once_and_no_process_notices() {
    let host = Host::start();
    let a = host.new_berth("a");
    let pid = a.pid();
    let weight = |weight: u64| if hybrid() { weight * 1024 / 100 } else { weight };
    for (args, expected) in [
        (["--cpus=1.5", "--cpu-weight=50", "--memory=2g", "--pids-limit=2000"], [150_000, weight(50), 2048 * MIB, 2000]),
        (["--cpus=0.3", "--cpu-weight=1000", "--memory=700m", "--pids-limit=500"], [30_000, weight(1000), 700 * MIB, 500]),
    ] {
        host.berth(["set", a.name()]).args(args).ok();
        assert_eq!(in_force(&a), expected, "{args:?}");
    }
    // What was fewer than its processes ends none, and is held to from there.
    host.berth(["set", a.name(), "--pids-limit", "64"]).ok();
    let told = a.tells(&["forkbomb", "1000"]);
    assert_eq!(told["errno"], "EAGAIN", "{told}");
    host.berth(["set", a.name(), "--pids-limit", "500", "--swap", "256m", "--memory-high", "600m"]).ok();
    let (file, both) = a.group_file("payload", &["memory.memsw.limit_in_bytes", "memory.swap.max"]);
    let expected = if hybrid() { 956 * MIB } else { 256 * MIB };
    assert_eq!(both, expected.to_string(), "{}", file.display());
    assert_eq!(a.group_number("payload", &["memory.high", "memory.soft_limit_in_bytes"]), 600 * MIB);
    host.berth(["set", a.name(), "--swap", "none", "--memory-high", "none"]).ok();
    assert_eq!(a.pid(), pid);
    // The next start has the same.
    let before = in_force(&a);
    a.restart().ok();
    a.await_docker();
    assert_eq!(in_force(&a), before);
    // And so has a node that comes up beside a running berth whose limits somebody touched.
    let (file, _) = a.group_file("payload", PIDS);
    host.kill_node();
    fs::write(&file, "77").expect("write");
    host.start_node();
    until("the record's limits are in force again", SOON, || (in_force(&a) == before).then_some(()));
}

/// A process that holds so much anonymous memory.
#[track_caller]
fn hold_memory(berth: &Berth, mib: u64) -> Running {
    let script = format!("my $x = ''; $x .= 'a' x 1048576 for 1 .. {mib}; $| = 1; print \"held\\n\"; sleep 100000");
    let mut running = berth.exec(&["perl", "-e", &script]).spawn();
    running.line_with("held", SOON);
    running
}

#[test]
fn q06_memory_below_use_is_taken_back_or_refused_and_nothing_else_changes_then() {
    let host = Host::start();
    let a = host.new_berth("a");
    let mut holding = hold_memory(&a, 500);
    let (before, limits) = (in_force(&a), a.status()["limits"].clone());
    let told = host.berth(["set", a.name(), "--memory", "400m", "--cpus", "1", "--pids-limit", "300", "--cpu-weight", "7"]).fails();
    let told = told.text();
    assert!(told.contains("memory_bytes") && told.contains("419430400") && told.contains("1073741824"), "{told}");
    assert_eq!((in_force(&a), &a.status()["limits"]), (before, &limits), "all is as it was");
    assert_eq!(a.show()["limits"]["memory_bytes"], 1024 * MIB, "{}", a.show());
    assert!(holding.alive(), "nothing was killed");
    assert_eq!(a.status()["usage"]["oom_kills"], 0);

    // What can be taken back is no use: a file that was read.
    a.sh("head -c 400M /dev/urandom > /root/f && sync && cat /root/f > /dev/null").ok();
    let usage = || a.status()["usage"]["memory_bytes"].as_u64().expect("a number");
    assert!(usage() > 700 * MIB, "{}", usage());
    host.berth(["set", a.name(), "--memory", "700m"]).ok();
    assert_eq!(in_force(&a)[2], 700 * MIB);
    assert!(usage() <= 700 * MIB && holding.alive(), "{}", usage());
}

#[test]
fn q06_cpu_below_what_a_container_was_given() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "given", "--cpus", "1.5", "busybox", "sleep", "100000"]).ok();
    let before = in_force(&a);
    let set = || host.berth(["set", a.name(), "--cpus", "1", "--pids-limit", "300", "--memory", "800m"]);
    if hybrid() {
        // Version 1 wants every quota to hold in the one above. The answer says who has more.
        let told = set().fails().text();
        assert!(told.contains("cpu_millis") && told.contains("1500"), "{told}");
        assert_eq!(in_force(&a), before);
        a.docker(&["update", "--cpus", "0.5", "given"]).ok();
    }
    set().ok();
    assert_eq!(in_force(&a)[..1], [100_000]);
    assert_eq!(a.docker(&["inspect", "--format", "{{.State.Running}}", "given"]).ok(), "true");
}

#[test]
fn i08_the_hosts_limits_are_raised_and_put_back() {
    let names = ["fs.inotify.max_user_instances", "kernel.keys.maxkeys", "fs.aio-max-nr", "net.ipv4.neigh.default.gc_thresh3"];
    let read = || names.map(|name| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).expect(name).trim().to_owned());
    let memory = || fs::read_to_string("/run/berth-tuning/values.json").ok();
    // Another node may be at work.
    let alone = memory().is_none();
    let before = read();
    let host = Host::start();
    let noted: Value = serde_json::from_str(&memory().expect("what was raised is written down")).expect("JSON");
    let node = format!("berth{}", host.slot.instance());
    assert!(noted["nodes"].as_array().expect("nodes").iter().any(|n| *n == node), "{noted}");
    let during = read().map(|value| value.parse::<u64>().expect("a number"));
    assert!(during[0] >= 8192 && during[1] >= 2000 && during[2] >= 1 << 20 && during[3] > 1024, "{during:?}");
    let report = host.berth(["doctor", "--json"]).output();
    let report: Value = serde_json::from_str(&report.stdout).expect("JSON");
    let check =
        |name: &str| report["checks"].as_array().and_then(|all| all.iter().find(|c| c["name"] == name)).cloned().unwrap_or_default();
    let limits = check("host limits");
    assert_eq!(limits["level"], "ok", "{report}");
    for name in ["I/O limits", "swap accounting", "pressure", "memory reclaim", "memory throttling"] {
        assert!(check(name)["level"].is_string(), "{name}: {report}");
    }
    if alone {
        let raised = noted["raised"].as_object().expect("an object");
        for (name, former) in names.iter().zip(&before) {
            if let Some(entry) = raised.get(*name) {
                assert_eq!(entry["former"].to_string(), *former, "{name}");
                assert!(limits["detail"].as_str().is_some_and(|d| d.contains(&format!("(raised from {former})"))), "{limits}");
            }
        }
    }
    drop(host);
    match memory() {
        None if alone => assert_eq!(read(), before),
        None => {}
        Some(text) => assert!(!text.contains(&format!("\"{node}\"")), "{text}"),
    }
}

#[test]
fn i08_the_hosts_kernel_hurries_while_a_berth_starts_and_no_longer() {
    let switch = || fs::read_to_string("/sys/kernel/rcu_expedited").expect("the kernel's switch").trim().to_owned();
    let fault = Fault::new();
    let host = Host::with(Options { env: vec![fault.env()], ..Options::default() });
    let a = host.new_berth("a");
    let mark = host.run_dir.join("expedited");
    let over = || until("the haste is over", SOON, || (!mark.exists() && switch() == "0").then_some(()));
    over();

    let start_halted = || {
        a.stop().ok();
        fault.arm("halt", &Step { name: "let PID 1 go".into(), who: "shim".into(), number: 1 });
        let starting = a.start().spawn();
        (starting, until("the start stands still", SOON, || fault.struck()).pid)
    };
    let (starting, shim) = start_halted();
    assert_eq!((mark.exists(), switch().as_str()), (true, "1"));
    // Not for as long as a start may take.
    over();
    signal(shim, Signal::SIGCONT);
    let started = starting.finish(SOON);
    assert!(started.success(), "{started:?}");
    a.await_docker();
    over();

    // Nor for as long as nobody is there to end it.
    let (starting, shim) = start_halted();
    host.kill_node();
    assert_eq!((mark.exists(), switch().as_str()), (true, "1"));
    signal(shim, Signal::SIGKILL);
    host.start_node();
    over();
    drop(starting);
    a.await_docker();
    over();
}

//! `/proc` and `/sys` tell the truth about the quota, in berths and in the containers inside.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Run, until};

const SOON: Duration = Duration::from_secs(30);
/// All of them, and what each begins with.
const FILES: [(&str, &str); 9] = [
    ("/proc/meminfo", "MemTotal:"),
    ("/proc/cpuinfo", "processor"),
    ("/proc/stat", "cpu  "),
    ("/proc/loadavg", ""),
    ("/proc/swaps", "Filename"),
    ("/proc/diskstats", ""),
    ("/sys/devices/system/cpu/online", "0"),
    ("/sys/devices/system/cpu/possible", "0"),
    ("/sys/devices/system/cpu/present", "0"),
];

/// The issue's: shown as one CPU, the host has more.
const SMALL: [&str; 4] = ["--memory", "1g", "--cpus", "0.5"];

/// Waits until the emulated files cover the kernel's own: a moment after PID 1 began.
#[track_caller]
fn covered<'b, 'h>(berth: &'b Berth<'h>) -> &'b Berth<'h> {
    until("the emulated files are there", SOON, || {
        berth.sh("grep -q ' /sys/devices/system/cpu/present .* fuse ' /proc/self/mountinfo").output().success().then_some(())
    });
    berth
}

/// A berth that is covered.
#[track_caller]
fn assign<'h>(host: &'h Host, name: &str, args: &[&str]) -> Berth<'h> {
    let berth = host.assign(&host.user(name), args);
    covered(&berth);
    berth
}

#[track_caller]
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {text:?}"))
}

/// KiB of a line of `/proc/meminfo`.
#[track_caller]
fn meminfo(text: &str, key: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{key}:"))).unwrap_or_else(|| panic!("no {key} in {text}"));
    number(line.split_whitespace().nth(1).unwrap_or_default())
}

/// The numbers of a line of `/proc/stat`.
#[track_caller]
fn stat(text: &str, key: &str) -> Vec<u64> {
    let line = text.lines().find(|line| line.split(' ').next() == Some(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
    line.split_whitespace().skip(1).map(number).collect()
}

#[track_caller]
fn stat_of(berth: &Berth<'_>, key: &str) -> Vec<u64> {
    stat(&berth.exec(&["cat", "/proc/stat"]).ok(), key)
}

/// CPUs in use, as the berth's `/proc/stat` tells over a while.
#[track_caller]
fn busy(berth: &Berth<'_>, seconds: u64) -> f64 {
    let text = berth
        .sh(&format!("head -n1 /proc/stat; cut -d' ' -f1 /proc/uptime; sleep {seconds}; head -n1 /proc/stat; cut -d' ' -f1 /proc/uptime"))
        .ok();
    let lines: Vec<&str> = text.lines().collect();
    let [before, from, after, to] = lines[..] else { panic!("{text}") };
    let used = |line: &str| stat(line, "cpu")[0] + stat(line, "cpu")[2];
    let passed: f64 = to.parse::<f64>().expect("seconds") - from.parse::<f64>().expect("seconds");
    (used(after) - used(before)) as f64 / 100.0 / passed
}

#[test]
fn p01_uptime_counts_from_the_berths_start_and_swap_agrees_with_the_quota() {
    let host = Host::start();
    let began = Instant::now();
    let a = assign(&host, "a", &SMALL);
    a.load_busybox();
    let uptime = |text: &str| text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).expect("seconds");
    let of_host = uptime(&fs::read_to_string("/proc/uptime").expect("uptime"));
    let inside = uptime(&a.exec(&["cat", "/proc/uptime"]).ok());
    let inner = uptime(&a.docker_run(&["--network=none"], "cat /proc/uptime").stdout);
    let since = began.elapsed().as_secs_f64();
    assert!(of_host > since + 60.0, "this host has only just booted");
    for shown in [inside, inner] {
        assert!(shown > 0.0 && shown < since + 1.0, "{shown} s, of a berth assigned {since} s ago");
    }
    // The same moment by another way.
    let clock = a.sh("echo $(( $(date +%s) - $(cut -d. -f1 /proc/uptime) )); grep btime /proc/stat").ok();
    let lines: Vec<&str> = clock.lines().collect();
    assert!(stat(lines[1], "btime")[0].abs_diff(number(lines[0])) <= 2, "{clock}");

    // No swap in the quota: neither here nor there, whatever the host has.
    assert_eq!(a.exec(&["cat", "/proc/swaps"]).ok().lines().count(), 1);
    for text in [a.exec(&["cat", "/proc/meminfo"]).ok(), a.docker_run(&["--network=none"], "cat /proc/meminfo").stdout] {
        assert_eq!((meminfo(&text, "SwapTotal"), meminfo(&text, "SwapFree")), (0, 0), "{text}");
    }
    let free = a.exec(&["free", "-k"]).ok();
    assert!(free.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["Swap:", "0", "0", "0"]), "{free}");

    a.restart().ok();
    a.await_docker();
    let again = uptime(&a.exec(&["cat", "/proc/uptime"]).ok());
    assert!(again < began.elapsed().as_secs_f64() - since + 1.0, "{again} s after a restart");
}

/// "Shown by" of the issue, as it stands there.
#[test]
fn p02_p03_a_quota_of_1_gib_and_half_a_cpu_is_what_a_berth_and_an_inner_container_show() {
    let host = Host::start();
    let cpus = thread::available_parallelism().expect("CPUs").get();
    assert!(cpus > 1, "a host of one CPU shows nothing here");
    let a = assign(&host, "a", &SMALL);
    a.load_busybox();
    let show = "free -m | grep Mem: ; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online; grep -c '^cpu[0-9]' /proc/stat; \
                cat /sys/devices/system/cpu/possible /sys/devices/system/cpu/present; nproc";
    for output in [a.sh(show).output(), a.docker_run(&["--network=none"], show)] {
        assert!(output.success() && output.stderr.is_empty(), "{output:?}");
        let text = output.stdout;
        let lines: Vec<&str> = text.lines().collect();
        let total = number(lines[0].split_whitespace().nth(1).unwrap_or_default());
        assert!((1020..=1024).contains(&total), "free -m: {text}");
        // What a program may run on is another question than how much of it: nproc reads the affinity, and stays.
        assert_eq!(lines[1..], ["1", "0", "1", "0", "0", &cpus.to_string()], "{text}");
    }
    let uptime = a.docker_run(&["--network=none"], "uptime");
    assert!(uptime.success() && uptime.stdout.contains("load average: ") && uptime.stdout.contains(" up 0 min"), "{uptime:?}");
    let top = a.docker_run(&["--network=none"], "top -bn1");
    // "Mem: 123K used, 456K free, …"
    let memory = top.stdout.lines().find(|line| line.starts_with("Mem: ")).unwrap_or_else(|| panic!("{top:?}"));
    let figures: Vec<u64> = memory.split("K ").filter_map(|part| part.rsplit(' ').next()?.parse().ok()).collect();
    assert_eq!(figures[0] + figures[1], 1 << 20, "{memory}");
    assert!(top.stdout.contains("CPU: ") && top.stdout.contains("Load average: "), "{top:?}");
    // With the berth's own procps.
    let top = a.exec(&["top", "-bn1"]).ok();
    assert!(top.contains("MiB Mem :   1024.0 total") && top.contains("MiB Swap:      0.0 total"), "{top}");
}

#[test]
fn p02_times_load_and_disk_are_the_berths_own() {
    let host = Host::start();
    let (a, b) = (assign(&host, "a", &SMALL), assign(&host, "b", &["--cpus", "2"]));
    // Of B the host's CPUs are full; A sees nothing of it.
    b.sh("for i in 1 2 3 4; do setsid sh -c 'while :; do :; done' > /dev/null 2>&1 < /dev/null & done").ok();
    until("B's load rises", SOON, || {
        let text = b.exec(&["cat", "/proc/loadavg"]).ok();
        (text.split(' ').next()?.parse::<f64>().ok()? > 0.5).then_some(())
    });
    let of_a = a.exec(&["cat", "/proc/loadavg"]).ok();
    let words: Vec<&str> = of_a.split([' ', '/']).collect();
    assert!(words[0].parse::<f64>().expect("a load") < 0.5 && words.len() == 6, "{of_a}");
    let threads: u64 =
        a.sh("cat /proc/[0-9]*/status | grep -h ^Threads: | awk '{ sum += $2 } END { print sum }'").ok().parse().expect("a number");
    assert!(number(words[4]).abs_diff(threads) <= 5, "{of_a}: {threads} threads");
    let running = stat_of(&b, "procs_running")[0];
    assert!((4..8).contains(&running), "{running} run in B");
    let (idle, crowded) = (busy(&a, 2), busy(&b, 2));
    assert!(idle < 0.3, "A uses {idle} CPUs");
    assert!(crowded > 2.0 * idle && crowded > 0.1, "B uses {crowded} CPUs, A {idle}");
    b.exec(&["pkill", "-f", "while :"]).output();

    // Half a CPU is used, all of it; the rest was wanted and denied.
    a.sh("setsid sh -c 'while :; do :; done' > /dev/null 2>&1 < /dev/null &").ok();
    let before = stat_of(&a, "cpu");
    let used = busy(&a, 3);
    let after = stat_of(&a, "cpu");
    assert!((0.1..=0.65).contains(&used), "A uses {used} CPUs of 0.5");
    let (idle, stolen) = (after[3] - before[3], after[7] - before[7]);
    // A busy host may leave it less than its quota: then nothing is denied.
    assert!(stolen > 0 || used < 0.4, "{stolen} ticks denied, {idle} idle, {used} CPUs used");
    a.exec(&["pkill", "-f", "while :"]).output();

    // Processes made, by the pids they get.
    let made = stat_of(&a, "processes")[0];
    a.sh("i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done").ok();
    // What was read a moment ago may be shown once more, here and below.
    let more = until("what was made shows", SOON, || Some(stat_of(&a, "processes")[0] - made).filter(|&more| more >= 50));
    assert!(more < 500, "{more} processes made");

    // The disk: one line, and what is written shows in it.
    let written = || {
        let text = a.exec(&["cat", "/proc/diskstats"]).ok();
        assert_eq!(text.lines().count(), 1, "{text}");
        number(text.split_whitespace().nth(9).unwrap_or_default())
    };
    let before = written();
    a.sh("dd if=/dev/urandom of=/root/x bs=1M count=8 conv=fsync 2>/dev/null").ok();
    let sectors = until("what was written shows", SOON, || Some(written() - before).filter(|&sectors| sectors >= 16_384));
    assert!(sectors < 200_000, "{sectors} sectors for 8 MiB");
}

#[test]
fn p02_a_quota_that_changes_is_shown_at_once() {
    let host = Host::start();
    let a = assign(&host, "a", &SMALL);
    a.load_busybox();
    let shown = || {
        let text = a.sh("cat /sys/devices/system/cpu/online /proc/meminfo").ok();
        (text.lines().next().unwrap_or_default().to_owned(), meminfo(&text, "MemTotal"))
    };
    assert_eq!(shown(), ("0".into(), 1 << 20));
    host.berth(["set", a.name(), "--cpus", "1.5", "--memory", "1536m"]).ok();
    until("the new quota is shown", SOON, || (shown() == ("0-1".to_owned(), 1536 << 10)).then_some(()));
    assert_eq!(a.docker_run(&["--network=none"], "cat /sys/devices/system/cpu/online").stdout, "0-1\n");
}

#[test]
fn p03_an_inner_container_of_its_own_limit_shows_that() {
    let host = Host::start();
    let a = assign(&host, "a", &["--memory", "1g", "--cpus", "2"]);
    a.load_busybox();
    let script = "grep MemTotal /proc/meminfo | tr -dc 0-9; echo; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online; \
                  grep -c '^cpu[0-9]' /proc/stat";
    let shown = |args: &[&str]| {
        let output = a.docker_run(args, script);
        assert!(output.success(), "{output:?}");
        output.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown(&["--network=none"]), ["1048576", "2", "0-1", "2"]);
    assert_eq!(shown(&["--network=none", "-m", "64m"]), ["65536", "2", "0-1", "2"]);
    assert_eq!(shown(&["--network=none", "-m", "128m", "--cpus", "0.7"]), ["131072", "1", "0", "1"]);
    assert_eq!(shown(&["--network=none", "--cpuset-cpus", "1"]), ["1048576", "1", "0", "1"]);
    // More than the berth has is no limit.
    assert_eq!(shown(&["--network=none", "-m", "2g"]), ["1048576", "2", "0-1", "2"]);
    for odd in [&["--privileged"][..], &["--pid=host"], &["--net=host"], &["--user", "1000", "--read-only"]] {
        assert_eq!(shown(&[odd, &["-m", "64m"]].concat()), ["65536", "2", "0-1", "2"], "{odd:?}");
    }
    // Whoever joins one, and a build.
    a.docker(&["run", "-d", "--name", "capped", "-m", "64m", "--network=none", "busybox", "sleep", "600"]).ok();
    let exec = a.docker(&["exec", "capped", "sh", "-c", script]).ok();
    assert_eq!(exec.lines().next(), Some("65536"));
    let build =
        a.docker(&["build", "--progress=plain", "--network=none", "-"]).input("FROM busybox\nRUN grep MemTotal /proc/meminfo\n").output();
    assert!(build.success() && build.text().contains(" 1048576 kB"), "{build:?}");
    // Each answer is to the one who asked: both at once, many times.
    let both = thread::scope(|scope| {
        let small = scope.spawn(|| {
            a.docker(&["exec", "capped", "sh", "-c", "for i in $(seq 300); do head -n1 /proc/meminfo; done | sort | uniq -c"]).ok()
        });
        let large = scope.spawn(|| a.sh("for i in $(seq 300); do head -n1 /proc/meminfo; done | sort | uniq -c").ok());
        [small, large].map(|told| told.join().expect("an answer").split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    });
    assert_eq!(both[0], ["300", "MemTotal:", "65536", "kB"]);
    assert_eq!(both[1], ["300", "MemTotal:", "1048576", "kB"]);
}

#[test]
fn p04_a_fresh_proc_and_sysfs_can_be_mounted_also_deep_down_and_in_nested_user_namespaces() {
    let host = Host::start();
    let a = assign(&host, "a", &[]);
    a.load_busybox();
    // Where it stands, in another mount namespace, and three pid namespaces deep: each sees itself as the first process.
    let fresh =
        "mkdir -p /tmp/p /tmp/s && mount -t proc proc /tmp/p && mount -t sysfs sysfs /tmp/s && test -d /tmp/p/1 && test -d /tmp/s/class";
    a.sh(&format!("{fresh} && umount /tmp/p /tmp/s")).ok();
    let own = "mount -t proc proc /proc && mount -t sysfs sysfs /sys && read -r pid rest < /proc/self/stat && test $pid = $$";
    for depth in 1..=3 {
        let script = (0..depth).fold(format!("{own} && {fresh} && echo $$"), |script, _| {
            format!("exec unshare -mpf sh -c '{}'", script.replace('\'', r"'\''"))
        });
        assert_eq!(a.sh(&script).ok(), "1", "{depth} deep");
    }
    // In user namespaces of C and of U, where the covers are locked and would forbid it.
    for run in [
        a.sh("unshare -Urmpf --mount-proc sh -c 'ls /proc | grep -c ^[0-9]'"),
        a.sh_as_user("unshare -Urmpf --mount-proc sh -c 'ls /proc | grep -c ^[0-9]'"),
    ] {
        assert!(number(&run.ok()) <= 4);
    }
    a.sh("unshare -Urmn mount -t sysfs sysfs /sys").ok();
    a.sh_as_user("unshare -Urmn mount -t sysfs sysfs /sys").ok();
    // And in an inner container that may see all of /proc.
    for script in [
        "unshare -Urmpf --mount-proc true",
        "unshare -Urmn mount -t sysfs sysfs /sys",
        "mount -t proc proc /mnt",
        "mount -t sysfs sysfs /mnt",
    ] {
        let ran = a.docker_run(&["--privileged", "--tmpfs", "/mnt"], script);
        assert!(ran.success(), "{script}: {ran:?}");
    }
    // As it is with any Docker.
    let masked = a.docker_run(&["--cap-add=ALL", "--security-opt", "seccomp=unconfined"], "ls /dev/.berth");
    assert!(!masked.success(), "nothing of a masked /proc is shown elsewhere: {masked:?}");
}

/// Ten loops in each of five berths. `BERTH_TEST_LONG` makes no difference: this is the behaviour's own time.
#[test]
fn p07_ten_loops_of_readers_in_each_of_five_berths_see_no_error_and_their_own_figures() {
    const SECONDS: u64 = 30;
    let host = Host::start();
    let sizes: BTreeMap<&str, u64> = [("a", 512), ("b", 576), ("c", 640), ("d", 704), ("e", 768)].into();
    let berths: Vec<(Berth<'_>, u64)> =
        sizes.iter().map(|(name, mib)| (assign(&host, name, &["--memory", &format!("{mib}m"), "--cpus", "2"]), *mib << 10)).collect();
    let files: Vec<&str> = FILES.iter().map(|(file, _)| *file).collect();
    let reader = |kib: u64| {
        format!(
            "end=$(( $(date +%s) + {SECONDS} )); for n in $(seq 10); do ( \
               while [ $(date +%s) -lt $end ]; do \
                 cat {all} > /dev/null || echo error; \
                 read -r key total rest < /proc/meminfo; [ \"$total\" = {kib} ] || echo \"wrong $total\"; \
               done; echo done ) & done; wait",
            all = files.join(" ")
        )
    };
    thread::scope(|scope| {
        let reading: Vec<_> = berths
            .iter()
            .map(|(berth, kib)| scope.spawn(move || berth.sh(&reader(*kib)).limit(Duration::from_secs(SECONDS + 60)).output()))
            .collect();
        // Meanwhile the host is asked what asks every process and every file system.
        let end = Instant::now() + Duration::from_secs(SECONDS);
        while Instant::now() < end {
            Run::new("ps").args(["-eo", "pid,args"]).limit(Duration::from_secs(10)).ok();
            Run::new("df").limit(Duration::from_secs(10)).ok();
        }
        for reading in reading {
            let output = reading.join().expect("the readers end");
            assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("done\n".repeat(10).as_str(), ""), "{output:?}");
        }
    });
}

#[test]
fn p07_a_stuck_emulator_holds_up_its_own_berth_and_nothing_else() {
    let host = Host::start();
    let (a, b) = (assign(&host, "a", &SMALL), assign(&host, "b", &SMALL));
    let mut reader = a.sh("while :; do head -n1 /proc/meminfo || echo error; sleep 0.1; done").spawn();
    assert!(reader.line(SOON).is_some_and(|line| line.starts_with("MemTotal:")));
    let shim = a.shim_pid().to_string();
    Run::new("kill").args(["-STOP", &shim]).ok();
    let stuck = Instant::now();
    // A stopped shim answers nobody: its reader hangs …
    until("the reader of A waits", SOON, || {
        a.group_pids("payload")
            .iter()
            .any(|pid| fs::read_to_string(format!("/proc/{pid}/stack")).is_ok_and(|stack| stack.contains("fuse")))
            .then_some(())
    });
    // … and all others do as before.
    for (file, begins) in FILES {
        let text = b.exec(&["cat", file]).limit(Duration::from_secs(10)).ok();
        assert!(text.starts_with(begins), "{file}: {text}");
    }
    for tool in [&["ps", "-eo", "pid,stat,wchan,args"][..], &["df"], &["cat", "/proc/mounts"]] {
        Run::new(tool[0]).args(&tool[1..]).limit(Duration::from_secs(10)).ok();
    }
    assert!(stuck.elapsed() < Duration::from_secs(20), "all that took {:?}", stuck.elapsed());
    Run::new("kill").args(["-CONT", &shim]).ok();
    for _ in 0..20 {
        let line = reader.line(SOON).expect("the reader goes on");
        assert!(line.starts_with("MemTotal:"), "{line}");
    }
}

#[test]
fn p07_an_aborted_emulator_is_the_tenants_own_loss_until_the_next_start() {
    let host = Host::start();
    let (a, b) = (assign(&host, "a", &SMALL), assign(&host, "b", &SMALL));
    a.load_busybox();
    a.sh("umount -f /dev/.berth/emulated").output();
    let read = a.exec(&["cat", "/proc/meminfo"]).fails();
    assert!(read.stderr.contains("not connected"), "{read:?}");
    assert_eq!(meminfo(&b.exec(&["cat", "/proc/meminfo"]).ok(), "MemTotal"), 1 << 20);
    // The covers off, he sees what he would without them; his Docker and its containers work with and without.
    let inner = a.docker_run(&["--network=none"], "cat /proc/meminfo");
    assert!(inner.success(), "{inner:?}");
    a.sh("umount /proc/meminfo && grep -q MemTotal /proc/meminfo").ok();
    assert_eq!(a.state(), "running");
    a.restart().ok();
    a.await_docker();
    assert_eq!(meminfo(&covered(&a).exec(&["cat", "/proc/meminfo"]).ok(), "MemTotal"), 1 << 20);
}

/// What is no honest reading of them.
#[test]
fn p07_odd_requests_are_refused_and_nothing_piles_up() {
    let host = Host::start();
    let a = assign(&host, "a", &SMALL);
    let dir = "/dev/.berth/emulated";
    let listed = a.exec(&["ls", dir]).ok();
    assert_eq!(listed.lines().count(), FILES.len(), "{listed}");
    for script in [
        "echo x > /proc/meminfo",
        &format!("touch {dir}/new"),
        &format!("mkdir {dir}/new"),
        &format!("rm {dir}/stat"),
        &format!("mv {dir}/stat {dir}/other"),
        &format!("ln {dir}/stat {dir}/other"),
        &format!("ln -s x {dir}/other"),
        &format!("mknod {dir}/fifo p"),
        "chmod 777 /proc/stat",
        "chown 5 /proc/stat",
        "truncate -s 0 /proc/stat",
        &format!("mount -o remount,rw {dir} && echo x > {dir}/stat"),
        &format!("cat {dir}/nothing"),
        &format!("cat {dir}"),
    ] {
        assert!(!a.sh(script).output().success(), "allowed: {script}");
    }
    // Odd places and odd ways to read.
    a.sh(&format!("mkdir -p /tmp/m && mount --bind {dir} /tmp/m && unshare -m cat /tmp/m/stat > /dev/null && umount /tmp/m")).ok();
    a.sh("dd if=/proc/meminfo bs=1 skip=1000000 count=1 2>/dev/null; dd if=/proc/meminfo bs=7 2>/dev/null | head -n1 | grep -q 1048576")
        .ok();
    a.sh("stat -c %w:%s:%F /proc/stat; stat -f /proc/stat > /dev/null; flock /proc/stat true; tail -c 5 /proc/loadavg > /dev/null; cmp /proc/cpuinfo /proc/cpuinfo").ok();
    // Three hundred that begin to read and never go on.
    let before = shim_kib(&a);
    a.sh("for n in $(seq 300); do ( read -r line; exec sleep 300 ) < /proc/cpuinfo > /dev/null 2>&1 & done; sleep 0.1").ok();
    assert_eq!(meminfo(&a.exec(&["cat", "/proc/meminfo"]).ok(), "MemTotal"), 1 << 20);
    a.exec(&["pkill", "sleep"]).ok();
    a.sh("for n in $(seq 2000); do cat /proc/stat /proc/meminfo > /dev/null || exit 1; done").ok();
    let grown = shim_kib(&a).saturating_sub(before);
    assert!(grown < 16 << 10, "the shim grew by {grown} KiB");
    assert!(!host.log("node").contains("Not Implemented"), "a tenant writes the node's log");
}

/// Resident memory of the shim.
#[track_caller]
fn shim_kib(berth: &Berth<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", berth.shim_pid())).expect("the shim's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    number(line.trim().trim_end_matches(" kB"))
}

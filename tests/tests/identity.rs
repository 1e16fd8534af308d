//! Who a berth is, and what of the host it is not. `C` root inside, `U` uid 1000 inside.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use berth_tests::{Berth, Host, Options, Run, User, programs, until};
use serde_json::Value;

const NAMESPACES: [&str; 8] = ["pid", "mnt", "net", "ipc", "uts", "user", "cgroup", "time"];
/// A while for what takes no time.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn i01_uid_and_gid_map_are_one_line_from_0() {
    let host = Host::start();
    let a = host.new_berth("a");
    for file in ["uid_map", "gid_map"] {
        let text = a.exec(&["cat", &format!("/proc/self/{file}")]).ok();
        let lines: Vec<Vec<u32>> =
            text.lines().map(|line| line.split_whitespace().map(|w| w.parse().expect("a number")).collect()).collect();
        let [line] = &lines[..] else { panic!("{file} is not one line: {lines:?}") };
        assert_eq!(line[..2], [0, a.id_base()], "{file}");
        assert!(line[1] > 0 && line[2] >= 65_536, "{file}: {lines:?}");
    }
}

/// All the ids of a process: real, effective, saved, of the file system.
fn ids(pid: u32, key: &str) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().to_owned();
    line.split_whitespace().map(|w| w.parse().expect("an id")).collect()
}

/// First and last id of every line `name:first:count`.
fn subordinate(file: &str) -> Vec<(u32, u32)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let range = |line: &str| -> Option<(u32, u32)> {
        let mut words = line.split(':').skip(1);
        let (first, count) = (words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?);
        Some((first, first.saturating_add(count) - 1))
    };
    text.lines().filter_map(range).collect()
}

#[test]
fn i02_no_process_of_a_berth_has_host_id_0_and_ranges_overlap_nothing() {
    let host = Host::start();
    let berths = [host.new_berth("a"), host.new_berth("b")];
    let mut ranges = Vec::new();
    for berth in &berths {
        berth.load_busybox();
        berth.docker(&["run", "-d", "--privileged", "--user", "0", "busybox", "sleep", "1000"]).ok();
        berth.docker(&["run", "-d", "--user", "1000", "busybox", "sleep", "1000"]).ok();
        let base = berth.id_base();
        let range = (base, base + 65_535);
        let mut pids = berth.group_pids("payload");
        assert!(pids.contains(&berth.pid()) && pids.len() >= 5, "PID 1, two daemons, two containers: {pids:?}");
        pids.extend(berth.group_pids("shim"));
        for pid in pids {
            for key in ["Uid:", "Gid:", "Groups:"] {
                for id in ids(pid, key) {
                    assert!((range.0..=range.1).contains(&id), "process {pid} has {key} {id}, outside {range:?}");
                }
            }
        }
        ranges.push(range);
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("passwd");
    let group = fs::read_to_string("/etc/group").expect("group");
    let accounts = passwd.lines().chain(group.lines()).filter_map(|l| l.split(':').nth(2)?.parse::<u32>().ok()).map(|id| (id, id));
    let others: Vec<(u32, u32)> = accounts.chain(subordinate("/etc/subuid")).chain(subordinate("/etc/subgid")).collect();
    assert!(others.len() > 20, "the accounts of the host were read");
    let overlap = |a: (u32, u32), b: (u32, u32)| a.0 <= b.1 && b.0 <= a.1;
    assert!(!overlap(ranges[0], ranges[1]), "{ranges:?}");
    for range in ranges {
        assert!(!others.iter().any(|&other| overlap(range, other)), "{range:?} overlaps an account or a subordinate range");
    }
}

/// Ranges that others have are stepped over, also those that came after the pool was chosen.
#[test]
fn i02_a_range_in_etc_subuid_is_stepped_over() {
    let host = Host::start();
    let (first, _) = host.slot.ids();
    let claimed = User::create(&format!("{}sub", host.slot.account_prefix()), host.slot.dir.join("sub"));
    Run::new("usermod").args(["--add-subuids", &format!("{first}-{}", first + 9), &claimed.name]).ok();
    let a = host.new_berth("a");
    assert!(a.id_base() > first + 9, "{} lies in a range of {}", a.id_base(), claimed.name);
}

fn namespaces_of(pid: &str) -> Vec<String> {
    let link = |name: &&str| fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("namespace").to_string_lossy().into_owned();
    NAMESPACES.iter().map(link).collect()
}

#[test]
fn i03_every_namespace_differs_from_the_host_and_from_every_other_berth() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let here = namespaces_of("self");
    let of_a = namespaces_of(&a.pid().to_string());
    let of_b = namespaces_of(&b.pid().to_string());
    for (index, name) in NAMESPACES.iter().enumerate() {
        let three = BTreeSet::from([&here[index], &of_a[index], &of_b[index]]);
        assert_eq!(three.len(), 3, "{name}: {three:?}");
    }
    // What enters is inside too.
    let inside = a.tells(&["nsids"]);
    for (index, name) in NAMESPACES.iter().enumerate() {
        assert_eq!(inside[name], Value::from(of_a[index].as_str()), "{name} of an exec");
    }
}

#[test]
fn i04_root_inside_has_every_capability_there_and_an_ordinary_user_none() {
    let host = Host::start();
    let a = host.new_berth("a");
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("cap_last_cap").trim().parse().expect("a number");
    let all = format!("{:016x}", (1_u64 << (last + 1)) - 1);
    let root = a.tells(&["caps"]);
    for set in ["permitted", "effective", "bounding"] {
        assert_eq!(root[set], all.as_str(), "{set} of C: {root}");
    }
    let user = a.probe_as_user(&["caps"]).json();
    for set in ["permitted", "effective", "inheritable", "ambient"] {
        assert_eq!(user[set], "0000000000000000", "{set} of U: {user}");
    }
    let one = fs::read_to_string(format!("/proc/{}/status", a.pid())).expect("status of PID 1");
    assert!(one.contains(&format!("CapEff:\t{all}")), "PID 1 has every capability in its namespace");

    // Within its own namespaces they work …
    a.sh("hostname other && chown 7:7 /root && mount -t tmpfs none /mnt && umount /mnt && ip link add v0 type veth peer v1").ok();
    // … and over what belongs to the host they do not.
    for (what, script) in [
        ("set the clock", "date -s @1"),
        ("name the host's module loader", "echo /tmp/x > /proc/sys/kernel/modprobe"),
        ("write a host-global sysctl", "echo 1 > /proc/sys/kernel/panic"),
        ("drop the host's caches", "echo 3 > /proc/sys/vm/drop_caches"),
        ("press the magic key", "echo h > /proc/sysrq-trigger"),
        ("mount a block device", "mknod /tmp/vda b 254 0 && mount /tmp/vda /mnt"),
        ("raise a hard limit of the host", "ulimit -H -l unlimited"),
    ] {
        let output = a.sh(script).output();
        assert!(!output.success(), "C could {what}: {output:?}");
    }
}

#[test]
fn i05_nothing_on_the_rootfs_is_nobodys_and_files_lie_as_id_0_on_the_disk() {
    let host = Host::start();
    let a = host.new_berth("a");
    let kernels = "! -path /proc ! -path /sys ! -path '/dev/.berth/*'";
    let found = a.sh(&format!("find / /dev /run /var/lib/docker -xdev {kernels} \\( -uid 65534 -o -gid 65534 \\) -print | head")).ok();
    assert_eq!(found, "", "these are nobody's inside");

    a.sh("echo c > /root/of-c; echo m > /root/of-many && chown 1234:65535 /root/of-many && mkdir /srv/u && chown 1000:1000 /srv/u").ok();
    a.sh_as_user("echo u > /srv/u/of-u").ok();
    a.sh("sync; sync -f /root/of-c").ok();
    let disk = a.disk();
    for (path, uid, gid) in [("root/of-c", 0, 0), ("root/of-many", 1234, 65_535), ("srv/u/of-u", 1000, 1000)] {
        if disk.is_dir() {
            let owner = fs::metadata(disk.join("rootfs/upper").join(path)).map(|file| (file.uid(), file.gid()));
            assert_eq!(owner.expect("the file"), (uid, gid), "{path}");
            continue;
        }
        let stat = format!("stat /rootfs/upper/{path}");
        let text = until(&format!("{path} is on the disk"), SOON, || {
            let output = Run::new("debugfs").args(["-R", &stat]).arg(&disk).output();
            output.stdout.contains("Inode:").then_some(output.stdout)
        });
        let words: Vec<&str> = text.split_whitespace().collect();
        let after = |key: &str| words.iter().position(|w| *w == key).and_then(|at| words.get(at + 1)?.parse::<u32>().ok());
        assert_eq!((after("User:"), after("Group:")), (Some(uid), Some(gid)), "{path}: {text}");
    }
}

#[test]
fn i06_host_pids_do_not_exist_inside_and_the_host_name_is_its_own() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let victim = Run::new("sleep").arg("1000").spawn();
    // A pid that means nothing inside: pids there begin at 1 again.
    let refused = a.tells(&["kill", &victim.pid().to_string()]);
    assert_eq!((&refused["ok"], &refused["errno"]), (&Value::from(false), &Value::from("ESRCH")), "{refused}");
    let shell = a.sh(&format!("kill -9 {}", victim.pid())).fails();
    assert!(shell.stderr.contains("No such process"), "{shell:?}");
    assert!(Path::new("/proc").join(victim.pid().to_string()).exists());
    let inside = a.exec(&["ps", "-e", "-o", "pid="]).ok();
    let most = inside.split_whitespace().filter_map(|p| p.parse::<u32>().ok()).max();
    assert!(most.is_some_and(|most| most < 1000), "pids inside are the berth's own: {inside}");
    // Everyone inside, and nobody outside.
    a.sh("kill -9 -1; true").output();
    assert!(Path::new("/proc").join(victim.pid().to_string()).exists() && b.state() == "running");

    let (before, of_b) = (fs::read_to_string("/proc/sys/kernel/hostname").expect("host name"), b.exec(&["hostname"]).ok());
    a.await_docker();
    a.exec(&["hostname", "x"]).ok();
    assert_eq!(a.exec(&["hostname"]).ok(), "x");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("host name"), before);
    assert_eq!(b.exec(&["hostname"]).ok(), of_b);

    for as_whom in [a.sh("unshare -Urpf --mount-proc ps -e -o pid=,comm="), a.sh_as_user("unshare -Urpf --mount-proc ps -e -o pid=,comm=")]
    {
        let listed = as_whom.ok();
        let lines: Vec<Vec<&str>> = listed.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines, [["1", "ps"]]);
    }
}

#[test]
fn i07_a_deleted_berths_range_goes_to_nobody_while_it_is_in_quarantine() {
    let host = Host::start();
    let a = host.new_berth("a");
    let first = a.id_base();
    a.delete().ok();
    let b = host.new_berth("b");
    assert_ne!(b.id_base(), first);
    // The same user is no exception: what his old berth made must not be the new one's.
    let again = host.assign(&a.user, &[]);
    assert_ne!(again.id_base(), first);
    drop((again, b));

    // Without a quarantine it is given out again at once.
    drop(host);
    let host = Host::with(Options { quarantine_days: 0, ..Options::default() });
    let a = host.new_berth("a");
    let first = a.id_base();
    a.delete().ok();
    assert_eq!(host.new_berth("b").id_base(), first);
}

/// What the probe gets as a host user; it has given it back when this returns.
fn fill_on_host(user: &User, args: &[&str]) -> Value {
    let probe = user.home.join("berth-probe");
    if !probe.exists() {
        fs::copy(programs::find("berth-probe"), &probe).expect("copy the probe");
    }
    // In an ipc namespace, with which shared memory goes whatever becomes of this test; it counts against the user all the same.
    let ids = ["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups", "--"].map(str::to_owned);
    let mut running = Run::new("unshare").args(["--ipc", "setpriv"]).args(ids).arg(&probe).args(args).spawn();
    let line = running.line(SOON).expect("the probe says something");
    let ended = running.finish(SOON);
    assert!(ended.success(), "{ended:?}");
    serde_json::from_str(&line).expect("JSON")
}

#[test]
fn i08_a_berth_that_uses_up_kernel_resources_takes_them_from_nobody() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    // The kernel gives keys back some time after their process; so one user for before and one for after.
    let (someone, other) = (host.user("someone"), host.user("other"));
    for kind in ["inotify-fill", "mqueue-fill", "keys-fill", "timers-fill", "lock-fill"] {
        // Queues need a mount of their own; a host user has none.
        let on_host = kind != "mqueue-fill";
        let before = on_host.then(|| fill_on_host(&someone, &[kind]));
        let (of_a, taken) = a.hold(&[kind]);
        assert!(!taken["errno"].is_null() && taken["count"].as_u64() > Some(0), "{kind} has no limit: {taken}");
        let (of_b, left) = b.hold(&[kind]);
        assert!(left["count"].as_u64() >= taken["count"].as_u64(), "{kind}: A got {taken}, B was left {left}");
        if on_host {
            let after = fill_on_host(&other, &[kind]);
            assert_eq!(before, Some(after), "{kind}: what a host user gets");
        }
        let mut root = Run::new(programs::find("berth-probe")).args(["inotify-fill"]).spawn();
        let of_root = root.line(SOON).expect("the probe says something");
        assert!(serde_json::from_str::<Value>(&of_root).expect("JSON")["count"].as_u64() > Some(20), "{kind}: root got {of_root}");
        drop(root);
        for (running, whose) in [(of_a, "A"), (of_b, "B")] {
            let output = running.finish(SOON);
            assert!(output.success(), "{whose}: {output:?}");
        }
    }
    signals_pend_on_their_own_account(&a, &b);
}

/// Real-time signals queue at a stopped process until the user's limit.
fn signals_pend_on_their_own_account(a: &Berth, b: &Berth) {
    let queued = |berth: &Berth| {
        let text = berth.sh("grep SigQ /proc/self/status").ok();
        let mut words = text.trim_start_matches("SigQ:").trim().split('/').map(|w| w.parse::<u64>().expect("a number"));
        (words.next().expect("queued"), words.next().expect("limit"))
    };
    // What is not stopped yet ends by such a signal.
    let stopped = "sleep 1000 & p=$!; kill -STOP $p; until grep -q 'State:.T' /proc/$p/status; do :; done";
    let script = "ulimit -i 5000; \
                  ( ulimit -i 5000; i=0; while [ $i -lt 6000 ]; do kill -s 40 $p || break; i=$((i+1)); done ); grep SigQ /proc/$p/status";
    let text = a.exec(&["bash", "-c", &format!("{stopped}; {script}")]).ok();
    assert!(queued(a).0 >= 4000, "signals are pending in A: {text}");
    assert!(queued(b).0 < 100, "A's signals count against B");
    let pends = "kill -s 40 $p && grep -q 'SigPnd:.*[1-9a-f]' /proc/$p/task/$p/status || grep -q 'ShdPnd:.*[1-9a-f]' /proc/$p/status; \
                 r=$?; kill -9 $p; exit $r";
    b.exec(&["bash", "-c", &format!("{stopped}; {pends}")]).ok();
}

//! The disk of a berth: its limits live, both backends, and a host that is too small for what its berths were promised.
#![forbid(unsafe_code)]

use std::{
    collections::HashSet,
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use berth_tests::{
    Berth, Host, Need, Options, Run, elsewhere,
    fault::{Fault, Step},
    until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// For writing some GiB.
const WRITING: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Disks in images, whatever the host's file system could do; trimmed only when the node finds it worth while.
const IMAGES: &str = "[disk]\nbackend = \"loop\"\n";

fn with(node_config: &str) -> Host {
    Host::with(Options { node_config: node_config.into(), ..Options::default() })
}

/// Size and what is available, as `df` says inside.
#[track_caller]
fn df(berth: &Berth) -> (u64, u64) {
    let text = berth.sh("df -B1 --output=size,avail / | tail -1").ok();
    let mut words = text.split_whitespace().map(|word| word.parse().expect("a number"));
    (words.next().expect("a size"), words.next().expect("what is available"))
}

/// The message of a condition, if the berth has it.
#[track_caller]
fn condition(berth: &Berth, kind: &str) -> Option<String> {
    let status = berth.status();
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    all.iter().find(|condition| condition["kind"] == kind).map(|condition| condition["message"].as_str().expect("a message").to_owned())
}

#[track_caller]
fn set(berth: &Berth, args: &[&str]) -> Run {
    berth.host.berth(["set", berth.name()]).args(args)
}

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn q06_lowering_a_disk_binds_at_once_and_at_every_start_and_below_use_it_is_refused_with_the_figures() {
    let host = with(IMAGES);
    let a = host.assign(&host.user("a"), &["--disk", "4g"]);
    let pid = a.pid();
    assert!(df(&a).1 > 3 * GIB);
    a.sh("dd if=/dev/urandom of=/root/f bs=1M count=300 conv=fsync").ok();
    set(&a, &["--disk", "2g"]).ok();
    let bound = || {
        let (size, available) = df(&a);
        assert!(size > 3 * GIB, "an ext4 stays as large as it is: {size}");
        assert!((GIB..2 * GIB - 300 * MIB).contains(&available), "{available} are available");
        let told = a.tells(&["disk-fill", "/root/g", "4294967296"]);
        assert_eq!((&told["errno"], &told["sync_errno"]), (&"ENOSPC".into(), &Value::Null), "{told}");
        assert!(bytes(&told["written"]) <= available && bytes(&told["written"]) > available - 200 * MIB, "{told} of {available}");
        a.sh("rm /root/g && sync").ok();
    };
    bound();
    assert_eq!(a.pid(), pid, "it never stopped");
    assert_eq!(condition(&a, "PendingRestart"), None);

    let told = set(&a, &["--disk", "1g"]).ok();
    assert!(df(&a).1 < 700 * MIB, "{told}");
    a.sh("dd if=/dev/urandom of=/root/h bs=1M count=500 conv=fsync").ok();
    set(&a, &["--disk", "4g"]).ok();
    assert!(df(&a).1 > 2 * GIB);
    a.sh("dd if=/dev/urandom of=/root/i bs=1M count=800 conv=fsync").ok();
    let refused = set(&a, &["--disk", "1g"]).fails();
    let text = refused.text();
    assert!(text.contains("1073741824") && text.contains("disk_below_use") | text.contains("uses"), "{refused:?}");
    let used: u64 =
        text.split_whitespace().filter_map(|word| word.parse().ok()).find(|&n: &u64| n > GIB + 500 * MIB).expect("the figure used");
    assert!(used < 2 * GIB, "{refused:?}");
    assert!(df(&a).1 > GIB, "the old limit holds");
    assert_eq!(bytes(&a.status()["limits"]["disk_bytes"]), 4 * GIB);

    // ext4 forgets what it holds back at every unmount.
    a.sh("rm /root/h /root/i && sync").ok();
    set(&a, &["--disk", "2g"]).ok();
    a.restart().ok();
    a.await_docker();
    bound();
    // And whoever has set it may die.
    host.kill_node();
    host.start_node();
    a.await_docker();
    bound();
    let usage = a.status()["usage"]["disk"].clone();
    let (limit, used) = (bytes(&usage["limit_bytes"]), bytes(&usage["used_bytes"]));
    assert!((300 * MIB..500 * MIB).contains(&used) && limit < 2 * GIB && limit > GIB + 500 * MIB, "{usage}");
}

#[test]
fn q06_a_disk_grows_while_its_berth_runs_or_says_that_it_waits_and_grows_at_the_next_start() {
    let host = with(IMAGES);
    let a = host.assign(&host.user("a"), &["--disk", "1g"]);
    a.sh("dd if=/dev/urandom of=/root/f bs=1M count=200 conv=fsync && md5sum /root/f > /root/sum").ok();
    set(&a, &["--disk", "3g"]).ok();
    match Need::SysResource.is_here() {
        true => assert_eq!(condition(&a, "PendingRestart"), None),
        false => {
            let told = condition(&a, "PendingRestart").expect("it waits");
            assert!(told.contains("1073741824") && told.contains("3221225472"), "{told}");
            assert!(df(&a).0 < GIB);
            a.restart().ok();
            a.await_docker();
        }
    }
    let (size, available) = df(&a);
    assert!(size > 2800 * MIB && available > 2500 * MIB, "{size} {available}");
    assert_eq!((condition(&a, "PendingRestart"), condition(&a, "DiskNotGrown")), (None, None));
    a.sh("md5sum -c /root/sum && dd if=/dev/urandom of=/root/g bs=1M count=1500 conv=fsync").ok();
    assert_eq!(fs::metadata(a.disk()).expect("the image").len(), 3 * GIB);
}

#[test]
fn q06_a_mounted_disk_grows_without_a_restart() {
    if elsewhere(&[Need::SysResource]) {
        return;
    }
    let host = with(IMAGES);
    let a = host.assign(&host.user("a"), &["--disk", "1g"]);
    let pid = a.pid();
    set(&a, &["--disk", "2g"]).ok();
    assert!(df(&a).0 > 1800 * MIB);
    a.sh("fallocate -l 1300M /root/f && dd if=/dev/zero of=/root/f bs=1M seek=1250 count=50 conv=notrunc,fsync").ok();
    assert_eq!((a.pid(), condition(&a, "PendingRestart")), (pid, None));
}

#[test]
fn q06_whoever_dies_while_a_disk_grows_or_its_limit_changes_leaves_a_whole_one() {
    let fault = Fault::new();
    let host = Host::with(Options { node_config: IMAGES.into(), env: vec![fault.env()], ..Options::default() });
    let a = host.assign(&host.user("a"), &["--disk", "1g"]);
    a.sh("dd if=/dev/urandom of=/root/f bs=1M count=200 conv=fsync && md5sum /root/f > /root/sum").ok();
    let kill_at = |step: &str, work: Run| {
        fault.arm("kill", &Step { name: step.into(), who: "node".into(), number: 1 });
        let working = work.spawn();
        assert!(host.node_died(SOON), "nobody came by {step:?}");
        drop(working);
        host.start_node();
    };
    for (step, gib) in [("check the disk", 2), ("grow the disk", 3), ("keep the grown disk", 4)] {
        a.stop().ok();
        set(&a, &["--disk", &format!("{gib}g")]).ok();
        kill_at(step, a.start());
        a.start().ok();
        a.await_docker();
        let (size, _) = df(&a);
        assert!(size > gib * GIB - 300 * MIB, "{step}: {size}");
        a.sh("md5sum -c /root/sum").ok();
        assert_eq!((condition(&a, "PendingRestart"), condition(&a, "DiskNotGrown")), (None, None), "{step}");
    }
    let before = df(&a).1;
    kill_at("change the disk", set(&a, &["--disk", "2g"]));
    // The server asks again; until then the old one holds.
    until("the new limit holds", SOON, || (df(&a).1 < before - GIB).then_some(()));
    a.sh("md5sum -c /root/sum").ok();
    a.stop().ok();
    Run::new("e2fsck").args(["-f", "-n"]).arg(a.disk()).limit(WRITING).ok();
}

#[test]
fn q03_inodes_are_a_quota_of_their_own_and_a_berth_without_any_left_harms_nobody() {
    let host = with(IMAGES);
    let a = host.assign(&host.user("a"), &["--inodes", "20000"]);
    let b = host.assign(&host.user("b"), &["--disk", "1g"]);
    let inodes = |what: &str| a.sh(&format!("df --output={what} / | tail -1")).ok().trim().parse::<u64>().expect("a number");
    assert!((20_000..21_000).contains(&inodes("itotal")));
    let told = a.sh("mkdir /root/many && cd /root/many && seq 1 30000 | xargs touch").fails();
    assert!(told.stderr.contains("No space left on device"), "{told:?}");
    assert_eq!(inodes("iavail"), 0);
    assert!(df(&a).1 > GIB, "there is room for bytes");
    let usage = a.status()["usage"]["disk"].clone();
    assert!(bytes(&usage["used_inodes"]) >= 20_000 && usage["used_inodes"] == usage["limit_inodes"], "{usage}");
    b.sh("mkdir /root/many && cd /root/many && seq 1 30000 | xargs touch").ok();
    a.sh("rm -r /root/many && touch /root/again").ok();
    // What cannot be changed any more is said, and everything else of the request holds.
    set(&a, &["--inodes", "40000", "--pids-limit", "500"]).ok();
    let told = condition(&a, "InodesFixed").expect("it is said");
    assert!(told.contains("20000") && told.contains("40000"), "{told}");
    assert_eq!(bytes(&a.status()["limits"]["pids"]), 500);
}

#[test]
fn q03_what_is_deleted_inside_goes_back_to_the_host_by_itself_and_at_a_stop() {
    let host = with(&format!("{IMAGES}trim_interval_seconds = 86400\n"));
    let a = host.assign(&host.user("a"), &["--disk", "2g"]);
    let occupied = || fs::metadata(a.disk()).expect("the image").blocks() * 512;
    let image = a.disk();
    a.sh("dd if=/dev/urandom of=/root/f bs=1M count=600 conv=fsync").ok();
    let full = occupied();
    a.sh("rm /root/f && sync").ok();
    until("what was deleted is the host's again", SOON, || (occupied() < full - 500 * MIB).then_some(()));
    // Too little to be worth it while it runs; counted before it is deleted, for a trim may still be at work.
    a.sh("dd if=/dev/urandom of=/root/f bs=1M count=60 conv=fsync").ok();
    let before = occupied();
    a.sh("rm /root/f && sync").ok();
    a.stop().ok();
    let after = fs::metadata(image).expect("the image").blocks() * 512;
    assert!(after < before - 40 * MIB, "{before} → {after}");
}

// --- a host that is too small (Q08) ----------------------------------------------------------------------------------

/// Puts a file system of 6 GiB below the node's disks, for the node and its berths alone. It goes when they have ended; a node that comes
/// back while they run finds the same device.
const SMALL: &str = r#"dir=$(dirname "$2")
if [ ! -e "$dir/small.device" ]; then
    truncate -s 6G "$dir/small.img"
    mkfs.ext4 -q -m 0 "$dir/small.img"
    losetup --find --show "$dir/small.img" > "$dir/small.device"
fi
mkdir -p "$dir/state/berths"
mount -t ext4 "$(cat "$dir/small.device")" "$dir/state/berths"
losetup --detach "$(cat "$dir/small.device")"
exec "$0" "$@""#;
const SIZE: u64 = 6 * GIB;

fn small_host() -> Host {
    Host::with(Options { node_config: IMAGES.into(), disk_overcommit: 4.0, node_enters: Some(SMALL), ..Options::default() })
}

/// The directory of the disks, as the node sees it. Held open, it is there without the node too; a path to it is `/proc/self/fd/N`.
#[track_caller]
fn disks(host: &Host) -> (File, PathBuf) {
    let root = PathBuf::from(format!("/proc/{}/root", host.node_pid()));
    let dir = File::open(root.join(host.state_dir.join("berths").strip_prefix("/").expect("an absolute path"))).expect("open the disks");
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    (dir, path.into())
}

/// Free bytes of the small file system, and its size as `df` counts it.
fn free(dir: &Path) -> (u64, u64) {
    let stat = rustix::fs::statvfs(dir).expect("statvfs");
    let free = stat.f_bavail * stat.f_frsize;
    (free, (stat.f_blocks - stat.f_bfree) * stat.f_frsize + free)
}

/// Loop devices whose file systems are to have no error, and what the kernel had said before.
struct Devices {
    names: Vec<String>,
    said: HashSet<String>,
}

/// Those of the berths and the one below them all.
fn devices(host: &Host, berths: &[&Berth]) -> Devices {
    let below = fs::read_to_string(host.slot.dir.join("small.device")).expect("the device");
    let of_berth = |berth: &&Berth| {
        let mounts = berth.sh("cat /proc/self/mountinfo").ok();
        let found = mounts.split_whitespace().find(|word| word.starts_with("/dev/loop"));
        found.unwrap_or_else(|| panic!("no loop device in {mounts}")).to_owned()
    };
    let paths = berths.iter().map(of_berth).chain([below.trim().to_owned()]);
    let names = paths.map(|path| path.trim_start_matches("/dev/").to_owned()).collect();
    Devices { names, said: Run::new("dmesg").ok().lines().map(str::to_owned).collect() }
}

#[track_caller]
fn no_file_system_has_an_error(Devices { names, said }: &Devices) {
    for device in names {
        let dir = Path::new("/sys/fs/ext4").join(device);
        let errors = fs::read_to_string(dir.join("errors_count")).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        assert_eq!(errors.trim(), "0", "{device}");
    }
    let log = Run::new("dmesg").ok();
    let bad =
        ["EXT4-fs error", "I/O error", "Aborting journal", "lost async page write", "Remounting filesystem read-only", "writeback error"];
    let told: Vec<&str> = log
        .lines()
        .filter(|line| !said.contains(*line) && bad.iter().any(|what| line.contains(what)))
        .filter(|line| names.iter().any(|device| line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == device)))
        .collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// Watches the least that was ever free while `work` goes on.
fn least_free<T>(dir: &Path, work: impl FnOnce() -> T) -> (u64, T) {
    let (over, least) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(u64::MAX)));
    let watching = thread::spawn({
        let (over, least, dir) = (Arc::clone(&over), Arc::clone(&least), dir.to_owned());
        move || {
            while !over.load(Ordering::Relaxed) {
                least.fetch_min(free(&dir).0, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let done = work();
    over.store(true, Ordering::Relaxed);
    watching.join().expect("the watcher");
    (least.load(Ordering::Relaxed), done)
}

#[test]
fn q08_berths_that_write_until_the_mark_get_enospc_no_error_and_the_reason_and_what_is_pruned_comes_back() {
    let host = small_host();
    let berths: Vec<Berth> = ["a", "b", "c"].iter().map(|name| host.assign(&host.user(name), &["--disk", "4g"])).collect();
    let all: Vec<&Berth> = berths.iter().collect();
    let (_held, dir) = disks(&host);
    let mark = free(&dir).1 / 20;
    assert!((SIZE / 25..SIZE / 19).contains(&mark), "the small file system is not below the disks: mark {mark}");
    let devices = devices(&host, &all);
    berths[0].load_busybox();
    berths[0].docker(&["run", "--name", "big", "busybox", "dd", "if=/dev/urandom", "of=/f", "bs=1M", "count=500"]).ok();
    all.iter().for_each(|berth| berth.copy_probe());
    assert_eq!(all.iter().filter_map(|berth| condition(berth, "HostDiskLow")).count(), 0);

    let (least, rounds) = least_free(&dir, || {
        for round in 0..20 {
            if all.iter().all(|berth| condition(berth, "HostDiskLow").is_some()) {
                return round;
            }
            thread::scope(|scope| {
                for berth in &all {
                    scope.spawn(move || {
                        let told = berth.probe(&["disk-fill", &format!("/root/f{round}"), "4294967296"]).limit(WRITING).json();
                        assert_eq!((&told["errno"], &told["sync_errno"]), (&"ENOSPC".into(), &Value::Null), "{}: {told}", berth.name());
                    });
                }
            });
        }
        panic!("nobody says that the host is low: {:?}, the mark is {mark}", free(&dir));
    });
    // What is free is less than all three were promised, and more than berths may take: tables that are not written yet are kept for them.
    assert!(rounds > 0 && least < SIZE / 6 && least > mark / 2 - 32 * MIB, "{least} were free at the least, the mark is {mark}");
    no_file_system_has_an_error(&devices);
    for berth in &all {
        let why = until("the reason is told", SOON, || condition(berth, "HostDiskLow"));
        assert!(why.contains("free") && why.contains("MiB") && why.contains("GiB"), "{why}");
        let told = berth.sh("dd if=/dev/urandom of=/root/more bs=1M count=400 conv=fsync").fails();
        assert!(told.stderr.contains("No space left on device"), "{told:?}");
        // Reading goes on, and small things can be done again where something is deleted.
        berth.sh("rm /root/more && cat /root/f0 > /dev/null && touch /root/small && sync").ok();
    }
    let shown = host.berth(["show", berths[0].name()]).ok();
    assert!(shown.contains("HostDiskLow") || shown.contains("mark"), "{shown}");

    let image = |berth: &Berth| dir.join(berth.id()).join("disk.img");
    let occupied = |berth: &Berth| fs::metadata(image(berth)).expect("the image").blocks() * 512;
    let before = occupied(&berths[0]);
    berths[0].docker(&["container", "prune", "--force"]).ok();
    until("du falls after a prune", SOON, || (occupied(&berths[0]) < before - 400 * MIB).then_some(()));
    berths[0].sh("rm /root/f* && sync").ok();
    for berth in &all {
        until("it is told no more", SOON, || condition(berth, "HostDiskLow").is_none().then_some(()));
    }
    until("others can use what was freed", SOON, || (df(&berths[1]).1 > 300 * MIB).then_some(()));
    berths[1].sh("dd if=/dev/urandom of=/root/more bs=1M count=200 conv=fsync").ok();
    no_file_system_has_an_error(&devices);
}

#[test]
fn q08_what_is_only_allocated_inside_counts_and_holds_with_the_node_dead() {
    let host = small_host();
    let berths: Vec<Berth> = ["a", "b", "c"].iter().map(|name| host.assign(&host.user(name), &["--disk", "4g"])).collect();
    let all: Vec<&Berth> = berths.iter().collect();
    let (_held, dir) = disks(&host);
    let mark = free(&dir).1 / 20;
    let devices = devices(&host, &all);
    // Nobody looks any more, and what is taken by fallocate(2) takes no time and no block of the host.
    // One that fails may have taken all there is first.
    let script = "for m in 4000 2000 1000 500 250 120 60 30; do fallocate -l ${m}M /root/$m 2>/dev/null && echo $m || rm /root/$m; done; \
                  for f in /root/[0-9]*; do dd if=/dev/zero of=$f bs=1M count=${f##*/} conv=notrunc,fsync 2>&1 || exit 1; done; echo written";
    for berth in &all {
        let file = "/root/take";
        berth.exec_input(&["sh", "-c", &format!("cat > {file}")], script).ok();
        // Waits in the background for a word that comes without the node.
        berth
            .sh(&format!("mkfifo /root/go; (read x < /root/go; sh {file} > /root/took 2>&1; echo over >> /root/took) > /dev/null 2>&1 &"))
            .ok();
    }
    let inside: Vec<PathBuf> = all.iter().map(|berth| PathBuf::from(format!("/proc/{}/root/root", berth.pid()))).collect();
    host.kill_node();
    let (least, ()) = least_free(&dir, || {
        for root in &inside {
            fs::write(root.join("go"), "go\n").expect("say go");
        }
        for root in &inside {
            let over = || fs::read_to_string(root.join("took")).ok().filter(|text| text.ends_with("over\n"));
            let told = until("all is written", WRITING, over);
            assert!(told.contains("written\n"), "{told}");
        }
    });
    assert!(least > mark / 2 - 32 * MIB, "{least} were free at the least, the mark is {mark}");
    let taken: u64 = inside
        .iter()
        .flat_map(|root| fs::read_dir(root).expect("list").flatten())
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u64>().is_ok())
        .map(|entry| entry.metadata().expect("look").blocks() * 512)
        .sum();
    assert!(taken > 4 * GIB, "they got {taken} of what there is");
    no_file_system_has_an_error(&devices);
    host.start_node();
    for berth in &all {
        until("the reason is told", SOON, || condition(berth, "HostDiskLow"));
    }
    // What one gives back may be enough for all.
    for berth in &all {
        berth.sh("rm /root/[0-9]* && sync").ok();
    }
    for berth in &all {
        until("it is told no more", SOON, || condition(berth, "HostDiskLow").is_none().then_some(()));
    }
    no_file_system_has_an_error(&devices);
}

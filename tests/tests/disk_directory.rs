//! Disks that are directories under the host's project quota: the same promises as an image's.
#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use berth_tests::{Berth, Host, Need, Options, elsewhere, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[track_caller]
fn df(berth: &Berth, columns: &str) -> Vec<u64> {
    let text = berth.sh(&format!("df -B1 --output={columns} / | tail -1")).ok();
    text.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

/// Full by quota: ext4 says so, XFS says that no space is left.
#[track_caller]
fn is_full(told: &Value) {
    assert!(["EDQUOT", "ENOSPC"].contains(&told["errno"].as_str().unwrap_or_default()), "{told}");
}

#[test]
fn q03_q06_i05_a_directory_under_project_quota_holds_what_an_image_holds() {
    if elsewhere(&[Need::ProjectQuota]) {
        return;
    }
    let host = Host::with(Options { node_config: "[disk]\nbackend = \"auto\"\n".into(), ..Options::default() });
    let a = host.assign(&host.user("a"), &["--disk", "1g", "--inodes", "17000"]);
    let disk = a.disk();
    assert!(disk.is_dir(), "auto takes what the file system can do: {}", disk.display());
    assert_eq!(fs::metadata(disk.parent().expect("a parent")).expect("look").permissions().mode() & 0o7777, 0o700);

    // One quota for all that the berth writes, seen by df.
    let seen = df(&a, "size,avail,itotal");
    assert!(seen[0] == GIB && seen[1] < GIB && seen[2] == 17_000, "{seen:?}");
    a.load_busybox();
    a.docker_run(&["-v", "vol:/v"], "dd if=/dev/zero of=/v/f bs=1M count=100");
    a.sh("fallocate -l 600M /root/e").ok();
    let told = a.tells(&["disk-fill", "/root/f", "4294967296"]);
    is_full(&told);
    assert!((100 * MIB..330 * MIB).contains(&told["written"].as_u64().expect("a number")), "{told}");
    fs::write(host.slot.dir.join("file"), vec![7; 10 << 20]).expect("the host can write");
    a.sh("rm /root/e /root/f").ok();
    let many = a.sh("mkdir /root/many && cd /root/many && seq 1 20000 | xargs touch").fails();
    assert!(many.stderr.contains("quota exceeded") || many.stderr.contains("No space left"), "{many:?}");
    a.sh("rm -r /root/many").ok();

    // Nobody inside leaves his project, nor takes another's room by it.
    let left = a.tells(&["project", "/root", "0"]);
    assert!(left["ok"] == false && left["before"] == left["after"] && left["before"].as_u64() == Some(u64::from(a.id_base())), "{left}");
    // Setuid works inside, ids on the disk begin at 0, no device is one.
    a.sh("cp /usr/bin/id /root/id && chmod 4755 /root/id && chmod 755 /root").ok();
    assert_eq!(a.sh_as_user("/root/id -u").ok(), "0");
    let lies = fs::metadata(disk.join("rootfs/upper/root/id")).expect("look");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&lies), 0);
    assert!(!fs::read_to_string("/proc/self/mountinfo").expect("mounts").contains(&a.id()), "it is in no mount table");

    // Both limits, at once, up and down; below use it is refused with the figures.
    host.berth(["set", a.name(), "--disk", "3g", "--inodes", "24000"]).ok();
    let seen = df(&a, "size,itotal");
    assert_eq!(seen, [3 * GIB, 24_000]);
    a.sh("fallocate -l 1200M /root/g").ok();
    let refused = host.berth(["set", a.name(), "--disk", "1g"]).fails().text();
    assert!(refused.contains("1073741824") && refused.contains("uses"), "{refused}");
    host.berth(["set", a.name(), "--disk", "2g"]).ok();
    a.sh("fallocate -l 500M /root/i").ok();
    is_full(&a.tells(&["disk-fill", "/root/h", "4294967296"]));
    a.sh("rm /root/h /root/i").ok();
    let conditions = a.status()["conditions"].clone();
    assert_eq!(conditions, Value::Array(vec![]), "nothing waits for a restart");

    // It holds at the next start, and whoever has set it may die.
    a.restart().ok();
    a.await_docker();
    assert_eq!(df(&a, "size,itotal"), [2 * GIB, 24_000]);
    host.kill_node();
    host.start_node();
    a.await_docker();
    let usage = a.status()["usage"].clone();
    assert_eq!(usage["disk"]["limit_inodes"], 24_000);
    let used = usage["disk"]["used_bytes"].as_u64().expect("a number");
    assert!((1200 * MIB..2 * GIB).contains(&used) && usage["disk_bytes"] == used, "{usage}");

    a.delete().ok();
    until("nothing is left", SOON, || (!disk.exists()).then_some(()));
    // His next berth has nothing of it.
    let again = host.assign(&a.user, &["--disk", "1g", "--no-start"]);
    assert_eq!(again.status()["limits"]["disk_bytes"], GIB);
}

//! What can be mounted inside, and what cannot be taken off. `C` root inside, `U` uid 1000 inside.
#![forbid(unsafe_code)]

use std::fs;

use berth_tests::{Berth, Host};
use serde_json::Value;

/// What, and a script that mounts it, looks at it, and takes it away again.
const MOUNTS: [(&str, &str); 10] = [
    ("tmpfs", "mount -t tmpfs none $m && touch $m/x"),
    ("bind", "mount --bind /usr/bin $m && test -x $m/mount"),
    // A directory above a locked mount only with all that is below it: one that is not recursive would show what lies under that.
    ("recursive bind", "! mount --bind /etc $m 2>/dev/null && mount --rbind /etc $m && grep -q nameserver $m/resolv.conf"),
    (
        "overlay",
        "mount -t tmpfs none $d && mkdir $d/l $d/u $d/w && echo low > $d/l/f && mount -t overlay none -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w $m && echo up > $m/f && test $(cat $d/l/f) = low",
    ),
    ("proc", "mount -t proc none $m && test -r $m/self/status"),
    ("sysfs", "mount -t sysfs none $m && test -d $m/class/net/lo"),
    ("devpts", "mount -t devpts -o newinstance,ptmxmode=0666 none $m && test -c $m/ptmx"),
    ("mqueue", "mount -t mqueue none $m && : > $m/q"),
    (
        "fuse",
        "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 probe $m && grep -q \" $m fuse \" /proc/mounts",
    ),
    ("cgroup", "mount --bind /sys/fs/cgroup $m && test -n \"$(ls $m)\""),
];

fn script(mount: &str) -> String {
    format!("m=$(mktemp -d) && d=$(mktemp -d) && {mount}; r=$?; exec 3>&-; umount -l $m $d 2>/dev/null; exit $r")
}

#[test]
fn m01_root_inside_mounts_what_containers_need_and_an_ordinary_user_nothing() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.exec(&["chmod", "0666", "/dev/fuse"]).ok();
    for (what, mount) in MOUNTS {
        let root = a.sh(&script(mount)).output();
        assert!(root.success(), "C cannot mount {what}: {root:?}");
        let user = a.sh_as_user(&script(mount)).output();
        assert!(!user.success(), "U mounted {what}: {user:?}");
    }
}

/// Mounts that came from the host: `/dev`, and the small files that the runtime lays over those of the image.
fn host_mounts(berth: &Berth) -> Vec<String> {
    let text = berth.exec(&["cat", "/proc/self/mountinfo"]).ok();
    let place = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    let all: Vec<String> = text.lines().filter_map(place).collect();
    let found: Vec<String> = all.iter().filter(|p| *p == "/dev" || p.starts_with("/etc/")).cloned().collect();
    assert!(found.len() >= 2, "/dev and /etc/resolv.conf are mounts: {all:?}");
    found
}

#[test]
fn m03_a_mount_of_the_host_cannot_be_taken_off_to_see_what_lies_below() {
    let host = Host::start();
    let a = host.new_berth("a");
    let kept = host_mounts(&a);
    for place in &kept {
        for how in ["umount", "umount -l", "unshare -m umount -l", "unshare -Urm umount -l"] {
            let told = a.sh(&format!("{how} {place}")).output();
            assert!(!told.success() && told.stderr.contains("not mounted") | told.stderr.contains("nvalid argument"), "{place}: {told:?}");
        }
        let moved =
            a.sh(&format!("touch /mnt/f; mkdir -p /mnt/d; test -d {place} && t=/mnt/d || t=/mnt/f; mount --move {place} $t")).output();
        assert!(!moved.success(), "{place} was moved: {moved:?}");
        // In a copy of the whole tree they are locked as well.
        let copy = a.sh(&format!("mkdir -p /mnt/all && unshare -m sh -c 'mount --rbind / /mnt/all && umount -l /mnt/all{place}'")).output();
        assert!(!copy.success(), "{place} was taken off a copy: {copy:?}");
    }
    assert_eq!(host_mounts(&a), kept);
    // Everything off: the root of the host never shows.
    let marker = host.slot.dir.join("marker");
    fs::write(&marker, "of the host").expect("write marker");
    let all = format!(
        "umount -l -a; umount -l /dev /proc /sys /run /var/lib/docker /; cd /; ls -a / /dev /..; cat {0} /proc/1/root{0}; echo looked",
        marker.display()
    );
    let left = a.exec(&["unshare", "-m", "sh", "-c", &all]).output();
    assert!(left.stdout.contains("looked"), "{left:?}");
    for foreign in ["of the host", "loop-control", "vda", "berth-tests"] {
        assert!(!left.stdout.contains(foreign), "{foreign}: {left:?}");
    }
}

#[test]
fn m03_pivot_root_works_in_a_new_mount_namespace() {
    let host = Host::start();
    let a = host.new_berth("a");
    let told = a.tells(&["pivot", "/mnt"]);
    assert_eq!(told["ok"], true, "{told}");
    // As runc does it, with the old root below the new one.
    let script = "mount -t tmpfs none /mnt && mkdir /mnt/old && mkdir -p /mnt/bin && cp /usr/local/bin/berth-probe /mnt/bin/ && cd /mnt && \
                  pivot_root . old && exec /bin/berth-probe umount /old detach";
    a.copy_probe();
    let told: Value = a.exec(&["unshare", "-m", "sh", "-c", script]).json();
    assert_eq!(told["ok"], true, "{told}");
}

#[test]
fn m04_block_devices_cannot_be_made_and_dev_holds_what_it_should() {
    let host = Host::start();
    let a = host.new_berth("a");
    for (kind, major, minor) in [("b", "254", "0"), ("b", "7", "0"), ("b", "8", "0"), ("c", "1", "1"), ("c", "10", "237")] {
        for prefix in [&[][..], &["unshare", "user,mnt"]] {
            let told = a.tells(&[prefix, &["mknod", "/root/node", kind, major, minor]].concat());
            let opened = told["open"]["ok"] == true;
            assert!(told["ok"] == false || !opened, "{kind} {major}:{minor} can be made and opened: {told}");
            if kind == "b" {
                assert_eq!(told["ok"], false, "{kind} {major}:{minor}: {told}");
            }
        }
    }
    let devices = a.tells(&["devices"]);
    let devices = devices.as_array().expect("a list");
    let find = |path: &str| devices.iter().find(|d| d["path"] == path).unwrap_or_else(|| panic!("no {path} in {devices:#?}")).clone();
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0), ("fuse", 10, 229)]
    {
        let device = find(&format!("/dev/{name}"));
        assert_eq!((&device["kind"], &device["uid"], &device["gid"]), (&"character".into(), &0.into(), &0.into()), "{device}");
        assert_eq!((&device["major"], &device["minor"]), (&major.into(), &minor.into()), "{device}");
    }
    assert_eq!(find("/dev/console")["kind"], "character");
    assert_eq!(find("/dev/console")["uid"], 0);
    let tun = a.tells(&["stat", "/dev/net/tun"]);
    assert_eq!(
        (&tun["kind"], &tun["major"], &tun["minor"], &tun["uid"]),
        (&"character".into(), &10.into(), &200.into(), &0.into()),
        "{tun}"
    );
    for dir in ["pts", "shm", "mqueue"] {
        assert_eq!(find(&format!("/dev/{dir}"))["kind"], "directory");
    }
    let blocks: Vec<&Value> = devices.iter().filter(|d| d["kind"] == "block").collect();
    assert!(blocks.is_empty(), "block devices inside: {blocks:?}");
    // They work, a new terminal and a tun device included.
    a.sh("echo x > /dev/null && test $(head -c 5 /dev/zero | wc -c) = 5 && test $(head -c 5 /dev/urandom | wc -c) = 5").ok();
    let full = a.sh("head -c 1 /dev/zero > /dev/full").fails();
    assert!(full.stderr.contains("No space left"), "{full:?}");
    a.sh("script -qec 'tty' /dev/null | grep -q /dev/pts/").ok();
    a.sh("ip tuntap add dev tun7 mode tun && ip link show tun7").ok();
    a.sh("echo x > /dev/shm/x && test -c /dev/ptmx").ok();
}

//! What a file system does to SQLite: a disk that is full, one that turns read-only, one that is read-only from the start.

#![forbid(unsafe_code)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{
    Database,
    daemon::{Daemon, send},
};

/// Writes until it is refused; the refusal.
fn fill(socket: &Path, from: usize) -> (usize, u16, Value) {
    let filler = "x".repeat(480);
    for number in from.. {
        let new = json!({ "name": format!("p{number}"), "description": filler });
        let (status, body) = send(socket, "POST", "/api/v1/profiles", Some(&new)).unwrap();
        if status != 201 {
            return (number, status, body);
        }
        assert!(number < 20_000, "it never became full");
    }
    unreachable!("numbers do not end")
}

#[test]
fn a_full_disk_is_told_and_nothing_that_was_acknowledged_is_lost() {
    let database = Database::fresh();
    // A disk of its own in a mount namespace of its own, with a ballast that can be thrown off.
    let script =
        r#"mount -t tmpfs -o size=4m,mode=0711 berth-test "$0"; chown 65534:65534 "$0"; head -c 1m /dev/zero >"$0/ballast"; exec "$@""#;
    let mut daemon = Daemon::on(&database);
    let disk = daemon.path("disk");
    std::fs::create_dir(&disk).unwrap();
    daemon.before =
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, disk.to_str().unwrap()].map(str::to_owned).to_vec();
    let text = std::fs::read_to_string(daemon.path("server.toml")).unwrap();
    std::fs::write(daemon.path("server.toml"), format!("{text}[database]\nurl = \"sqlite:{}/berth.db\"\n", disk.display())).unwrap();
    daemon.start();
    let socket = daemon.socket();

    let (full_at, status, refused) = fill(&socket, 0);
    assert_eq!((status, refused["code"].as_str()), (503, Some("database_unavailable")), "{refused}");
    assert!(refused["hint"].is_string(), "{refused}");
    assert_eq!(send(&socket, "GET", "/api/v1/profiles/p0", None).unwrap().0, 200, "reading goes on");

    let inside = Path::new("/proc").join(daemon.pid().to_string()).join("root").join(disk.strip_prefix("/").unwrap());
    std::fs::remove_file(inside.join("ballast")).unwrap();
    assert_eq!(send(&socket, "POST", "/api/v1/profiles", Some(&json!({ "name": "after" }))).unwrap().0, 201, "there is room again");

    for number in 0..full_at {
        let (status, body) = send(&socket, "GET", &format!("/api/v1/profiles/p{number}"), None).unwrap();
        assert_eq!(status, 200, "p{number} was acknowledged: {body}");
    }
    daemon.kill();
}

const NEW: &str = "/api/v1/profiles";

/// The server's file lies on a file system of its own, in a mount namespace of its own, made by `script` with that directory as `$0`.
fn on_disk(script: &str) -> (Daemon, std::path::PathBuf) {
    let mut daemon = Daemon::on(&Database::fresh());
    let disk = daemon.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, disk.to_str().unwrap()];
    daemon.before = words.map(str::to_owned).to_vec();
    let text = std::fs::read_to_string(daemon.path("server.toml")).unwrap();
    std::fs::write(daemon.path("server.toml"), format!("{text}[database]\nurl = \"sqlite:{}/berth.db\"\n", disk.display())).unwrap();
    (daemon, disk)
}

/// ext4 stops writing at an error of its device, as a failing disk makes it.
#[test]
fn a_disk_that_turns_read_only_is_told_reads_go_on_and_nothing_that_was_acknowledged_is_lost() {
    let script = r#"image="$0.img"; [ -e "$image" ] || { truncate -s 64M "$image"; mkfs.ext4 -q -E lazy_itable_init=0 "$image"; }
        mount -o loop,errors=remount-ro "$image" "$0"; chown 65534:65534 "$0"; exec "$@""#;
    let (mut daemon, disk) = on_disk(script);
    daemon.start();
    let socket = daemon.socket();
    for number in 0..20 {
        assert_eq!(send(&socket, "POST", NEW, Some(&json!({ "name": format!("p{number}") }))).unwrap().0, 201);
    }
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).unwrap();
    let line = mounts.lines().find(|line| line.contains(disk.to_str().unwrap())).unwrap();
    let device = line.split_whitespace().find_map(|word| word.strip_prefix("/dev/")).unwrap();
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test of Berth").unwrap();

    let (status, refused) = send(&socket, "POST", NEW, Some(&json!({ "name": "lost" }))).unwrap();
    assert_eq!((status, refused["code"].as_str()), (503, Some("database_unavailable")), "{refused}");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("read-only")), "{refused}");
    assert_eq!(send(&socket, "GET", &format!("{NEW}/p7"), None).unwrap().0, 200, "reading goes on");

    daemon.kill();
    let checked = std::process::Command::new("e2fsck").args(["-fy"]).arg(disk.with_extension("img")).output().unwrap();
    assert!(checked.status.code().is_some_and(|code| code < 4), "{checked:?}");
    daemon.start();
    for number in 0..20 {
        assert_eq!(send(&daemon.socket(), "GET", &format!("{NEW}/p{number}"), None).unwrap().0, 200, "p{number} was acknowledged");
    }
    assert_eq!(send(&daemon.socket(), "GET", &format!("{NEW}/lost"), None).unwrap().0, 404);
    daemon.kill();
}

#[test]
fn a_database_on_a_read_only_disk_is_named_at_the_start() {
    let (mut daemon, _) = on_disk(r#"chown 65534:65534 "$0"; exec "$@""#);
    daemon.start();
    daemon.kill();
    let read_only = r#"mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec "$@""#;
    *daemon.before.iter_mut().rev().nth(1).unwrap() = read_only.to_owned();
    let output = daemon.command(&[]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("berth.db") && told.contains("Read-only file system"), "{told}");
}

//! What SQLite alone can meet: a disk that is full.

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

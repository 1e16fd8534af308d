//! A clock that jumps years ahead and back again while the server runs: the real program, on either database.

#![forbid(unsafe_code)]

mod support;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use support::{
    Database,
    daemon::{Daemon, send},
};

const NEW: &str = "/api/v1/profiles";
/// Each as libfaketime takes it.
const JUMPS: [&str; 5] = ["+0", "+10y", "-1y", "+2d", "-5y"];

/// Debian's libfaketime, wherever its architecture has it.
fn library() -> PathBuf {
    let found = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    found.into_iter().find(|path| path.exists()).expect("libfaketime: apt-get install libfaketime")
}

/// With what libfaketime leaves in shared memory when it is killed.
fn kill(daemon: &mut Daemon) {
    let pid = daemon.pid();
    daemon.kill();
    for name in [format!("sem.faketime_sem_{pid}"), format!("faketime_shm_{pid}")] {
        let _ = fs::remove_file(PathBuf::from("/dev/shm").join(name));
    }
}

#[test]
fn a_clock_that_jumps_loses_no_write_and_the_trail_keeps_its_order() {
    let database = Database::fresh();
    let mut daemon = Daemon::on(&database);
    let offset = daemon.path("offset");
    fs::write(&offset, JUMPS[0]).unwrap();
    let preload = format!("LD_PRELOAD={}", library().display());
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", offset.display());
    // What waits by the monotonic clock does not jump with the other.
    daemon.variables = [&preload, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"].map(str::to_owned).to_vec();
    daemon.start();
    let socket = daemon.socket();
    let get = |path: &str| send(&socket, "GET", path, None).unwrap();
    let mut years = Vec::new();
    for (number, jump) in JUMPS.iter().enumerate() {
        fs::write(&offset, jump).unwrap();
        let name = format!("p{number}");
        let (status, made) = send(&socket, "POST", NEW, Some(&json!({ "name": name }))).unwrap();
        assert_eq!(status, 201, "{jump}: {made}");
        years.push(made["created_at"].to_string());
        let (status, changed) = send(&socket, "PATCH", &format!("{NEW}/{name}"), Some(&json!({ "description": jump }))).unwrap();
        assert_eq!(status, 200, "{jump}: {changed}");
        // What was done last is first, whatever the clock said.
        let (status, trail) = get("/api/v1/audit?kind=action&limit=2");
        assert_eq!(status, 200, "{jump}: {trail}");
        let rows = trail["items"].as_array().unwrap();
        let last: Vec<(&Value, &Value)> = rows.iter().map(|row| (&row["action"], &row["subject"])).collect();
        assert_eq!(last, [(&json!("change_profile"), &json!(name)), (&json!("create_profile"), &json!(name))], "{jump}");
        let (status, listed) = get(&format!("{NEW}?limit=100"));
        assert_eq!((status, listed["items"].as_array().unwrap().len()), (200, number + 4), "{jump}: {listed}");
        assert_eq!(get("/healthz").0, 200, "{jump}");
    }
    assert!(years.windows(2).all(|pair| pair[0] != pair[1]), "the clock did not jump: {years:?}");
    kill(&mut daemon);
    // It starts again in whatever year it finds itself, and has all of it.
    fs::write(&offset, "-3y").unwrap();
    daemon.start();
    for number in 0..JUMPS.len() {
        assert_eq!(send(&daemon.socket(), "GET", &format!("{NEW}/p{number}"), None).unwrap().0, 200, "p{number}");
    }
    kill(&mut daemon);
}

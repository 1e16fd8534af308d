//! Schemathesis on our own OpenAPI document: as admin and as a user, no 5xx, and every answer as documented. `BERTH_TEST_LONG=1` tries more.

#![forbid(unsafe_code)]

mod support;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::json;
use support::{DAEMON, ROOT, Server};

/// Fixed, so that a run today and one next year try the same.
const PACKAGE: &str = "schemathesis==4.32.5";
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance";

/// The program, in a Python environment of its own that is made once.
fn schemathesis() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&root).unwrap();
    let lock = File::create(root.join("schemathesis.lock")).unwrap();
    lock.lock().unwrap();
    let directory = root.join(PACKAGE.replace("==", "-"));
    let done = directory.join("done");
    if !done.exists() {
        let _ = fs::remove_dir_all(&directory);
        let run = |program: PathBuf, arguments: &[&str]| {
            let status = Command::new(&program).args(arguments).stdout(Stdio::null()).status();
            assert!(status.is_ok_and(|status| status.success()), "{} {arguments:?} failed", program.display());
        };
        // Debian's own: another one may lie in somebody's home.
        run("/usr/bin/python3".into(), &["-m", "venv", directory.to_str().unwrap()]);
        run(directory.join("bin/pip"), &["install", "--quiet", "--disable-pip-version-check", PACKAGE]);
        fs::write(done, "").unwrap();
    }
    directory.join("bin/schemathesis")
}

async fn run(server: &Server, uid: u32) {
    let address = server.listen_tcp(uid).await;
    let program = tokio::task::spawn_blocking(schemathesis).await.unwrap();
    let long = std::env::var_os("BERTH_TEST_LONG").is_some();
    let output = tokio::process::Command::new(program)
        .arg("run")
        .arg(format!("http://{address}/openapi.json"))
        .args(["--url", &format!("http://{address}"), "--checks", CHECKS])
        .args(["--max-examples", if long { "200" } else { "12" }, "--phases", "examples,coverage,fuzzing", "--workers", "1"])
        .args(["--request-timeout", "20", "--max-failures", "20", "--generation-deterministic", "--no-color"])
        .args(["--suppress-health-check", "all", "--max-time", if long { "900" } else { "60" }])
        // A stream without an end, a connection that is upgraded, and a tar, which it cannot make: these have tests of their own.
        .args(["--exclude-operation-id", "follow_events", "--exclude-operation-id", "exec_berth", "--exclude-operation-id", "import_image"])
        .env("HOME", server.directory.path())
        .current_dir(server.directory.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    // The server is still well.
    let (status, _) = server.send(ROOT, "GET", "/readyz", None).await;
    assert_eq!(status, 200);
}

async fn filled() -> Server {
    let server = Server::start().await;
    for user in ["alice", "bob"] {
        server.assign(user).await;
    }
    let own = json!({ "user": "daemon", "allow_system": true });
    let accepted = server.send(ROOT, "POST", "/api/v1/berths", Some(own)).await;
    server.end_of(accepted).await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_schemathesis_as_admin_finds_nothing() {
    run(&filled().await, ROOT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_schemathesis_as_user_finds_nothing() {
    run(&filled().await, DAEMON).await;
}

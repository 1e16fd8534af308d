//! The program `berth` and the API under it: what people type, what they type wrongly, and what no program would send.
#![forbid(unsafe_code)]

use std::{fs, io::Write, os::unix::net::UnixStream, time::Duration};

use berth_tests::{
    Host, Options, Output, http,
    snapshot::{Scope, Snapshot},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// The problem that a command with `--json` left on standard error.
#[track_caller]
fn problem(output: &Output) -> Value {
    serde_json::from_str(output.stderr.trim()).unwrap_or_else(|e| panic!("no problem document ({e}): {output:?}"))
}

#[test]
fn bad_input_is_refused_with_a_code_and_leaves_nothing_half_made() {
    let host = Host::start();
    let (a, b) = (host.user("a"), host.user("b"));
    host.assign(&a, &["--no-start"]);
    let long = "x".repeat(300);
    let scope = Scope::slot(&host.slot);
    let before = Snapshot::take(&scope);
    let listed = host.list();
    let (a, b) = (a.name.as_str(), b.name.as_str());
    for (arguments, status, code) in [
        (&["assign", "no-such-user"][..], 3, "user_not_found"),
        (&["assign", "root"], 5, "root_not_allowed"),
        (&["assign", "root", "--allow-system"], 5, "root_not_allowed"),
        (&["assign", "daemon"], 5, "system_account"),
        (&["assign", "nobody"], 5, "system_account"),
        (&["assign", a], 5, "berth_exists"),
        (&["assign", b, "--profile", "none"], 3, "profile_not_found"),
        (&["assign", b, "--image", "none"], 3, "image_not_found"),
        (&["assign", b, "--image", "sha256:00000000"], 3, "image_not_found"),
        (&["assign", b, "--disk", "1023m"], 5, "limit_too_low"),
        (&["assign", b, "--memory", "255m"], 5, "limit_too_low"),
        (&["assign", b, "--cpus", "0.01"], 5, "limit_too_low"),
        (&["assign", b, "--pids-limit", "3"], 5, "limit_too_low"),
        (&["assign", b, "--disk", "900t"], 5, "disk_overcommitted"),
        (&["assign", "a/b"], 2, "invalid_user_name"),
        (&["assign", ".."], 2, "invalid_user_name"),
        (&["assign", "../../etc/passwd"], 2, "invalid_user_name"),
        (&["assign", ""], 2, "invalid_user_name"),
        (&["assign", "a b"], 2, "invalid_user_name"),
        (&["assign", &long], 2, "invalid_user_name"),
        (&["assign", b, "--profile", "../x"], 2, "invalid_profile_name"),
        (&["assign", b, "--image", "../x"], 2, "invalid_image_name"),
        (&["show", b], 3, "berth_not_found"),
        (&["show", "../x"], 2, "invalid_user_name"),
        (&["set", b, "--cpus", "1"], 3, "berth_not_found"),
        (&["set", a, "--disk", "1m"], 5, "limit_too_low"),
        (&["set", a, "--profile", "none"], 3, "profile_not_found"),
        (&["start", b], 3, "berth_not_found"),
        (&["stop", b], 3, "berth_not_found"),
        (&["delete", b, "--yes"], 3, "berth_not_found"),
        (&["logs", b], 3, "berth_not_found"),
        (&["profile", "show", "none"], 3, "profile_not_found"),
        (&["profile", "create", "default"], 5, "profile_exists"),
        (&["profile", "create", "a/b"], 2, "invalid_profile_name"),
        (&["profile", "create", "small", "--memory", "1m"], 5, "limit_too_low"),
        (&["profile", "rm", "default"], 5, "profile_is_default"),
        (&["image", "rm", "none"], 3, "image_not_found"),
        (&["image", "default", "none"], 3, "image_not_found"),
    ] {
        let refused = host.berth(arguments).arg("--json").output();
        assert_eq!(refused.status, status, "{refused:?}");
        let told = problem(&refused);
        assert_eq!(told["code"], code, "{refused:?}");
        assert!(!told["detail"].as_str().unwrap().is_empty() && refused.stdout.is_empty(), "{refused:?}");
        // For a person: a sentence, and no more of a long name than a person reads.
        let refused = host.berth(arguments).output();
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(refused.stderr.starts_with("berth: ") && refused.stderr.len() < 600, "{refused:?}");
    }
    for arguments in [
        &["assign"][..],
        &["assign", b, "--cpus", "many"],
        &["assign", b, "--memory", "4q"],
        &["assign", b, "--disk", "-1g"],
        &["assign", b, "--pids-limit", "-5"],
        &["exec", a],
        &["frobnicate"],
        &["list", "--what"],
    ] {
        let refused = host.berth(arguments).output();
        assert_eq!(refused.status, 2, "{refused:?}");
    }
    before.assert_back(&scope, SOON);
    assert_eq!(host.list(), listed);
}

#[test]
fn a_system_account_gets_a_berth_only_when_that_is_meant() {
    let host = Host::start();
    let system = host.server_user.clone();
    let refused = host.assign_command(&system, &["--no-start", "--json"]).fails();
    assert_eq!(problem(&refused)["code"], "system_account");
    assert!(problem(&refused)["hint"].as_str().unwrap().contains("--allow-system"));
    host.assign(&system, &["--no-start", "--allow-system"]).delete().ok();
}

#[test]
fn promising_more_than_the_host_has_is_a_warning_for_cpu_and_memory() {
    let host = Host::start();
    let a = host.user("a");
    let assigned = host.assign_command(&a, &["--no-start", "--cpus", "500", "--memory", "4t", "--json"]).json();
    let codes: Vec<&str> = assigned["warnings"].as_array().unwrap().iter().map(|w| w["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["cpu_overcommitted", "memory_overcommitted"], "{assigned}");
    let details = assigned["warnings"].to_string();
    assert!(details.contains("500") && details.contains("4 TiB"), "the sums are told: {details}");
}

#[test]
fn what_a_berth_has_is_shown_changed_and_shown_again() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--profile", "student", "--cpus", "1.5"]);
    let shown = a.show();
    assert_eq!(shown["user"], a.name());
    assert_eq!(shown["profile"], "student");
    let usual =
        json!({ "cpu_millis": 1500, "cpu_weight": 100, "memory_bytes": 1 << 30, "swap_bytes": 0, "pids": 1024, "disk_bytes": 4_u64 << 30 });
    assert_eq!(shown["limits"], usual);
    assert_eq!((shown["state"].as_str(), shown["docker_ready"].as_bool()), (Some("running"), Some(true)), "{shown}");
    assert_eq!(shown["uid"], a.user.uid);
    assert_eq!(shown["socket"], a.socket().to_str().unwrap());

    host.berth(["set", a.name(), "--cpus", "profile", "--memory", "768m"]).ok();
    let limits = a.show()["limits"].clone();
    assert_eq!((limits["cpu_millis"].as_u64(), limits["memory_bytes"].as_u64()), (Some(1000), Some(768 << 20)));
    assert_eq!(a.status()["limits"]["memory_bytes"], 768 << 20, "the node has it too");

    let list = host.list();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["user"], a.name());
    let text = host.berth(["list"]).ok();
    assert!(text.starts_with("USER") && text.contains(a.name()) && text.contains("768"), "{text}");
    assert!(host.berth(["show", a.name()]).ok().contains("student"));
    assert!(host.berth(["logs", a.name(), "--tail", "5"]).ok().lines().count() <= 5);
    assert!(host.berth(["logs", a.name()]).ok().contains("API listen on /run/docker.sock"));
    let mut followed = host.berth(["logs", a.name(), "--follow", "--tail", "0"]).spawn();
    a.restart().ok();
    followed.line_with("API listen on /run/docker.sock", SOON);
}

#[test]
fn a_user_sees_and_touches_his_own_berth_only() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.assign(&host.user("b"), &["--no-start"]));
    let as_a = |arguments: &[&str]| host.berth_as(&a.user, arguments);
    let list = as_a(&["list", "--json"]).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["items"][0]["user"], a.name());
    assert!(as_a(&["status"]).ok().contains("running"));
    assert_eq!(as_a(&["show", "--json"]).json()["user"], a.name());
    let environment = as_a(&["env"]).ok();
    assert_eq!(environment, format!("export DOCKER_HOST='unix://{}'", a.socket().display()).replace('\'', quote(&environment)));
    assert_eq!(as_a(&["shell"]).input("id -u; hostname; exit 3\n").output().status, 3);
    assert!(as_a(&["shell"]).input("echo of $(id -u)\n").ok().contains("of 0"));
    as_a(&["restart"]).ok();
    a.await_docker();

    // What is not his does not exist for him.
    for arguments in [&["show", b.name()][..], &["start", b.name()], &["stop", b.name()], &["logs", b.name()]] {
        let refused = as_a(arguments).arg("--json").output();
        assert_eq!((refused.status, problem(&refused)["code"].as_str()), (3, Some("berth_not_found")), "{refused:?}");
    }
    for arguments in [
        &["assign", b.name()][..],
        &["set", a.name(), "--cpus", "2"],
        &["delete", a.name(), "--yes"],
        &["profile", "create", "mine"],
        &["image", "rm", "trixie"],
        &["doctor"],
        &["doctor", "--deep"],
    ] {
        let refused = as_a(arguments).arg("--json").output();
        assert_eq!((refused.status, problem(&refused)["code"].as_str()), (4, Some("not_permitted")), "{refused:?}");
    }
    let refused = as_a(&["exec", b.name(), "--", "id"]).output();
    assert_eq!(refused.status, 125, "{refused:?}");
    // One without a berth is told what to do.
    let c = host.user("c");
    let none = host.berth_as(&c, ["status"]).fails();
    assert_eq!(none.status, 3, "{none:?}");
    assert!(none.stderr.contains("hint: "), "{none:?}");
    assert_eq!(host.berth_as(&c, ["list", "--json"]).json(), json!({ "items": [] }));
    assert_eq!(b.state(), "stopped");
}

/// The quotes that a shell assignment came with.
fn quote(text: &str) -> &str {
    ["'", "\""].into_iter().find(|quote| text.contains(quote)).unwrap_or_default()
}

#[test]
fn exec_gives_the_status_the_streams_and_the_signals_of_the_command() {
    let host = Host::start();
    let a = host.new_berth("a");
    let split = a.sh("echo out; echo err >&2; exit 42").output();
    assert_eq!((split.status, split.stdout.as_str(), split.stderr.as_str()), (42, "out\n", "err\n"));
    assert_eq!(a.exec(&["/no/such/program"]).output().status, 127);
    assert_eq!(a.exec(&["/etc/passwd"]).output().status, 126);
    assert_eq!(a.sh("kill -TERM $$").output().status, 128 + 15);
    assert_eq!(a.sh_as_user("id -u; id -g").ok(), "1000\n1000");
    let bytes: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
    let sum = a.exec_input(&["sha256sum"], bytes.clone()).ok();
    let file = host.slot.dir.join("bytes");
    fs::write(&file, bytes).unwrap();
    assert_eq!(sum.split_whitespace().next(), berth_tests::Run::new("sha256sum").arg(&file).ok().split_whitespace().next());
    let environment = host.berth(["exec", "-e", "WORD=a b", "-w", "/tmp", a.name(), "--", "sh", "-c", "echo $WORD; pwd"]).ok();
    assert_eq!(environment, "a b\n/tmp");
    // What a command that was left alone holds open ends with the client that went away.
    let mut left = a.sh("echo begun; exec sleep 1000").spawn();
    assert_eq!(left.line(SOON).unwrap(), "begun");
    drop(left);
    berth_tests::until("the command ends with its client", SOON, || (a.sh("pgrep -x sleep || echo none").ok() == "none").then_some(()));
}

#[test]
fn profiles_images_doctor_and_the_node_answer() {
    let host = Host::start();
    let profiles = host.berth(["profile", "list", "--json"]).json();
    let names: Vec<&str> = profiles["items"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "developer", "student"]);
    host.berth(["profile", "create", "tiny", "--cpus", "0.5", "--memory", "512m", "--pids-limit", "128", "--disk", "2g"]).ok();
    let a = host.user("a");
    host.berth(["assign", &a.name, "--profile", "tiny", "--no-start"]).ok();
    assert_eq!(host.berth_of(&a).show()["limits"]["cpu_millis"], 500);
    // A changed profile changes the berths that use it.
    host.berth(["profile", "set", "tiny", "--cpus", "0.75"]).ok();
    assert_eq!(host.berth(["profile", "show", "tiny", "--json"]).json()["limits"]["cpu_millis"], 750);
    berth_tests::until("the node has the profile's new limit", SOON, || {
        (host.berth_of(&a).status()["limits"]["cpu_millis"] == 750).then_some(())
    });
    let refused = host.berth(["profile", "rm", "tiny", "--json"]).fails();
    assert_eq!((refused.status, problem(&refused)["code"].as_str()), (5, Some("profile_in_use")));

    let images = host.berth(["image", "list", "--json"]).json();
    let image = &images["items"][0];
    assert!(image["digest"].as_str().unwrap().starts_with("sha256:") && image["size_bytes"].as_u64().unwrap() > 100 << 20, "{images}");
    assert_eq!(image["used_by"], json!([a.name]));
    assert_eq!(image["default"], true);

    let doctor = host.berth(["doctor", "--json"]).output();
    let report: Value = serde_json::from_str(&doctor.stdout).unwrap();
    assert_eq!(doctor.status == 0, report["healthy"] == true, "{report}");
    for check in report["checks"].as_array().unwrap() {
        assert!(check["level"] == "ok" || check["fix"].is_string(), "a fix for each line that is not well: {check}");
    }
    for about in ["kernel", "control groups", "nft", "id", "disk"] {
        let named = report["checks"].as_array().unwrap().iter().any(|check| check["name"].as_str().unwrap().contains(about));
        assert!(named, "nothing about {about}: {report}");
    }
    assert!(host.api("GET", "/openapi.json", None).json()["paths"].as_object().unwrap().len() > 10);
    assert_eq!(host.api("GET", "/healthz", None).status, 200);
    assert_eq!(host.api("GET", "/readyz", None).status, 200);
}

#[test]
fn a_store_without_images_says_how_to_get_one() {
    let host = Host::with(Options { images: false, ..Options::default() });
    let a = host.user("a");
    let refused = host.assign_command(&a, &["--json"]).fails();
    assert!(problem(&refused)["hint"].as_str().unwrap_or_default().contains("berth image"), "{refused:?}");
    let junk = host.slot.dir.join("junk.tar");
    for (what, bytes) in [("nothing", Vec::new()), ("no tar", vec![b'x'; 4096]), ("half a header", b"etc/passwd\0".to_vec())] {
        fs::write(&junk, bytes).unwrap();
        let refused = host.berth(["image", "import", "--name", "junk"]).arg(&junk).output();
        assert!([1, 2, 5].contains(&refused.status), "{what}: {refused:?}");
        assert!(refused.stderr.contains("berth: "), "{what}: {refused:?}");
    }
    assert_eq!(host.berth(["image", "list", "--json"]).json(), json!({ "items": [] }));
    let missing = host.berth(["image", "import", "/no/such/file"]).fails();
    assert!(missing.stderr.contains("/no/such/file"), "{missing:?}");
    let left = fs::read_dir(host.state_dir.join("images")).map(Iterator::count).unwrap_or(0);
    assert!(left <= 1, "what was half imported is gone");
}

#[test]
fn s06_malformed_and_oversized_requests_are_refused_and_harm_nothing() {
    let host = Host::start();
    let request = |method: &str, path: &str, body: &str| host.api(method, path, Some(body));
    for (method, path, body, code) in [
        ("POST", "/api/v1/berths", "", "malformed_json"),
        ("POST", "/api/v1/berths", "{", "malformed_json"),
        ("POST", "/api/v1/berths", "[]", "invalid_body"),
        ("POST", "/api/v1/berths", "{\"user\": 7}", "invalid_body"),
        ("POST", "/api/v1/berths", "{\"user\": \"a\", \"cpus\": 1}", "invalid_body"),
        ("POST", "/api/v1/berths", "{\"user\": \"a\\u0000b\"}", "invalid_user_name"),
        ("POST", "/api/v1/berths", "{\"user\": \"a\", \"memory_bytes\": -1}", "invalid_body"),
        ("POST", "/api/v1/berths", "{\"user\": \"a\", \"memory_bytes\": 1e40}", "invalid_body"),
        ("PATCH", "/api/v1/berths/nobody-here", "{\"pids\": \"x\"}", "invalid_body"),
        ("POST", "/api/v1/profiles", "{\"name\": \"a/b\"}", "invalid_profile_name"),
    ] {
        let refused = request(method, path, body);
        assert!((400..500).contains(&refused.status), "{body}: {refused:?}");
        assert!(refused.head.to_ascii_lowercase().contains("application/problem+json"), "{body}: {refused:?}");
        assert_eq!(refused.json()["code"], code, "{body}: {refused:?}");
    }
    for (method, path, status) in [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/berths/..%2f..%2fetc", 400),
        ("GET", "/api/v1/berths/%00", 400),
        ("GET", "/api/v1/berths?limit=banana", 400),
        ("GET", "/api/v1/operations/not-an-id", 400),
        ("DELETE", "/api/v1/berths", 405),
        ("PUT", "/healthz", 405),
    ] {
        let refused = host.api(method, path, None);
        assert_eq!(refused.status, status, "{method} {path}: {refused:?}");
        assert!(refused.head.to_ascii_lowercase().contains("application/problem+json"), "{method} {path}: {refused:?}");
        assert!(refused.json()["code"].is_string(), "{method} {path}: {refused:?}");
    }

    let socket = host.api_socket();
    let large = format!("{{\"user\": \"{}\"}}", "x".repeat(8 << 20));
    let refused = request("POST", "/api/v1/berths", &large);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (413, Some("body_too_large")), "{refused:?}");
    assert!(refused.body.len() < 4096);
    // No HTTP at all, a head without end, a length that lies, more headers than anybody needs.
    for bytes in [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"POST /api/v1/berths HTTP/1.1\r\nContent-Length: banana\r\n\r\n"] {
        if let Ok(refused) = http::raw(&socket, bytes) {
            assert!((400..500).contains(&refused.status), "{refused:?}");
        }
    }
    let headers = "X-Filler: y\r\n".repeat(20_000);
    if let Ok(refused) = http::raw(&socket, format!("GET /healthz HTTP/1.1\r\nHost: b\r\n{headers}\r\n").as_bytes()) {
        assert!((400..500).contains(&refused.status), "{refused:?}");
    }
    // Clients that say nothing, or stop in the middle, keep nobody else waiting.
    let slow: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"POST /api/v1/berths HTTP/1.1\r\nContent-Le").unwrap();
            stream
        })
        .collect();
    assert_eq!(host.api("GET", "/readyz", None).status, 200);
    drop(slow);
    assert_eq!(host.list(), json!({ "items": [] }));
    assert!(!host.log("server").contains("panicked"), "{}", host.log_tail("server"));
    assert!(!host.log("node").contains("panicked"), "{}", host.log_tail("node"));
}

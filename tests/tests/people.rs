//! Who gets a berth by himself, and who has more for a while: rules and requests on real berths.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use berth_tests::{Berth, Host, Output, User, session::Sessions, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
const SAY: &str = "echo \"[${DOCKER_HOST-unset}]\"";

/// Memory and processes, as root inside reads them.
#[track_caller]
fn inside(berth: &Berth) -> [u64; 2] {
    let script = "cd /sys/fs/cgroup; for files in 'memory/memory.limit_in_bytes memory.max' 'pids/pids.max pids.max'; do \
                  for f in $files; do test -f $f && cut -d' ' -f1 $f && break; done; done";
    let text = berth.sh(script).ok();
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("no number: {text}"))).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("not two numbers: {text}"))
}

#[test]
fn what_a_user_asks_for_is_approved_applied_inside_and_falls_back_by_itself() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--memory", "700m", "--pids-limit", "400"]);
    let (pid, before) = (a.pid(), [700 * MIB, 400]);
    assert_eq!(inside(&a), before);
    let line = ["request", "--memory", "+300m", "--pids-limit", "600", "--until", "7d", "--reason", "the thesis", "--json"];
    let asked = host.berth_as(&a.user, line).json();
    let id = asked["id"].as_str().expect("an id");
    assert_eq!((asked["state"].as_str(), inside(&a)), (Some("open"), before), "asking gives nothing");
    assert_eq!(host.berth_as(&a.user, ["requests", "approve", id]).fails().status, 4, "nobody approves his own");
    let listed = host.berth(["requests", "list"]).ok();
    assert!(listed.contains(id) && listed.contains("300 MiB more memory, 600 processes") && listed.contains("the thesis"), "{listed}");

    let said = host.berth(["requests", "approve", id, "--until", "8s", "--word", "good luck"]).ok();
    assert!(said.contains("300 MiB more memory"), "{said}");
    assert_eq!((inside(&a), a.pid()), ([1000 * MIB, 600], pid), "applied to the running berth");
    let status = host.berth_as(&a.user, ["status"]).ok();
    assert!(status.contains("Of that for a while: 300 MiB more memory"), "{status}");
    // A change of the limits themselves, meanwhile.
    host.berth(["set", a.name(), "--memory", "800m"]).ok();
    assert_eq!(inside(&a), [1100 * MIB, 600]);
    until("it has fallen back", SOON, || (host.berth(["requests", "show", id, "--json"]).json()["state"] == "ended").then_some(()));
    assert_eq!((inside(&a), a.pid()), ([800 * MIB, 400], pid));
    assert_eq!((&a.show()["grants"], &a.show()["conditions"]), (&json!([]), &json!([])));

    let trail = host.berth(["audit", "--user", a.name(), "--json"]).ok();
    let place = |action: &str| trail.find(&format!("\"{action}\"")).unwrap_or_else(|| panic!("no {action} in {trail}"));
    let places = ["create_request", "approve_request", "apply_request", "end_request", "fall_back"].map(place);
    assert!(places.is_sorted() || places.iter().rev().is_sorted(), "in the order in which they came: {places:?}");
}

#[track_caller]
fn login(sessions: &Sessions, user: &User, script: &str) -> Output {
    // Without a terminal bash says on stderr that it has no job control.
    let output = sessions.run(user, &["bash", "-l", "-i", "-c", script]).limit(SOON).output();
    assert!(output.success(), "{output:?}");
    output
}

#[test]
fn a_members_first_login_gives_him_a_berth_and_nobody_is_held_up_by_it() {
    let host = Host::start();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| host.user(name));
    for member in [&a, &c, &d] {
        host.berth(["rule", "add", "--group", &member.name, "--profile", "student", "--auto"]).ok();
    }
    let sessions = Sessions::of(&host, false);
    let has_berth = |user: &User| host.berth(["show", &user.name]).output().success();
    // What is not interactive neither makes one nor says anything: scp, sftp, scripts.
    let quiet = sessions.run(&a, &["bash", "-l", "-c", SAY]).limit(SOON).output();
    assert!(quiet.success() && quiet.stderr.is_empty() && quiet.stdout.trim() == "[unset]", "{quiet:?}");
    assert!(!has_berth(&a));
    assert_eq!(login(&sessions, &b, SAY).stdout.trim(), "[unset]", "no rule is about him");
    assert!(!has_berth(&b));

    let expected = format!("[unix:///run/berth/users/{}/docker.sock]", a.uid);
    // On a busy host the berth may be there at his second login only.
    until("his login has a Docker", SOON, || (login(&sessions, &a, SAY).stdout.trim() == expected).then_some(()));
    let shown = host.berth(["show", &a.name, "--json"]).json();
    assert_eq!((&shown["profile"], &shown["state"]), (&json!("student"), &json!("stopped")));
    let docker = login(&sessions, &a, "docker version --format '{{.Server.Os}}'");
    assert_eq!(docker.stdout.trim(), "linux", "{docker:?}");

    // The first command does it too.
    let env = host.berth_as(&c, ["env"]).limit(SOON).ok();
    assert_eq!(env, format!("export DOCKER_HOST=unix://{}", host.run_dir.join(format!("users/{}/docker.sock", c.uid)).display()));
    assert_eq!(host.berth_as(&b, ["status"]).output().status, 3);

    // A service that hangs, and one that is not there, hold no login up.
    let server = Pid::from_raw(i32::try_from(host.server_pid()).expect("a pid"));
    kill(server, Signal::SIGSTOP).expect("stop the server");
    let begun = Instant::now();
    let held = login(&sessions, &d, SAY);
    kill(server, Signal::SIGCONT).expect("go on");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(held.stdout.trim(), "[unset]");
    host.stop_server();
    assert_eq!(login(&sessions, &b, SAY).stdout.trim(), "[unset]");
    assert_eq!(login(&sessions, &a, SAY).stdout.trim(), expected, "who has one needs no service");
}

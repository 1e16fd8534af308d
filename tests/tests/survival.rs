//! What dies and what goes on: node, server and shim killed at work, and the rights that a captured one would have.
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Options, Run, Running, User, berth::BUSYBOX, programs, until, wait::within};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
/// Lines of a counter that takes a tenth of a second for each.
const LINES: u32 = 60;

/// A container that does nothing, and a counter that runs in it.
fn counter(berth: &Berth<'_>) -> Running {
    let script = format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done");
    berth.docker(&["exec", "sleeper", "sh", "-c", &script]).spawn()
}

fn expect(counter: &mut Running, lines: std::ops::Range<u32>) {
    for number in lines {
        assert_eq!(counter.line(SOON).as_deref(), Some(format!("line {number}").as_str()));
    }
}

fn field(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|e| panic!("/proc/{pid}/status: {e}"));
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {status}")).trim().to_owned()
}

/// The one berth of a list.
fn first(listed: &Value) -> &Value {
    let berths = listed.as_array().or_else(|| listed["items"].as_array()).unwrap_or_else(|| panic!("{listed}"));
    assert_eq!(berths.len(), 1, "{listed}");
    &berths[0]
}

/// A pid that names a process which still runs.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

#[test]
fn l01_no_line_is_lost_when_node_and_server_are_killed() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "sleeper", BUSYBOX, "sleep", "600"]).ok();
    let (pid, shim) = (a.pid(), a.shim_pid());

    let mut exec = counter(&a);
    let mut logs = {
        let script = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.1; done";
        a.docker(&["run", "-d", "--name", "ticks", BUSYBOX, "sh", "-c", script]).ok();
        a.docker(&["logs", "-f", "ticks"]).spawn()
    };
    expect(&mut exec, 0..10);
    host.kill_node();
    host.kill_server();
    expect(&mut exec, 10..25);
    // Nobody but the shim is there, and a new client is served all the same.
    assert_eq!(a.docker(&["exec", "sleeper", "echo", "alone"]).ok(), "alone");
    host.start_node();
    host.start_server();
    expect(&mut exec, 25..LINES);
    assert_eq!(exec.line(SOON), None);
    assert_eq!(exec.finish(SOON).status, 0);
    for number in 0..30 {
        assert_eq!(logs.line(SOON), Some(format!("tick {number}")));
    }

    assert_eq!((a.pid(), a.shim_pid()), (pid, shim), "the berth was taken up again, not started anew");
    let listed = host.list();
    let listed = first(&listed);
    assert_eq!((listed["user"].as_str(), listed["state"].as_str()), (Some(a.name()), Some("running")), "{listed}");
    a.stop().ok();
    assert!(!lives(pid) && !lives(shim), "stop works on a berth that was taken up again");
    a.await_state("stopped");
    a.start().ok();
    a.await_docker();
    a.docker(&["start", "sleeper"]).ok();
    drop(logs);
}

#[test]
fn l01_either_daemon_alone_can_die_and_come_back() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "sleeper", BUSYBOX, "sleep", "600"]).ok();
    let mut exec = counter(&a);
    expect(&mut exec, 0..5);
    host.kill_node();
    expect(&mut exec, 5..10);
    // The server still says what it knows.
    assert_eq!(first(&host.list())["user"].as_str(), Some(a.name()));
    host.start_node();
    expect(&mut exec, 10..15);
    host.kill_server();
    let unreachable = host.berth(["list"]).fails();
    assert_eq!(unreachable.status, 6, "{unreachable:?}");
    expect(&mut exec, 15..25);
    host.start_server();
    expect(&mut exec, 25..LINES);
    assert!(exec.finish(SOON).success());
    assert_eq!(first(&host.list())["state"].as_str(), Some("running"));
}

#[test]
fn l01_a_berth_ends_with_its_shim_is_reported_and_wakes_again() {
    let host = Host::start();
    let a = host.new_berth("a");
    let b = host.new_berth("b");
    a.load_busybox();
    a.docker(&["run", "-d", "--name", "sleeper", "--restart", "always", BUSYBOX, "sleep", "600"]).ok();
    let (pid, shim, neighbour) = (a.pid(), a.shim_pid(), b.pid());
    let old_socket = fs::metadata(a.socket()).unwrap().ino();
    Run::new("kill").args(["-KILL", &shim.to_string()]).ok();
    until("PID 1 ends with its shim", SOON, || (!lives(pid)).then_some(()));
    until("nothing of it runs any more", SOON, || a.group_pids("payload").is_empty().then_some(()));
    let told = until("the death is reported", SOON, || {
        let status = a.status();
        let told = status["conditions"].as_array().unwrap().iter().find(|c| c["kind"] == "ShimDied" || c["kind"] == "Restarted").cloned();
        told.and_then(|condition| condition["message"].as_str().map(str::to_owned))
    });
    assert!(told.contains("its shim died (signal: 9 (SIGKILL))"), "{told}");
    until("the socket is a new one", SOON, || fs::metadata(a.socket()).ok().filter(|m| m.ino() != old_socket));
    assert_eq!(b.pid(), neighbour);

    // It is started anew, by the next connection or by itself, and what it had is there.
    until("a client is served again", SOON, || a.docker(&["ps"]).output().success().then_some(()));
    until("the container is back", SOON, || {
        let names = a.docker(&["ps", "--format", "{{.Names}}"]).output();
        (names.stdout.trim() == "sleeper").then_some(())
    });
    assert_eq!(a.state(), "running");
}

#[test]
fn l01_a_berth_that_dies_while_the_node_is_away_is_found_dead() {
    let host = Host::start();
    let a = host.new_berth("a");
    let (pid, shim) = (a.pid(), a.shim_pid());
    host.kill_node();
    Run::new("kill").args(["-KILL", &shim.to_string()]).ok();
    until("PID 1 ends with its shim", SOON, || (!lives(pid)).then_some(()));
    host.start_node();
    // It was meant to run, so it does again; whoever connects meanwhile waits for it.
    until("a client is served again", SOON, || a.docker(&["ps"]).output().success().then_some(()));
    a.await_docker();
    assert_ne!(a.pid(), pid);
}

#[test]
fn s03_shim_and_server_hold_no_right() {
    let host = Host::start();
    let a = host.new_berth("a");
    let (shim, base) = (a.shim_pid(), a.id_base().to_string());
    for ids in ["Uid:", "Gid:"] {
        assert_eq!(field(shim, ids).split_whitespace().collect::<Vec<_>>(), [&base; 4], "{ids}");
    }
    assert_eq!(field(shim, "Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(shim, set), 16).unwrap(), 0, "{set}");
    }
    assert_eq!(field(shim, "NoNewPrivs:"), "1");
    assert_eq!(field(shim, "Seccomp:"), "2", "a filter");
    // The kernel gives the files of a process that cannot be dumped to root, whoever it runs as.
    assert_eq!(fs::metadata(format!("/proc/{shim}/status")).unwrap().uid(), 0, "the shim can be dumped");
    let own = a.host.run_dir.display().to_string();
    for entry in fs::read_dir(format!("/proc/{shim}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        // Logs, the spool of calls and the freezer of its own berth are the only files of the host that it may hold; its berth's group,
        // whose figures /proc shows, the only directory; and nothing of another berth.
        let own_freezer = |name| target.ends_with(&format!("/{}/payload/{name}", a.id()));
        let own_spool = target.starts_with(&*host.state_dir.join(format!("node/calls/{}.", a.id())).to_string_lossy());
        let allowed = !target.starts_with('/')
            || own_freezer("cgroup.freeze")
            || own_freezer("cgroup.events")
            || (target.starts_with("/sys/fs/cgroup/") && target.ends_with(&format!("/{}/payload", a.id())))
            || own_spool
            || target == "/"
            // Of the berth's own /dev, whose mount is none of the host's: what it serves the emulated files through.
            || target == "/fuse"
            || target.starts_with("/dev/")
            || target.starts_with(&own)
            || target.starts_with(&*host.log_dir.to_string_lossy())
            || target.starts_with("/memfd:");
        assert!(allowed, "the shim holds {target}");
    }

    let server = host.server_pid();
    let uid = host.server_user.uid.to_string();
    assert_eq!(field(server, "Uid:").split_whitespace().collect::<Vec<_>>(), [&uid; 4]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(server, set), 16).unwrap(), 0, "{set}");
    }
    assert_eq!(field(server, "NoNewPrivs:"), "1");
}

#[test]
fn s03_the_server_refuses_to_run_as_root() {
    let host = Host::start();
    let refused = Run::new(programs::find("berth-server")).arg("--config").arg(host.server_config()).limit(SOON).output();
    assert_eq!(refused.status, 78, "{refused:?}");
    assert!(refused.text().contains("root"), "{refused:?}");
}

#[test]
fn s03_nobody_but_root_and_the_server_may_speak_to_the_node() {
    let host = Host::start();
    let stranger = host.user("s");
    let program = host.slot.dir.join("stream");
    fs::copy(env!("CARGO_BIN_EXE_berth-tests-stream"), &program).unwrap();
    // A client that half-closes is gone for an HTTP server.
    let answered = |user: &User| {
        let request = "GET /v1/node HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n";
        user.run(program.to_str().unwrap()).arg(host.node_socket()).arg("open").input(request).output().stdout.contains("200 OK")
    };
    assert!(!answered(&stranger), "the socket's mode keeps strangers away");
    fs::set_permissions(host.node_socket(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    assert!(!answered(&stranger), "the peer's uid does, should the mode ever be wrong");
    assert!(answered(&User { home: "/".into(), ..host.server_user.clone() }));
}

#[test]
fn l01_killed_again_and_again_the_daemons_come_back_to_the_same_truth() {
    let host = Host::start();
    let a = host.new_berth("a");
    let pid = a.pid();
    let began = Instant::now();
    for round in 0..5 {
        host.kill_node();
        if round % 2 == 0 {
            host.kill_server();
            host.start_server();
        }
        host.start_node();
        assert_eq!(a.pid(), pid, "round {round}");
        a.docker(&["ps"]).ok();
    }
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(began.elapsed() < Duration::from_secs(60), "coming back takes {:?}", began.elapsed() / 5);
}

/// Every 15 ms of an operation, and a while beyond its end.
#[test]
fn l01_the_server_killed_in_the_middle_of_anything_comes_back_and_finishes_it() {
    let host = Host::with(Options { quarantine_days: 0, ..Options::default() });
    let user = host.user("a");
    let a = host.berth_of(&user);
    let node_says = || {
        let answer = host.node_api("GET", &format!("/v1/berths/{}", user.name), None);
        (answer.status == 200).then(|| answer.json()["state"].as_str().unwrap_or_default().to_owned())
    };
    let server_says = || {
        let shown = host.berth(["show", &user.name, "--json"]).output();
        match shown.status {
            0 => Some(serde_json::from_str::<Value>(&shown.stdout).unwrap()["state"].as_str().unwrap().to_owned()),
            3 => None,
            _ => panic!("{shown:?}"),
        }
    };
    for moment in (0..12).map(|number| Duration::from_millis(15 * number)) {
        for (command, wanted) in [("assign", Some("stopped")), ("start", Some("running")), ("stop", Some("stopped")), ("delete", None)] {
            let began = Instant::now();
            let asked = match command {
                "assign" => host.assign_command(&user, &["--no-start"]).spawn(),
                "delete" => a.delete().spawn(),
                _ => host.berth([command, &user.name]).spawn(),
            };
            within(moment, || (began.elapsed() >= moment).then_some(()));
            host.kill_server();
            drop(asked);
            host.start_server();
            // What was accepted is carried out; what was not leaves nothing, and is asked for again.
            until(&format!("{command}, killed after {moment:?}, ends in {wanted:?}"), SOON, || {
                let (node, server) = (node_says(), server_says());
                let settled = node == server && node.as_deref() == wanted;
                if !settled && node == server && !matches!(node.as_deref(), Some("starting" | "stopping")) {
                    let again = match command {
                        "assign" => host.assign_command(&user, &["--no-start"]).output(),
                        "delete" => a.delete().output(),
                        _ => host.berth([command, &user.name]).output(),
                    };
                    assert!([0, 3, 5].contains(&again.status), "{again:?}");
                }
                settled.then_some(())
            });
        }
    }
}

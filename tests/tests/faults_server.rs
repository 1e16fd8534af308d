//! Faults at the steps of the node, seen through the server: the message that a person gets, and an intent that is carried out though the
//! node died over it. Every blow at every step is struck in `faults`.
#![forbid(unsafe_code)]

use std::{thread, time::Duration};

use berth_tests::{
    Berth, Host, Options, Output, User,
    fault::{Fault, Step, signal},
    http,
    snapshot::{Scope, Snapshot, loop_inodes},
    until,
};
use nix::sys::signal::Signal;
use serde_json::json;

const SETTLED: Duration = Duration::from_secs(30);

/// One host whose daemons can be struck, and a user without a berth.
struct Bench {
    host: Host,
    user: User,
    fault: Fault,
    scope: Scope,
    /// The host when nobody has a berth.
    empty: Snapshot,
}

impl Bench {
    #[track_caller]
    fn set_up() -> Self {
        let fault = Fault::new();
        let host = Host::with(Options { quarantine_days: 0, env: vec![fault.env()], ..Options::default() });
        let user = host.user("a");
        let scope = Scope::slot(&host.slot);
        let bench = Self { empty: Snapshot::default(), host, user, fault, scope };
        // The first berth of an instance leaves what belongs to the instance: the allocator's file, the parent of the control groups.
        good(&bench.assign(&[]));
        good(&bench.delete());
        let empty = Snapshot::take(&bench.scope);
        Self { empty, ..bench }
    }

    fn assign(&self, args: &[&str]) -> Output {
        self.host.assign_command(&self.user, args).output()
    }

    fn delete(&self) -> Output {
        self.host.berth_of(&self.user).delete().output()
    }

    fn exists(&self) -> bool {
        self.host.node_api("GET", &format!("/v1/berths/{}", self.user.name), None).status == 200
    }

    /// The steps of an assign; nothing is left of it.
    fn steps(&self, args: &[&str]) -> Vec<Step> {
        let steps = self.fault.note(|| good(&self.assign(args)));
        good(&self.delete());
        assert!(!steps.is_empty(), "the daemons are not armed");
        steps
    }

    #[track_caller]
    fn assert_empty(&self, when: &str) {
        eprintln!("{when}: looking for what is left");
        self.empty.assert_back(&self.scope, SETTLED);
        assert!(!self.exists(), "{when}: the node still has the berth");
        assert!(self.host.berth(["show", &self.user.name]).output().status == 3, "{when}: the server still has the berth");
    }
}

#[track_caller]
fn good(output: &Output) {
    assert!(output.success(), "{output:?}");
}

#[test]
fn l01_a_failing_step_of_an_assign_is_told_and_leaves_nothing() {
    let bench = Bench::set_up();
    for step in bench.steps(&[]) {
        bench.fault.arm("full", &step);
        let refused = bench.assign(&[]);
        assert!(bench.fault.struck().is_some(), "{step:?} did not come again");
        bench.fault.disarm();
        if refused.success() {
            // It stood in nobody's way; only what the shim does after the start may be so.
            assert_eq!(step.who, "shim", "{step:?}");
            good(&bench.delete());
        } else {
            assert!([1, 5].contains(&refused.status), "{step:?}: {refused:?}");
            for part in [step.name.as_str(), "No space left on device", "hint: "] {
                assert!(refused.stderr.contains(part), "{step:?}: the message tells {part:?}: {refused:?}");
            }
        }
        bench.assert_empty(&format!("assign, a full disk at {step:?}"));
    }
    good(&bench.assign(&[]));
    bench.host.berth_of(&bench.user).await_docker();
}

#[test]
fn l01_a_create_that_the_node_dies_over_is_undone_and_then_carried_out() {
    let bench = Bench::set_up();
    for step in bench.steps(&["--no-start"]) {
        bench.fault.arm("kill", &step);
        let creating = bench.host.assign_command(&bench.user, &["--no-start"]).spawn();
        until(&format!("{step:?} is struck"), SETTLED, || bench.fault.struck());
        assert!(bench.host.node_died(SETTLED), "the fault at {step:?} was no end of the node");
        bench.fault.disarm();
        // The node comes back alone first, so that what it repairs by itself can be told from what it is asked for.
        bench.host.kill_server();
        bench.host.start_node();
        // The server is away just now, and its socket with it.
        bench.empty.assert_back_but(&bench.scope, SETTLED, "/server");
        assert!(!bench.exists(), "killed at {step:?}: the node has a half-made berth");
        // The intent stands: the server asks again, unasked.
        bench.host.start_server();
        until(&format!("the create goes on after a kill at {step:?}"), SETTLED, || bench.exists().then_some(()));
        drop(creating);
        until(&format!("the operation ends after a kill at {step:?}"), SETTLED, || {
            bench.host.berth(["show", &bench.user.name, "--json"]).output().success().then_some(())
        });
        good(&bench.delete());
        bench.assert_empty(&format!("deleted after a kill at {step:?}"));
    }
}

/// The berth runs and its Docker answers, on one disk, with one shim.
#[track_caller]
fn assert_serves(when: &str, berth: &Berth<'_>) {
    until(&format!("{when}: a client is served"), SETTLED, || berth.docker(&["ps"]).output().success().then_some(()));
    until(&format!("{when}: the node says so"), SETTLED, || (berth.status()["docker_ready"] == true).then_some(()));
    assert_eq!(berth.group_pids("shim").len(), 1, "{when}");
    let disk = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(berth.disk()).unwrap());
    assert_eq!(loop_inodes().into_iter().filter(|inode| *inode == disk).count(), 1, "{when}");
}

/// What an inner Docker that nobody uses comes by: it is frozen, thawed for the next client, and stopped.
#[test]
fn l01_whoever_dies_while_a_berth_falls_asleep_wakes_or_is_stopped_for_being_idle_leaves_a_berth_that_serves() {
    let bench = Bench::set_up();
    good(&bench.assign(&[]));
    bench.host.stop_server();
    let berth = bench.host.berth_of(&bench.user);
    let request = |freeze_after: Option<u32>, stop_after: Option<u32>| {
        let status = berth.status();
        let policy = json!({ "idle": { "freeze_after": freeze_after, "stop_after": stop_after }, "restart": "never" });
        let ensure = json!({
            "id": status["id"], "image": status["image"], "limits": status["limits"], "wanted": "present", "allow_system": false,
            "policy": policy,
        });
        (format!("/v1/berths/{}", berth.name()), ensure.to_string())
    };
    let idle = |freeze_after: Option<u32>, stop_after: Option<u32>| {
        let (path, ensure) = request(freeze_after, stop_after);
        let answer = bench.host.node_api("PUT", &path, Some(&ensure));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    // Whoever is to answer may be struck before he does.
    let idle_unheard = |freeze_after: Option<u32>, stop_after: Option<u32>| {
        let ((path, ensure), socket) = (request(freeze_after, stop_after), bench.host.node_socket());
        thread::spawn(move || http::request(&socket, "PUT", &path, Some(&ensure)));
    };
    for (name, who) in [("freeze", "shim"), ("thaw", "shim"), ("tell the shim to retire", "node")] {
        for victim in ["node", "shim", "PID 1", "nobody: the disk is full"] {
            let when = format!("{victim} at {name}");
            idle(None, None);
            assert_serves(&format!("before {when}"), &berth);
            let (shim, first) = (berth.shim_pid(), berth.pid());
            if name == "thaw" {
                idle(Some(1), None);
                until(&format!("{when}: it sleeps"), SETTLED, || (berth.state() == "frozen").then_some(()));
            }
            let full = victim.starts_with("nobody");
            bench.fault.arm(if full { "full" } else { "halt" }, &Step { name: name.into(), who: who.into(), number: 1 });
            let waking = match name {
                "freeze" => {
                    idle_unheard(Some(1), None);
                    None
                }
                "thaw" => Some(berth.docker(&["ps"]).spawn()),
                _ => {
                    idle_unheard(None, Some(1));
                    None
                }
            };
            let struck = until(&format!("{when}: the step comes"), SETTLED, || bench.fault.struck());
            match victim {
                "node" => bench.host.kill_node(),
                "shim" => signal(shim, Signal::SIGKILL),
                "PID 1" => signal(first, Signal::SIGKILL),
                _ => {}
            }
            signal(struck.pid, Signal::SIGCONT);
            bench.fault.disarm();
            if victim == "node" {
                bench.host.start_node();
            }
            assert_serves(&when, &berth);
            drop(waking);
        }
    }
    bench.host.start_server();
    good(&bench.delete());
    // What his own Docker client writes into the user's home is his.
    bench.empty.assert_back_but(&bench.scope, SETTLED, "/home/");
}

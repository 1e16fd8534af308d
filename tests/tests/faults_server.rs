//! Faults at the steps of the node, seen through the server: the message that a person gets, and an intent that is carried out though the
//! node died over it. Every blow at every step is struck in `faults`.
#![forbid(unsafe_code)]

use std::time::Duration;

use berth_tests::{
    Host, Options, Output, User,
    fault::{Fault, Step},
    snapshot::{Scope, Snapshot},
    until,
};

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

//! What a host lacks is told: by `berth doctor` in a line with the cure, and by the start that fails for it, with the same cure. The node
//! runs in a mount namespace in which the thing is not there; the machine keeps it.
#![forbid(unsafe_code)]

use std::time::Duration;

use berth_tests::{
    Host, Need, Options,
    fault::{Fault, Step},
    snapshot::{Scope, Snapshot},
    until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// One thing that a host may lack.
struct Lack {
    /// Makes it so in the mount namespace that this runs in.
    script: &'static str,
    /// The line of the doctor.
    check: &'static str,
    /// What that line says, and what to do.
    says: &'static [&'static str],
    /// What the failed start says beside the doctor's words.
    start: &'static str,
}

const LACKS: [Lack; 2] = [
    Lack {
        script: "mount --bind /dev/null /dev/loop-control; exec \"$0\" \"$@\"",
        check: "loop devices",
        says: &["modprobe loop"],
        start: "loop device",
    },
    // cgroup v2 has its controllers in one place; nobody can take one away from a single mount namespace.
    Lack {
        script: "umount -l /sys/fs/cgroup/pids 2>/dev/null || true; exec \"$0\" \"$@\"",
        check: "control groups",
        says: &["must be enabled", "Linux 5.14"],
        start: "pids",
    },
];

fn check(host: &Host, name: &str) -> Value {
    let output = host.berth(["doctor", "--json"]).output();
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {report}")).clone()
}

#[test]
fn what_the_kernel_lacks_is_told_by_the_doctor_and_by_the_start_that_fails_for_it() {
    for lack in LACKS.iter().filter(|lack| lack.check != "control groups" || !Need::CgroupV2.is_here()) {
        let host = Host::with(Options { node_enters: Some(lack.script), ..Options::default() });
        let line = check(&host, lack.check);
        assert_eq!(line["level"], "failed", "{line}");
        for part in lack.says {
            assert!(line["fix"].as_str().unwrap_or_default().contains(part), "{part:?} in {line}");
        }
        let user = host.user("a");
        host.assign_command(&user, &["--no-start"]).ok();
        // What his own Docker client makes in the user's home is his.
        host.berth_of(&user).docker(&["--version"]).ok();
        let before = Snapshot::take(&Scope::slot(&host.slot));
        let refused = host.berth_of(&user).start().fails();
        let told = lack.says.iter().copied().chain([lack.start, lack.check, "hint: "]);
        for part in told {
            assert!(refused.stderr.contains(part), "{}: {part:?} in {refused:?}", lack.check);
        }
        // The user hears it too, and whom to ask.
        let client = host.berth_of(&user).docker(&["ps"]).fails();
        assert!(client.stderr.contains(lack.start) && client.stderr.contains("administrator"), "{client:?}");
        // The log of the failed run stays: it may say more.
        before.assert_back_but(&Scope::slot(&host.slot), SOON, "/log/");
        assert_eq!(host.berth_of(&user).state(), "failed");
    }
}

/// Calls that an older kernel does not have, at each step that makes something of it.
#[test]
fn a_call_that_the_kernel_does_not_know_fails_the_start_with_its_step_and_leaves_nothing() {
    let fault = Fault::new();
    let host = Host::with(Options { env: vec![fault.env()], ..Options::default() });
    let user = host.user("a");
    host.assign_command(&user, &["--no-start"]).ok();
    let berth = host.berth_of(&user);
    berth.start().ok();
    berth.stop().ok();
    let stopped = Snapshot::take(&Scope::slot(&host.slot)).of_any_run();
    for (name, who) in
        [("attach the disk", "stage"), ("mount the disk", "stage"), ("make the user namespace", "stage"), ("make namespaces", "stage")]
    {
        fault.arm("missing", &Step { name: name.into(), who: who.into(), number: 1 });
        let refused = berth.start().fails();
        assert!(fault.struck().is_some(), "{name} did not come");
        fault.disarm();
        for part in [name, "Function not implemented", "hint: ", "berth doctor"] {
            assert!(refused.stderr.contains(part), "{name}: {part:?} in {refused:?}");
        }
        until(&format!("{name}: nothing is left"), SOON, || {
            let now = Snapshot::take(&Scope::slot(&host.slot)).of_any_run();
            now.since(&stopped).0.is_empty().then_some(())
        });
    }
    berth.start().ok();
    berth.await_docker();
}

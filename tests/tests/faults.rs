//! The n-th change of the host fails, by an error and by SIGKILL, for n = 1, 2, … until a run is untouched: nothing is left behind, and
//! asking again succeeds. No step can be left out, because the steps count themselves (`berth_runtime::fault`).
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_tests::{
    Berth, Host, Options, Output, User, programs,
    snapshot::{Scope, Snapshot},
    until,
};

/// Steps are fewer by far; a run that is never untouched would go on for ever.
const MOST_STEPS: u32 = 60;
const SETTLED: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Error,
    Kill,
}

/// The file that arms the daemons, and what it has struck so far.
struct Fault {
    file: PathBuf,
    /// Each as often as it was.
    struck: Vec<String>,
}

impl Fault {
    /// The next step is struck that was not yet.
    fn arm(&self, mode: Mode) {
        let mode = if mode == Mode::Error { "error" } else { "kill" };
        let passed: String = self.struck.iter().map(|step| format!("{step}\n")).collect();
        fs::write(&self.file, format!("{mode}\n{passed}")).unwrap();
    }

    /// The step that was struck; none when the run was untouched. Nothing is armed afterwards.
    fn disarm(&mut self) -> Option<String> {
        let _ = fs::remove_file(&self.file);
        let told = self.file.with_extension("struck");
        let step = fs::read_to_string(&told).ok()?.trim().to_owned();
        let _ = fs::remove_file(told);
        self.struck.push(step.clone());
        Some(step)
    }

    #[track_caller]
    fn saw(&self, steps: &[&str]) {
        let missing: Vec<_> = steps.iter().filter(|step| !self.struck.iter().any(|s| s == **step)).collect();
        assert!(missing.is_empty(), "never struck: {missing:?}; struck: {:?}", self.struck);
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = self.disarm();
    }
}

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
    fn set_up(name: &str) -> Self {
        let file = programs::root().join(format!("fault-{name}-{}", std::process::id()));
        remove_stale(&programs::root());
        let fault = Fault { file, struck: Vec::new() };
        let env = vec![("BERTH_FAULT".to_owned(), fault.file.display().to_string())];
        // Every round takes an id range, and the slot has forty.
        let host = Host::with(Options { quarantine_days: 0, env, ..Options::default() });
        let user = host.user("a");
        let scope = Scope::slot(&host.slot);
        let bench = Self { empty: Snapshot::default(), host, user, fault, scope };
        // The first berth of an instance leaves what belongs to the instance: the allocator's file, the parent of the control groups.
        bench.create().assert_good();
        bench.berth().start().output().assert_good();
        bench.delete().assert_good();
        let empty = Snapshot::take(&bench.scope);
        Self { empty, ..bench }
    }

    fn berth(&self) -> Berth<'_> {
        self.host.berth_of(&self.user)
    }

    fn create(&self) -> Output {
        self.host.assign_command(&self.user, &["--no-start"]).output()
    }

    fn delete(&self) -> Output {
        self.berth().delete().output()
    }

    fn exists(&self) -> bool {
        self.host.node_api("GET", &format!("/v1/berths/{}", self.user.name), None).status == 200
    }

    #[track_caller]
    fn assert_empty(&self, when: &str) {
        eprintln!("{when}: looking for what is left");
        self.empty.assert_back(&self.scope, SETTLED);
        assert!(!self.exists(), "{when}: the node still has the berth");
        assert!(self.host.berth(["show", &self.user.name]).output().status == 3, "{when}: the server still has the berth");
    }

    /// The node died by the fault. It comes back alone first, so that what it repairs by itself can be told from what it is asked for.
    #[track_caller]
    fn restart_node_alone(&self, step: &str) {
        assert!(self.host.node_died(SETTLED), "the fault at {step:?} was no end of the node");
        self.host.kill_server();
        self.host.start_node();
    }
}

/// What killed runs of these tests left.
fn remove_stale(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("fault-").and_then(|rest| rest.split(['-', '.']).nth(1));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

trait Good {
    fn assert_good(&self);
}

impl Good for Output {
    #[track_caller]
    fn assert_good(&self) {
        assert!(self.success(), "{self:?}");
    }
}

#[test]
fn l01_an_error_at_any_step_of_create_leaves_nothing_and_a_retry_succeeds() {
    let mut bench = Bench::set_up("ce");
    for number in 1..=MOST_STEPS {
        bench.fault.arm(Mode::Error);
        let created = bench.create();
        let Some(step) = bench.fault.disarm() else {
            created.assert_good();
            assert!(number > 1);
            bench.delete().assert_good();
            bench.assert_empty("at the end");
            return bench.fault.saw(&["allocate ids", "write record", "make disk", "add to nft table", "bind user socket"]);
        };
        assert_eq!(created.status, 1, "{step}: {created:?}");
        assert!(created.stderr.contains(&step), "the message tells the step {step:?}: {created:?}");
        bench.assert_empty(&format!("create, error at step {number}, {step}"));
        bench.create().assert_good();
        assert!(bench.exists());
        bench.delete().assert_good();
        bench.assert_empty(&format!("deleted after an error at {step}"));
    }
    panic!("not untouched after {MOST_STEPS} steps: {:?}", bench.fault.struck);
}

#[test]
fn l01_a_kill_at_any_step_of_create_leaves_nothing_and_the_create_goes_on() {
    let mut bench = Bench::set_up("ck");
    for number in 1..=MOST_STEPS {
        bench.fault.arm(Mode::Kill);
        let mut creating = bench.host.assign_command(&bench.user, &["--no-start"]).spawn();
        let ended = until("the create ends, or the node", Duration::from_secs(60), || {
            if bench.fault.file.with_extension("struck").exists() {
                return Some(false);
            }
            (!creating.alive()).then_some(true)
        });
        if ended && !bench.fault.file.with_extension("struck").exists() {
            bench.fault.disarm();
            creating.finish(SETTLED).assert_good();
            bench.delete().assert_good();
            bench.assert_empty("at the end");
            return bench.fault.saw(&["allocate ids", "write record", "make disk", "add to nft table", "bind user socket"]);
        }
        until("the step is told", SETTLED, || {
            fs::read_to_string(bench.fault.file.with_extension("struck")).ok().filter(|t| t.ends_with('\n'))
        });
        let step = bench.fault.disarm().expect("struck");
        bench.restart_node_alone(&step);
        eprintln!("create, killed at step {number}, {step}");
        // The server is away just now, and its socket with it.
        bench.empty.assert_back_but(&bench.scope, SETTLED, "/server");
        assert!(!bench.exists(), "killed at {step}: the node has a half-made berth");
        // The intent stands: the server asks again, unasked.
        bench.host.start_server();
        until(&format!("the create goes on after a kill at {step}"), SETTLED, || bench.exists().then_some(()));
        drop(creating);
        until(&format!("the operation ends after a kill at {step}"), SETTLED, || {
            let shown = bench.host.berth(["show", &bench.user.name, "--json"]).output();
            shown.success().then_some(())
        });
        bench.delete().assert_good();
        bench.assert_empty(&format!("deleted after a kill at {step}"));
    }
    panic!("not untouched after {MOST_STEPS} steps: {:?}", bench.fault.struck);
}

#[test]
fn l01_an_error_at_any_step_of_start_takes_the_start_back_and_a_retry_succeeds() {
    let mut bench = Bench::set_up("se");
    bench.create().assert_good();
    // The first run makes what a stopped berth keeps: its logs and the record of its end.
    bench.berth().start().output().assert_good();
    bench.berth().stop().output().assert_good();
    let stopped = Snapshot::take(&bench.scope);
    for number in 1..=MOST_STEPS {
        bench.fault.arm(Mode::Error);
        let started = bench.berth().start().output();
        let Some(step) = bench.fault.disarm() else {
            started.assert_good();
            bench.berth().await_docker();
            bench.delete().assert_good();
            bench.assert_empty("at the end");
            return bench.fault.saw(&["execute shim", "make control groups", "make the link"]);
        };
        assert_eq!(started.status, 1, "{step}: {started:?}");
        assert!(started.stderr.contains(&step), "the message tells the step {step:?}: {started:?}");
        eprintln!("start, error at step {number}, {step}");
        stopped.assert_back(&bench.scope, SETTLED);
        bench.berth().start().output().assert_good();
        assert_eq!(bench.berth().state(), "running");
        bench.berth().stop().output().assert_good();
        stopped.assert_back(&bench.scope, SETTLED);
    }
    panic!("not untouched after {MOST_STEPS} steps: {:?}", bench.fault.struck);
}

#[test]
fn l01_an_error_at_any_step_of_a_create_that_starts_leaves_nothing_and_a_retry_succeeds() {
    let mut bench = Bench::set_up("as");
    let assign = |bench: &Bench| bench.host.assign_command(&bench.user, &[]).output();
    for number in 1..=MOST_STEPS {
        bench.fault.arm(Mode::Error);
        let created = assign(&bench);
        let Some(step) = bench.fault.disarm() else {
            created.assert_good();
            bench.delete().assert_good();
            bench.assert_empty("at the end");
            return bench.fault.saw(&["make disk", "bind user socket", "execute shim", "make control groups", "make the link"]);
        };
        assert_eq!(created.status, 1, "{step}: {created:?}");
        assert!(created.stderr.contains(&step), "the message tells the step {step:?}: {created:?}");
        bench.assert_empty(&format!("assign, error at step {number}, {step}"));
        // The first steps are those of a create without a start, and tried there.
        if ["execute shim", "make the link"].contains(&step.as_str()) {
            assign(&bench).assert_good();
            bench.berth().await_docker();
            bench.delete().assert_good();
            bench.assert_empty(&format!("deleted after an error at {step}"));
        }
    }
    panic!("not untouched after {MOST_STEPS} steps: {:?}", bench.fault.struck);
}

#[test]
fn l01_a_kill_at_any_step_of_start_is_repaired() {
    let mut bench = Bench::set_up("sk");
    bench.create().assert_good();
    bench.berth().start().output().assert_good();
    bench.berth().stop().output().assert_good();
    let stopped = Snapshot::take(&bench.scope);
    for number in 1..=MOST_STEPS {
        bench.fault.arm(Mode::Kill);
        let mut starting = bench.berth().start().spawn();
        let told = bench.fault.file.with_extension("struck");
        until("the start ends, or somebody dies", Duration::from_secs(60), || (told.exists() || !starting.alive()).then_some(()));
        if !told.exists() {
            bench.fault.disarm();
            starting.finish(SETTLED).assert_good();
            bench.delete().assert_good();
            bench.assert_empty("at the end");
            return bench.fault.saw(&["execute shim", "make control groups", "make the link"]);
        }
        until("the step is told", SETTLED, || fs::read_to_string(&told).ok().filter(|t| t.ends_with('\n')));
        let step = bench.fault.disarm().expect("struck");
        eprintln!("start, killed at step {number}, {step}");
        // It was the node, or the shim: then the node lives, and has to tell it.
        if bench.host.node_died(Duration::from_millis(500)) {
            bench.host.start_node();
        }
        drop(starting);
        bench.berth().start().output().assert_good();
        bench.berth().await_docker();
        assert_eq!(bench.berth().group_pids("shim").len(), 1, "one shim after a kill at {step}");
        bench.berth().stop().output().assert_good();
        stopped.assert_back(&bench.scope, SETTLED);
    }
    panic!("not untouched after {MOST_STEPS} steps: {:?}", bench.fault.struck);
}

/// Deletes a running berth, or one that never ran.
fn delete_with(name: &str, mode: Mode, running: bool) {
    let mut bench = Bench::set_up(name);
    for number in 1..=MOST_STEPS {
        bench.create().assert_good();
        if running {
            bench.berth().start().output().assert_good();
        }
        bench.fault.arm(mode);
        let mut deleting = bench.berth().delete().spawn();
        let told = bench.fault.file.with_extension("struck");
        until("the delete ends, or is struck", Duration::from_secs(60), || (told.exists() || !deleting.alive()).then_some(()));
        if !told.exists() {
            bench.fault.disarm();
            deleting.finish(SETTLED).assert_good();
            bench.assert_empty("at the end");
            return bench.fault.saw(&["remove record", "release ids", "remove from nft table", "remove user socket"]);
        }
        until("the step is told", SETTLED, || fs::read_to_string(&told).ok().filter(|t| t.ends_with('\n')));
        let step = bench.fault.disarm().expect("struck");
        eprintln!("delete, {mode:?} at step {number}, {step}");
        if mode == Mode::Kill {
            assert!(bench.host.node_died(SETTLED), "the fault at {step:?} was no end of the node");
            bench.host.start_node();
        }
        // Asking again, and again when the first was already enough.
        drop(deleting);
        until(&format!("a second delete works after {step}"), SETTLED, || {
            let again = bench.delete();
            (again.success() || again.status == 3).then_some(())
        });
        bench.assert_empty(&format!("delete, {mode:?} at step {number}, {step}"));
    }
    panic!("not untouched after {MOST_STEPS} steps: {:?}", bench.fault.struck);
}

#[test]
fn l01_an_error_at_any_step_of_delete_is_made_good_by_asking_again() {
    delete_with("de", Mode::Error, false);
}

#[test]
fn l01_a_kill_at_any_step_of_delete_is_made_good_by_asking_again() {
    delete_with("dk", Mode::Kill, false);
}

#[test]
fn l01_an_error_at_any_step_of_deleting_a_running_berth_is_made_good() {
    delete_with("re", Mode::Error, true);
}

#[test]
fn l01_a_kill_at_any_step_of_deleting_a_running_berth_is_made_good() {
    delete_with("rk", Mode::Kill, true);
}

/// The tests here prove nothing when nothing is armed.
#[test]
fn the_daemons_are_armed() {
    let mut bench = Bench::set_up("ar");
    bench.fault.arm(Mode::Error);
    let refused = bench.create();
    assert!(!refused.success() && !Path::new(&bench.fault.file).exists(), "{refused:?}");
    assert!(bench.fault.disarm().is_some());
}

//! The moment at which PID 1 of a container runs, seen from outside and in the same way for all.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{Berth, Host, Run, Running};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_micros(300);
/// A command that ended so long ago has started nothing.
const GRACE: Duration = Duration::from_secs(1);

/// From the start of a command to the first look at which a process of `groups` executes what `is_init` knows. The command has ended well
/// when this returns.
#[track_caller]
pub(super) fn time(command: Run, groups: impl Fn() -> Vec<PathBuf>, is_init: impl Fn(&str) -> bool) -> Duration {
    let began = Instant::now();
    let mut running = command.spawn();
    let mut ended = None;
    let time = watch(began, groups, is_init, || !running.alive() && ended.get_or_insert_with(Instant::now).elapsed() > GRACE);
    finish(running);
    time.unwrap_or_else(|| panic!("no PID 1 runs"))
}

/// `None` when none runs after [`PATIENCE`], or when it has become hopeless.
fn watch(
    began: Instant,
    groups: impl Fn() -> Vec<PathBuf>,
    is_init: impl Fn(&str) -> bool,
    mut hopeless: impl FnMut() -> bool,
) -> Option<Duration> {
    while began.elapsed() < PATIENCE && !hopeless() {
        if groups().iter().any(|group| runs(group, &is_init)) {
            return Some(began.elapsed());
        }
        thread::sleep(LOOK);
    }
    None
}

/// Executed from a sealed memfd, berth-init has no name of its own in `comm`.
pub(super) fn is_berth_init(exe: &str) -> bool {
    exe.starts_with("/memfd:berth-init")
}

/// A peer's init is a script.
pub(super) fn is_shell(exe: &str) -> bool {
    exe.ends_with("/dash")
}

/// Where berth-init begins and where it moves to, of every berth of an instance.
pub(super) fn payloads(host: &Host) -> Vec<PathBuf> {
    let berths = host.slot.groups().into_iter().flat_map(|group| fs::read_dir(group).into_iter().flatten().flatten());
    berths.map(|berth| berth.path().join("payload")).flat_map(|payload| [payload.join("init"), payload]).collect()
}

fn runs(group: &Path, is_init: &impl Fn(&str) -> bool) -> bool {
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.lines().any(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| is_init(&exe.to_string_lossy())))
}

/// A berth that is started and stopped through the node alone; the server must be stopped.
pub(super) struct ByNode<'b, 'h> {
    berth: &'b Berth<'h>,
    body: String,
}

impl<'b, 'h> ByNode<'b, 'h> {
    #[track_caller]
    pub(super) fn new(berth: &'b Berth<'h>) -> Self {
        let status = berth.status();
        let body = serde_json::json!({
            "id": status["id"], "image": status["image"], "limits": status["limits"], "wanted": "running", "allow_system": false, "policy": {},
        });
        Self { berth, body: body.to_string() }
    }

    /// From the request to PID 1; it is ready and stopped again when this returns.
    #[track_caller]
    pub(super) fn start(&self) -> Duration {
        self.stop();
        let host = self.berth.host;
        let path = format!("/v1/berths/{}", self.berth.name());
        let (time, answer) = thread::scope(|scope| {
            let began = Instant::now();
            let requested = scope.spawn(|| host.node_api("PUT", &path, Some(&self.body)));
            (watch(began, || payloads(host), is_berth_init, || false), requested.join().expect("ask the node"))
        });
        assert_eq!(answer.status, 200, "{answer:?}");
        let time = time.unwrap_or_else(|| panic!("no PID 1 runs: {answer:?}"));
        self.berth.await_docker();
        self.stop();
        time
    }

    #[track_caller]
    fn stop(&self) {
        let answer = self.berth.host.node_api("POST", &format!("/v1/berths/{}/stop", self.berth.name()), None);
        assert_eq!(answer.status, 200, "{answer:?}");
        self.berth.await_state("stopped");
    }
}

/// The end of a command that started something.
#[track_caller]
pub(super) fn finish(running: Running) {
    let output = running.finish(PATIENCE);
    assert!(output.success(), "{output:?}");
}

//! At every step of create, start, set, suspend, resume, stop and delete, as the programs themselves tell them: the node is killed, the
//! shim is killed, PID 1 is killed, the step fails on a full disk. Afterwards what the node says is what the host has, nothing is left
//! over, and asking again succeeds.
//!
//! The node is asked directly and no server runs beside: what is repaired was repaired by the node. The berths' image is a shell that
//! waits, so that hundreds of starts take minutes; `faults_server` goes through the server, with an inner Docker.
#![forbid(unsafe_code)]

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use berth_tests::{
    Host, Need, Options, User, elsewhere,
    fault::{Fault, Step, names_in_sources, signal},
    http::{self, Answer},
    image,
    snapshot::{Difference, Scope, Snapshot, loop_inodes},
    until,
    wait::within,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Steps of disks that grow or are directories: struck in `disk.rs`, or where the host can come by them (project quota, a right to grow).
const OF_DISKS: [&str; 6] =
    ["change the disk", "check the disk", "grow the disk", "keep the grown disk", "lengthen the disk", "put the disk into its project"];
/// Only where systemd makes the groups; only with an inner Docker that nobody uses (`faults_server.rs`); only with archives (`archives.rs`).
const ELSEWHERE: [&str; 6] = ["tell systemd", "tell the shim to retire", "make archive", "write archive", "place archive", "fill the disk"];
const SETTLED: Duration = Duration::from_secs(30);
const ID: &str = "00000000-0000-4000-8000-00000000fa17";

/// Who is struck at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// The step fails by ENOSPC.
    Full,
    /// The same by EIO.
    Error,
    Node,
    Shim,
    /// PID 1 of the berth.
    Init,
    /// The child of the shim that makes the container.
    Stage,
}

/// How the node keeps its berths' disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disks {
    Images,
    /// Under project quota.
    Directories,
}

/// What is asked of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    Create,
    CreateRunning,
    Start,
    Stop,
    /// Other limits, other ports, open to the host.
    Set,
    SetBack,
    Suspend,
    Resume,
    /// A fresh root file system and an empty Docker, then it runs.
    Rebuild,
    Delete,
}

/// An operation: how the berth comes to where it begins, and what it is.
struct Operation {
    name: &'static str,
    before: &'static [Ask],
    ask: Ask,
    /// Blows beside those that strike a process which is there.
    also: &'static [Blow],
}

const OPERATIONS: [Operation; 10] = [
    Operation { name: "create", before: &[Ask::Delete], ask: Ask::Create, also: &[Blow::Full] },
    Operation { name: "create and start", before: &[Ask::Delete], ask: Ask::CreateRunning, also: &[Blow::Full] },
    Operation { name: "start", before: &[Ask::Create, Ask::Stop], ask: Ask::Start, also: &[Blow::Full, Blow::Stage] },
    Operation { name: "set", before: &[Ask::Start, Ask::SetBack], ask: Ask::Set, also: &[Blow::Full] },
    Operation { name: "suspend", before: &[Ask::Resume, Ask::Start], ask: Ask::Suspend, also: &[Blow::Full] },
    Operation { name: "resume", before: &[Ask::Resume, Ask::Start, Ask::Suspend], ask: Ask::Resume, also: &[Blow::Full] },
    Operation { name: "rebuild", before: &[Ask::Start], ask: Ask::Rebuild, also: &[Blow::Full] },
    Operation { name: "stop", before: &[Ask::Start], ask: Ask::Stop, also: &[Blow::Full] },
    Operation { name: "delete", before: &[Ask::Create], ask: Ask::Delete, also: &[Blow::Full] },
    Operation { name: "delete running", before: &[Ask::Create, Ask::Start], ask: Ask::Delete, also: &[Blow::Full] },
];

/// An instance whose node can be struck, and one user.
struct Bench {
    host: Host,
    user: User,
    fault: Fault,
    scope: Scope,
    image: String,
    /// Grows with each wish for a rebuild.
    wish: Cell<i64>,
    /// How the host looks in each state that the node may tell.
    known: BTreeMap<&'static str, Vec<Snapshot>>,
}

/// An answer, or why there is none: the node was killed.
type Told = Result<Answer, String>;

impl Bench {
    #[track_caller]
    fn set_up(disks: Disks) -> Self {
        let fault = Fault::new();
        // Few source ports, and so few chains: they are listed again and again.
        let node_config = format!(
            "source_ports = \"31744-32767\"\n[disk]\nbackend = \"{}\"\n",
            if disks == Disks::Images { "loop" } else { "directory" }
        );
        let host = Host::with(Options { quarantine_days: 0, env: vec![fault.env()], node_config, ..Options::default() });
        let image = image::import_small(&host);
        // Nobody asks a second time but this test.
        host.stop_server();
        let (user, scope) = (host.user("a"), Scope::slot(&host.slot));
        let mut bench = Self { host, user, fault, scope, image, wish: Cell::new(0), known: BTreeMap::new() };
        // The first berth of an instance leaves what belongs to the instance; a berth's first run what belongs to the berth.
        bench.good(&[Ask::Create, Ask::Start, Ask::Delete]);
        bench.learn("absent");
        bench.good(&[Ask::Create]);
        bench.learn("stopped");
        bench.good(&[Ask::Start]);
        bench.learn("running");
        bench.good(&[Ask::Set]);
        bench.learn("running");
        // A running berth keeps the device that its rates needed.
        bench.good(&[Ask::SetBack]);
        bench.learn("running");
        bench.good(&[Ask::Set, Ask::Stop]);
        bench.learn("stopped");
        bench.good(&[Ask::SetBack]);
        bench.learn("stopped");
        bench
    }

    fn learn(&mut self, state: &'static str) {
        self.await_child();
        let now = Snapshot::take(&self.scope).of_any_run();
        let known = self.known.entry(state).or_default();
        if !known.contains(&now) {
            known.push(now);
        }
    }

    fn request(&self, ask: Ask) -> (&'static str, String, Option<String>) {
        let path = format!("/v1/berths/{}", self.user.name);
        let rebuild = (ask == Ask::Rebuild).then(|| json!({ "at": self.wish.get(), "wipe": true }));
        let ensure = |wanted: &str, set: bool, suspended: Option<&str>| {
            let limits = json!({
                "cpu_millis": if set { 700 } else { 500 }, "cpu_weight": if set { 200 } else { 100 }, "memory_bytes": (if set { 384_u64 } else { 256 }) << 20,
                "pids": if set { 200 } else { 100 }, "disk_bytes": 1_u64 << 30,
                "network": { "egress_bits": if set { Some(50_000_000) } else { None } },
            });
            // What falls stays where it fell: what comes back by itself has tests of its own.
            let policy = json!({
                "restart": "never", "egress": if set { "all" } else { "internet" },
                "ports": { "range": [20_000, 21_000], "open_to": if set { "host" } else { "user" } },
            });
            let ensure = json!({
                "id": ID, "image": self.image, "limits": limits, "wanted": wanted, "allow_system": false, "policy": policy,
                "suspended": suspended, "rebuild": rebuild,
            });
            Some(ensure.to_string())
        };
        match ask {
            Ask::Create | Ask::SetBack | Ask::Resume => ("PUT", path, ensure("present", false, None)),
            Ask::CreateRunning | Ask::Start | Ask::Rebuild => ("PUT", path, ensure("running", false, None)),
            Ask::Set => ("PUT", path, ensure("present", true, None)),
            Ask::Suspend => ("PUT", path, ensure("present", false, Some("it is looked at"))),
            Ask::Stop => ("POST", format!("{path}/stop"), None),
            Ask::Delete => ("DELETE", path, None),
        }
    }

    /// A shell that has not set its trap yet does not hear that it is to end, and would be waited for; one that is frozen before it has its
    /// child looks different from then on.
    fn await_child(&self) {
        let there = || processes().any(|p| p.name == "sleep" && p.is_of(self));
        within(SETTLED, || {
            let pid = self.status().and_then(|status| status["pid"].as_u64());
            (pid.is_none() || there() || self.suspended()).then_some(())
        });
    }

    fn suspended(&self) -> bool {
        self.status().is_some_and(|status| status["state"] == "suspended")
    }

    fn ask(&self, ask: Ask) -> Told {
        if matches!(ask, Ask::Stop | Ask::Delete | Ask::Suspend | Ask::Rebuild) {
            self.await_child();
        }
        let (method, path, body) = self.request(ask);
        http::request(&self.host.node_socket(), method, &path, body.as_deref()).map_err(|e| e.to_string())
    }

    /// The same beside this thread.
    fn asking(&self, ask: Ask) -> Receiver<Told> {
        let (method, path, body) = self.request(ask);
        let (socket, (sender, answer)) = (self.host.node_socket(), channel());
        thread::spawn(move || {
            let told = http::request(&socket, method, &path, body.as_deref()).map_err(|e| e.to_string());
            let _ = sender.send(told);
        });
        answer
    }

    #[track_caller]
    fn good(&self, asks: &[Ask]) {
        for ask in asks {
            let told = self.ask(*ask);
            assert!(told.as_ref().is_ok_and(|answer| answer.status < 300), "{ask:?}: {told:?}");
        }
    }

    /// Brings the berth to where `operation` begins.
    #[track_caller]
    fn prepare(&self, operation: &Operation) {
        self.wish.set(self.wish.get() + 1);
        self.good(operation.before);
    }

    fn status(&self) -> Option<Value> {
        let answer = self.host.node_api("GET", &format!("/v1/berths/{}", self.user.name), None);
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until what the node says of the berth is what the host has.
    #[track_caller]
    fn assert_true(&self, when: &str) {
        let mut last = (None, Difference::default());
        let good = within(SETTLED, || {
            let status = self.status();
            let state = match &status {
                None => "absent",
                Some(status) => match status["state"].as_str().unwrap_or_default() {
                    "starting" | "stopping" => return None,
                    _ if status["pid"].is_number() => "running",
                    _ => "stopped",
                },
            };
            let conditions = status.as_ref().map(|status| status["conditions"].to_string()).unwrap_or_default();
            if ["DeleteFailed", "UndoFailed", "SweepFailed"].iter().any(|kind| conditions.contains(kind)) {
                // Partly taken away, and said so: asking again has to end it.
                return Some(());
            }
            let now = Snapshot::take(&self.scope).of_any_run();
            let nearest = self.known[state].iter().map(|known| now.since(known)).min_by_key(|difference| difference.0.len());
            last = (status.clone(), nearest.unwrap_or_default());
            (last.1.0.is_empty() && self.consistent(status.as_ref())).then_some(())
        });
        assert!(good.is_some(), "{when}: the node says {:?}\nand the host differs:\n{}{}", last.0, last.1, self.spools());
    }

    /// What is in the spools of calls, of which there should be no more than runs need.
    fn spools(&self) -> String {
        let files = fs::read_dir(self.host.state_dir.join("node/calls")).into_iter().flatten().flatten();
        files.map(|e| format!("{}: {}\n", e.path().display(), fs::read_to_string(e.path()).unwrap_or_default())).collect()
    }

    /// What no listing shows: the ids, the limits in the kernel, whether it stands still.
    fn consistent(&self, status: Option<&Value>) -> bool {
        let text = fs::read_to_string(self.host.state_dir.join("node/ids.json")).unwrap_or_default();
        let ranges: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        let in_use = ranges.iter().filter(|range| range["quarantined_until"].is_null()).count();
        let Some(status) = status else { return in_use == 0 };
        if in_use != 1 {
            return false;
        }
        let dir = self.host.state_dir.join(format!("berths/{ID}"));
        let Ok(disk) = fs::metadata(dir.join("disk.img")).or_else(|_| fs::metadata(dir.join("disk"))) else { return false };
        let attached = loop_inodes().iter().filter(|inode| **inode == disk.ino()).count();
        let Some(pid) = status["pid"].as_u64() else { return attached == 0 };
        let in_use = usize::from(disk.is_file());
        let limits = &status["limits"];
        let pids = self.kernel_value("pids", "pids.max");
        let memory = self.kernel_value("memory", "memory.limit_in_bytes").or_else(|| self.kernel_value("memory", "memory.max"));
        let frozen = self.group_file("unified", "cgroup.events").is_some_and(|text| text.contains("frozen 1"));
        Path::new(&format!("/proc/{pid}")).exists()
            && attached == in_use
            && pids == limits["pids"].as_u64()
            && memory == limits["memory_bytes"].as_u64()
            && frozen == (status["state"] == "suspended")
    }

    fn kernel_value(&self, hierarchy: &str, file: &str) -> Option<u64> {
        self.group_file(hierarchy, file)?.trim().parse().ok()
    }

    /// A file of the payload's control group, in a v1 hierarchy or the only one.
    fn group_file(&self, hierarchy: &str, file: &str) -> Option<String> {
        let base = Path::new("/sys/fs/cgroup");
        let instance = self.host.slot.instance();
        [
            base.join(hierarchy).join(format!("berth{instance}/{ID}/payload")),
            base.join(format!("berth{instance}.slice/berth-{ID}.scope/payload")),
        ]
        .into_iter()
        .find_map(|dir| fs::read_to_string(dir.join(file)).ok())
    }

    /// The process that a blow is meant for, where it is there just now.
    fn victim(&self, blow: Blow, struck_by: (&str, u32)) -> Option<u32> {
        match blow {
            Blow::Full | Blow::Error => None,
            Blow::Node => Some(self.host.node_pid()),
            Blow::Stage => (struck_by.0 == "stage").then_some(struck_by.1),
            Blow::Shim if struck_by.0 == "shim" => Some(struck_by.1),
            Blow::Shim => processes()
                .find(|p| p.name == "berth-shim" && p.arguments == 1 && (p.parent == self.host.node_pid() || p.is_of(self)))
                .map(|p| p.pid),
            Blow::Init => processes().find(|p| p.is_init && p.is_of(self)).map(|p| p.pid),
        }
    }

    /// One blow at one step. False when there was nobody to strike, or the step did not come.
    #[track_caller]
    fn strike(&self, operation: &Operation, step: &Step, blow: Blow) -> bool {
        let when = format!("{}, {blow:?} at {} {} of the {}", operation.name, step.name, step.number, step.who);
        self.prepare(operation);
        let mode = match blow {
            Blow::Full => "full",
            Blow::Error => "error",
            _ => "halt",
        };
        if matches!(operation.ask, Ask::Stop | Ask::Delete | Ask::Suspend | Ask::Rebuild) {
            self.await_child();
        }
        self.fault.arm(mode, step);
        let answer = self.asking(operation.ask);
        let mut told = None;
        let struck = until(&format!("{when}: the step comes, or the end"), SETTLED * 2, || {
            if let Some(struck) = self.fault.struck() {
                return Some(Some(struck));
            }
            told = told.take().or_else(|| answer.try_recv().ok());
            told.is_some().then(|| self.fault.struck())
        });
        let Some(struck) = struck else {
            self.fault.disarm();
            return false;
        };
        let mut hit = mode != "halt";
        if !hit {
            let pid = struck.pid;
            until(&format!("{when}: it stands"), SETTLED, || (state_of(pid) == Some('T')).then_some(()));
            if let Some(victim) = self.victim(blow, (&struck.who, pid)) {
                hit = true;
                if blow == Blow::Node {
                    self.host.kill_node();
                } else {
                    signal(victim, Signal::SIGKILL);
                    until(&format!("{when}: {victim} ends"), SETTLED, || matches!(state_of(victim), None | Some('Z')).then_some(()));
                }
            }
            signal(pid, Signal::SIGCONT);
            if blow == Blow::Node {
                self.fault.disarm();
                self.host.start_node();
            }
        }
        self.fault.disarm();
        let told = told.unwrap_or_else(|| answer.recv_timeout(SETTLED * 3).unwrap_or_else(|_| panic!("{when}: no answer")));
        if mode != "halt" {
            self.assert_told(&when, step, &told);
        }
        self.assert_true(&when);
        self.good(&[operation.ask]);
        self.assert_true(&format!("{when}, asked again"));
        hit
    }

    /// A failure is told with its reason and what to do, unless it stood in nobody's way.
    #[track_caller]
    fn assert_told(&self, when: &str, step: &Step, told: &Told) {
        let answer = told.as_ref().unwrap_or_else(|e| panic!("{when}: no answer: {e}"));
        if answer.status < 300 {
            return;
        }
        let problem = answer.json();
        let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        assert!(!text("hint").is_empty() && !text("code").is_empty(), "{when}: {answer:?}");
        // What the shim's death took away tells of that death.
        if step.who != "shim" || !step.name.contains("PID 1") {
            assert!(text("detail").contains(&step.name), "{when}: the message tells the step: {answer:?}");
        }
    }
}

/// A process as far as a victim is told by it.
struct Process {
    pid: u32,
    parent: u32,
    name: String,
    arguments: usize,
    group: String,
    is_init: bool,
}

impl Process {
    /// In a group of this instance.
    fn is_of(&self, bench: &Bench) -> bool {
        let instance = bench.host.slot.instance();
        self.group.contains(&format!("/berth{instance}/{ID}")) || self.group.contains(&format!("/berth{instance}.slice/berth-{ID}.scope"))
    }
}

fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        let status = read("status")?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
        let numbers: Vec<String> = field("NSpid:").split_whitespace().map(str::to_owned).collect();
        Some(Process {
            pid,
            parent: field("PPid:").parse().ok()?,
            name: field("Name:"),
            arguments: read("cmdline")?.split('\0').filter(|word| !word.is_empty()).count(),
            group: read("cgroup")?,
            is_init: numbers.len() == 2 && numbers[1] == "1",
        })
    })
}

/// Letter of proc_pid_stat(5).
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// All blows at all steps of one operation; with directories, which are struck where every process is emulated, the node alone.
#[track_caller]
fn every_step(bench: &Bench, operation: &Operation, disks: Disks) {
    let began = Instant::now();
    bench.prepare(operation);
    let steps = bench.fault.note(|| bench.good(&[operation.ask]));
    assert!(!steps.is_empty(), "{}: the daemons are not armed", operation.name);
    bench.assert_true(&format!("after {}", operation.name));
    let long = std::env::var_os("BERTH_TEST_LONG").is_some();
    let elsewhere = if long { BTreeSet::new() } else { struck_elsewhere(bench, operation) };
    let mut blows = 0;
    for step in &steps {
        let mut hit = Vec::new();
        let own = operation.also.iter().copied().chain(long.then_some(Blow::Error));
        let began = Instant::now();
        for blow in own.chain([Blow::Node, Blow::Shim, Blow::Init]) {
            let node_only = disks == Disks::Directories && !long || elsewhere.contains(&step.name);
            let left_out = node_only && blow != Blow::Node;
            if left_out || blow == Blow::Stage && step.who != "stage" {
                continue;
            }
            if bench.strike(operation, step, blow) {
                hit.push(blow);
            }
        }
        let took = began.elapsed().as_secs_f64();
        eprintln!("{}: {} {} of the {}: {hit:?}, {took:.1} s", operation.name, step.name, step.number, step.who);
        assert!(hit.contains(&Blow::Node), "{}: {step:?} never came again", operation.name);
        blows += hit.len();
    }
    eprintln!("{}: {} steps, {blows} blows, {:.0} s", operation.name, steps.len(), began.elapsed().as_secs_f64());
}

/// Steps of a rebuild that are those of the stop and the start in it: there they are struck by every blow, and in it by the one that could
/// lose the wish.
#[track_caller]
fn struck_elsewhere(bench: &Bench, operation: &Operation) -> BTreeSet<String> {
    if operation.ask != Ask::Rebuild {
        return BTreeSet::new();
    }
    let parts = OPERATIONS.iter().filter(|o| matches!(o.ask, Ask::Start | Ask::Stop));
    parts
        .flat_map(|part| {
            bench.prepare(part);
            bench.fault.note(|| bench.good(&[part.ask])).into_iter().map(|step| step.name)
        })
        .collect()
}

/// What is called so.
#[track_caller]
fn operation(name: &str) -> &'static Operation {
    OPERATIONS.iter().find(|o| o.name == name).unwrap_or_else(|| panic!("no operation {name}"))
}

/// Several operations beside each other, on as many instances.
#[track_caller]
fn side_by_side(names: &[&str]) {
    let threads: Vec<_> = names
        .iter()
        .map(|name| {
            let operation = operation(name);
            thread::spawn(move || every_step(&Bench::set_up(Disks::Images), operation, Disks::Images))
        })
        .collect();
    let failed: Vec<_> = threads.into_iter().zip(names).filter_map(|(thread, name)| thread.join().is_err().then_some(name)).collect();
    assert!(failed.is_empty(), "failed: {failed:?}; their panics are above");
}

#[test]
fn l01_whoever_dies_at_any_step_of_start_and_stop_leaves_the_truth() {
    side_by_side(&["start", "stop"]);
}

#[test]
fn l01_whoever_dies_at_any_step_of_create_and_delete_leaves_the_truth() {
    side_by_side(&["create", "delete running"]);
}

#[test]
fn l01_whoever_dies_at_any_step_of_set_suspend_and_resume_leaves_the_truth() {
    side_by_side(&["set", "suspend", "resume"]);
}

/// After each other on one instance: systemd, which there may be, has one scope for the id that all of them use.
#[test]
fn l01_whoever_dies_at_any_step_in_a_directory_leaves_the_truth() {
    if elsewhere(&[Need::ProjectQuota]) {
        return;
    }
    let bench = Bench::set_up(Disks::Directories);
    let long = std::env::var_os("BERTH_TEST_LONG").is_some();
    let more: &[&str] = if long { &["suspend", "resume", "rebuild"] } else { &[] };
    for name in ["create", "start", "stop", "delete running", "set"].iter().chain(more) {
        every_step(&bench, operation(name), Disks::Directories);
    }
}

#[test]
fn l01_whoever_dies_at_any_step_of_a_rebuild_leaves_the_truth() {
    side_by_side(&["rebuild"]);
}

/// A step that none of the operations comes by would be struck by nothing here.
#[test]
fn l01_the_operations_come_by_every_step_that_is_in_the_sources() {
    let bench = Bench::set_up(Disks::Images);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for operation in &OPERATIONS {
        bench.prepare(operation);
        let steps = bench.fault.note(|| bench.good(&[operation.ask]));
        eprintln!("{}: {:?}", operation.name, steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>());
        seen.extend(steps.into_iter().map(|s| s.name));
    }
    let missing: Vec<String> = names_in_sources()
        .into_iter()
        .filter(|name| !seen.contains(name) && !OF_DISKS.iter().chain(&ELSEWHERE).any(|e| e == name))
        .collect();
    assert!(missing.is_empty(), "no operation comes by {missing:?}");
}

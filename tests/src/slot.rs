//! Numbered sets of names. A slot is held by a lock that dies with its test; whoever takes a slot first sweeps what is left in it.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{account, daemon, programs, run::Run, wait::within};

/// How many instances may run at once.
pub const SLOTS: u32 = 32;
/// Where the tests' ids begin: below those of an installation, above those of others, 40 ranges for each slot.
const FIRST_ID: u32 = 1_895_825_408;
const RANGES: u32 = 40;
const RANGE: u32 = 65_536;

/// Names and numbers that belong to one instance.
#[derive(Debug)]
pub struct Slot {
    pub number: u32,
    /// Holds everything but the sockets.
    pub dir: PathBuf,
    _lock: File,
}

impl Slot {
    /// Takes the first free slot and sweeps it.
    #[track_caller]
    pub fn take() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests start containers: run them as root (sudo deploy/test)");
        let root = programs::root();
        fs::DirBuilder::new().recursive(true).mode(0o755).create(root.join("slots")).expect("make the tests' root directory");
        let slot = (0..SLOTS).find_map(Self::lock).expect("all slots are taken; see berth-tests-sweep");
        slot.sweep();
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&slot.dir).expect("make the slot's directory");
        slot
    }

    fn lock(number: u32) -> Option<Self> {
        let root = programs::root();
        let lock = File::create(root.join(format!("slots/{number}.lock"))).expect("make the slot's lock");
        match lock.try_lock() {
            Ok(()) => Some(Self { number, dir: root.join(format!("h{number}")), _lock: lock }),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => panic!("lock slot {number}: {error}"),
        }
    }

    /// Takes away what is left in every slot that no test holds. True when nothing stayed.
    pub fn sweep_all() -> bool {
        let root = programs::root();
        if !root.join("slots").is_dir() {
            return true;
        }
        let left = (0..SLOTS).filter_map(Self::lock).flat_map(|slot| {
            slot.sweep();
            slot.left()
        });
        // All slots, also past one that keeps something.
        left.inspect(|left| eprintln!("left: {left}")).count() == 0
    }

    pub fn instance(&self) -> String {
        format!("t{}", self.number)
    }

    /// Two letters at the end: link_prefix takes no digits, and none may be the beginning of another.
    pub fn link_prefix(&self) -> String {
        let letter = |n: u32| char::from(b'a' + u8::try_from(n % 26).expect("a letter"));
        format!("bq{}{}", letter(self.number / 26), letter(self.number))
    }

    pub fn run_dir(&self) -> PathBuf {
        format!("/run/bq{}", self.number).into()
    }

    /// Accounts of this slot begin so.
    pub fn account_prefix(&self) -> String {
        format!("bq{}x", self.number)
    }

    /// 2046 addresses for berths.
    pub fn pool(&self) -> String {
        format!("10.77.{}.0/21", self.number * 8)
    }

    /// First and last id.
    pub fn ids(&self) -> (u32, u32) {
        let first = FIRST_ID + self.number * RANGES * RANGE;
        (first, first + RANGES * RANGE - 1)
    }

    /// The ids between those of all slots and those of an installation, some 300 ranges: for one test at a time.
    pub fn many_ids() -> (u32, u32) {
        (FIRST_ID + SLOTS * RANGES * RANGE, 2_000_224_255)
    }

    /// Name of the network namespace that plays the outside, and of the host's end of the link to it.
    pub fn outside(&self) -> (String, String) {
        (format!("bq{}out", self.number), format!("xo{}", self.number))
    }

    pub fn node_config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// Network namespace of a node that has one of its own ([`crate::host::Options::network`]).
    pub fn network(&self) -> String {
        format!("bqnet{}", self.number)
    }

    /// A program in the network that the node is in.
    pub fn run(&self, program: impl AsRef<std::ffi::OsStr>) -> Run {
        let namespace = Path::new("/run/netns").join(self.network());
        match namespace.exists() {
            true => Run::new("nsenter").arg(format!("--net={}", namespace.display())).arg(program),
            false => Run::new(program),
        }
    }

    /// The control groups of the instance, in every hierarchy that has one.
    pub fn groups(&self) -> Vec<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path()).chain([base.to_owned()]);
        let names = [format!("berth{}", self.instance()), format!("berth{}.slice", self.instance())];
        hierarchies.flat_map(|h| names.clone().map(|n| h.join(n))).filter(|p| p.is_dir()).collect()
    }

    pub fn links(&self) -> Vec<String> {
        let prefix = self.link_prefix();
        let (_, outside) = self.outside();
        let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.starts_with(&prefix) || *n == outside).collect()
    }

    fn table_present(&self) -> bool {
        let output = Run::new("nft").args(["list", "tables"]).output();
        output.stdout.lines().any(|l| l == format!("table inet berth{}", self.instance()))
    }

    /// What of this slot is on the host, in words; empty when nothing is.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.groups().iter().map(|g| format!("control group {}", g.display())));
        left.extend(self.links().iter().map(|l| format!("link {l}")));
        if self.table_present() {
            left.push(format!("nft table inet berth{}", self.instance()));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = [self.dir.to_string_lossy().into_owned() + "/", self.run_dir().to_string_lossy().into_owned() + "/"];
        left.extend(mounts.lines().filter(|l| ours.iter().any(|o| l.contains(o.as_str()))).map(|l| format!("mount {l}")));
        for dir in [self.dir.join("state/berths"), self.dir.join("state/node/berths"), self.run_dir()] {
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            left.extend(entries.map(|e| format!("file {}", e.path().display())));
        }
        let (first, last) = self.ids();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let line = |key| status.lines().find_map(|l: &str| l.strip_prefix(key)).unwrap_or_default().trim().to_owned();
            let uid = line("Uid:").split_whitespace().next().and_then(|u| u.parse::<u32>().ok());
            if uid.is_some_and(|uid| (first..=last).contains(&uid)) && !line("State:").starts_with('Z') {
                left.push(format!("process {} {}", entry.file_name().to_string_lossy(), line("Name:")));
            }
        }
        left
    }

    /// Takes away whatever an earlier instance of this slot left, however it ended.
    pub fn sweep(&self) {
        daemon::kill_left(&self.dir);
        if self.node_config().is_file() && !self.left().is_empty() {
            let teardown = self.run(programs::find("berth-node")).args(["teardown", "--all", "--yes", "--config"]).arg(self.node_config());
            if let Ok(output) | Err(output) = teardown.output_within()
                && !output.success()
            {
                eprintln!("sweep of slot {}: {output:?}", self.number);
            }
        }
        self.remove_groups();
        for link in self.links() {
            Run::new("ip").args(["link", "delete", &link]).output();
        }
        for namespace in [self.outside().0, self.network()] {
            if Path::new("/run/netns").join(&namespace).exists() {
                Run::new("ip").args(["netns", "delete", &namespace]).output();
            }
        }
        if self.table_present() {
            Run::new("nft").args(["delete", "table", "inet", &format!("berth{}", self.instance())]).output();
        }
        // Of a node that nobody took away in its own network namespace.
        for memory in fs::read_dir("/run/berth-forwarding").into_iter().flatten().flatten() {
            let _ = fs::remove_file(memory.path().join(format!("berth{}", self.instance())));
        }
        account::remove_all(&self.account_prefix());
        for dir in [self.run_dir(), self.dir.clone()] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => eprintln!("sweep: {}: {error}", dir.display()),
                _ => {}
            }
        }
    }

    /// Kills what runs inside the berths of this slot; their shims see it and end.
    pub fn kill_payloads(&self) {
        for group in self.groups() {
            for dir in below(&group).into_iter().filter(|d| d.file_name().is_some_and(|n| n == "payload")) {
                let _ = fs::write(dir.join("cgroup.kill"), "1");
            }
        }
    }

    fn remove_groups(&self) {
        for group in self.groups() {
            within(Duration::from_secs(10), || {
                let inner = below(&group);
                for dir in &inner {
                    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                    for pid in pids.lines().filter_map(|p| p.parse::<i32>().ok()).filter(|&p| p > 1) {
                        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
                    }
                    // A frozen process dies only when thawed; a busy directory goes in a later round.
                    let _ = fs::write(dir.join("cgroup.freeze"), "0");
                    let _ = fs::remove_dir(dir);
                }
                (!group.exists()).then_some(())
            });
        }
    }
}

/// A control group and all below it, the deepest first.
fn below(group: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            all.extend(below(&entry.path()));
        }
    }
    all.push(group.to_owned());
    all
}

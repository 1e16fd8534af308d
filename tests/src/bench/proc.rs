//! `deploy/bench proc`: what it takes to read an emulated file of /proc inside, against lxcfs in LXC.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Progress, Settings,
    compare::{self, Limit, Own, Peer, had},
    ends::{Client, INSIDE},
    lxc::Lxc,
    rootfs,
    table::{Report, Unit},
};
use crate::{Berth, Host, Need, daemon::Daemon, programs, until, wait::within};

const ROUNDS: usize = 10;
const READS: usize = 200;
const FILES: [&str; 3] = ["meminfo", "cpuinfo", "stat"];
const READY: Duration = Duration::from_secs(10);

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let berth = host.new_berth("proc");
    let seen = berth.sh("grep MemTotal /proc/meminfo").ok();
    assert!(seen.contains(" 1048576 kB"), "a berth of 1 GiB sees {seen}");
    progress.say("unpacking the image for LXC");
    let peer = had(|| WithLxcfs::start(&host, &berth));
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    progress.say(&format!("{rounds} rounds of {READS} reads of each file"));
    let tables = FILES.map(|file| {
        let command = format!("read /proc/{file} {READS}");
        let mut ours = Client::inside(&berth);
        let mut theirs = None;
        let peer = Peer::new("lxcfs in LXC", "× lxcfs", &peer, |peer| theirs.get_or_insert_with(|| peer.client()).times(&command));
        let own = Own { name: "Berth", limits: vec![Limit::AtMost(1.0)], measure: Box::new(|| ours.times(&command)) };
        compare::run(&format!("read of /proc/{file}"), Unit::Micros, rounds, vec![peer], vec![own])
    });
    drop(peer);
    progress.say("taking everything away again");
    let note = "Proc: open, read and close by the same program, as root of a container with a memory limit of 1 GiB.";
    Report { tables: tables.into(), notes: vec![note.into()] }
}

/// LXC with files of lxcfs over its own. lxcfs mounts in a namespace of its own: nothing is left in the host's when it ends.
struct WithLxcfs {
    // Ends before lxcfs.
    lxc: Lxc,
    _lxcfs: Lxcfs,
}

impl WithLxcfs {
    #[track_caller]
    fn start(host: &Host, berth: &Berth<'_>) -> Self {
        let lxcfs = Lxcfs::start(host);
        let limit = if Need::CgroupV2.is_here() { "lxc.cgroup2.memory.max" } else { "lxc.cgroup.memory.limit_in_bytes" };
        let mut more = format!("{limit} = 1073741824\n");
        for file in FILES {
            more += &format!("lxc.mount.entry = {}/proc/{file} proc/{file} none bind 0 0\n", lxcfs.dir.display());
        }
        let lxc = Lxc::create_with(host, &rootfs::image(host), berth, &more, Some(lxcfs.pid()));
        let program = lxc.rootfs().join(INSIDE.trim_start_matches('/'));
        fs::copy(programs::find("berth-bench-end"), &program).expect("copy the program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it executable");
        lxc.start().ok();
        let covered = lxc.attach("/bin/cat").arg("/proc/self/mounts").ok();
        assert!(covered.contains("lxcfs /proc/meminfo"), "no lxcfs over /proc/meminfo of LXC: {covered}");
        Self { lxc, _lxcfs: lxcfs }
    }

    #[track_caller]
    fn client(&self) -> Client {
        Client::without_socket(self.lxc.attach(INSIDE))
    }
}

struct Lxcfs {
    daemon: Option<Daemon>,
    dir: PathBuf,
}

impl Lxcfs {
    #[track_caller]
    fn start(host: &Host) -> Self {
        assert!(Path::new("/usr/bin/lxcfs").exists(), "lxcfs is missing");
        let dir = host.slot.dir.join("lxcfs");
        fs::create_dir_all(&dir).expect("make directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/usr/bin/lxcfs", "-f", "-p"]).arg(host.slot.dir.join("lxcfs-pid")).arg(&dir);
        let mut daemon = Daemon::start("lxcfs", &host.slot.dir, command);
        let seen = format!("/proc/{}/root{}/proc/meminfo", daemon.pid(), dir.display());
        until(&format!("lxcfs has mounted: {}", host.log("lxcfs")), READY, || {
            assert!(daemon.alive(), "lxcfs ended: {}", host.log("lxcfs"));
            Path::new(&seen).exists().then_some(())
        });
        Self { daemon: Some(daemon), dir }
    }

    fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("taken by drop only").pid()
    }
}

impl Drop for Lxcfs {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill(Pid::from_raw(daemon.pid().cast_signed()), Signal::SIGTERM);
            within(READY, || (!daemon.alive()).then_some(()));
            daemon.kill();
        }
    }
}

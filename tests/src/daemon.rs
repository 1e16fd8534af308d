//! The daemons of an instance, by pid. A pid file names a process for good: pid and start time.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::within;

/// A daemon that the harness started.
pub struct Daemon {
    child: Child,
    pid_file: PathBuf,
}

impl Daemon {
    /// Starts `command` in a process group of its own, output appended to `dir/<name>.log`.
    #[track_caller]
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(dir.join(format!("{name}.log"))).expect("open log");
        let clone = |file: &File| Stdio::from(file.try_clone().expect("clone log"));
        command.stdin(Stdio::null()).stdout(clone(&log)).stderr(clone(&log)).process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let pid_file = dir.join(format!("{name}.pid"));
        fs::write(&pid_file, format!("{} {}\n", child.id(), start_time(child.id()).unwrap_or_default())).expect("write pid file");
        Self { child, pid_file }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Sends SIGTERM and waits; true when it ended with 0 in time.
    pub fn stop(mut self, limit: Duration) -> bool {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let status = within(limit, || self.child.try_wait().expect("wait"));
        if let Some(status) = status.filter(|s| !s.success()) {
            eprintln!("{}: {status}", self.pid_file.display());
        }
        self.kill();
        status.is_some_and(|s| s.success())
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// Kills the processes that the pid files of `dir` name, if they are still the same ones.
pub fn kill_left(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "pid") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut words = text.split_whitespace();
            let pid = words.next().and_then(|p| p.parse::<u32>().ok());
            let started = words.next().and_then(|s| s.parse::<u64>().ok());
            if let Some(pid) = pid.filter(|&pid| started.is_some() && start_time(pid) == started) {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
                within(Duration::from_secs(10), || (start_time(pid) != started).then_some(()));
            }
            let _ = fs::remove_file(path);
        }
    }
}

/// Start time of a process in clock ticks (proc_pid_stat(5), field 22).
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    // A zombie has ended already.
    let mut fields = rest.split_whitespace();
    if fields.next() == Some("Z") { None } else { fields.nth(18)?.parse().ok() }
}

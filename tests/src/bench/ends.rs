//! The two ends of measured connections, as processes of the harness.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{Berth, Host, Run, Running, programs};

/// Where the peer lies inside.
pub(super) const INSIDE: &str = "/usr/local/bin/berth-bench-end";
/// The slowest measurement takes some seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client process that has connected to nothing yet.
pub(super) struct Client {
    running: Running,
}

impl Client {
    /// As the berth's user, at his socket.
    #[track_caller]
    pub(super) fn of_user(berth: &Berth<'_>, cpu: Option<usize>) -> Self {
        let socket = berth.socket();
        Self::start(berth.user.run(&program(berth.host).to_string_lossy()), &socket, cpu)
    }

    /// As root, at any socket.
    #[track_caller]
    pub(super) fn of_root(host: &Host, socket: &Path, cpu: Option<usize>) -> Self {
        Self::start(Run::new(program(host)), socket, cpu)
    }

    /// All clients name their socket from its directory: the length of a path is nobody's merit.
    #[track_caller]
    fn start(run: Run, socket: &Path, cpu: Option<usize>) -> Self {
        let (dir, name) = (socket.parent().expect("a directory"), socket.file_name().expect("a name"));
        let run = run.current_dir(dir).arg("client").arg(name).args(cpu.map(|cpu| cpu.to_string()));
        Self { running: run.spawn() }
    }

    /// Inside the berth, for commands that need no socket.
    #[track_caller]
    pub(super) fn inside(berth: &Berth<'_>) -> Self {
        install(berth);
        Self::without_socket(berth.host.berth(["exec", "-i", berth.name(), "--", INSIDE]))
    }

    /// `run` begins the program, wherever it is.
    #[track_caller]
    pub(super) fn without_socket(run: Run) -> Self {
        Self { running: run.args(["client", "/"]).spawn() }
    }

    /// Times of a command, in nanoseconds.
    #[track_caller]
    pub(super) fn times(&mut self, command: &str) -> Vec<u64> {
        let answer = self.ask(command);
        let times = answer.as_array().map(|all| all.iter().filter_map(Value::as_u64).collect());
        times.or_else(|| Some(vec![answer.as_u64()?])).unwrap_or_else(|| panic!("{command}: {answer}"))
    }

    /// The one time of a command.
    #[track_caller]
    pub(super) fn time(&mut self, command: &str) -> u64 {
        self.times(command)[0]
    }

    #[track_caller]
    fn ask(&mut self, command: &str) -> Value {
        self.running.send(format!("{command}\n"));
        let line = self.running.line(PATIENCE).unwrap_or_else(|| panic!("the client ended at {command:?}"));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"))
    }
}

/// Puts the peer in Docker's place inside the berth, until it is dropped or the berth stops.
#[track_caller]
pub(super) fn replace_docker(berth: &Berth<'_>) -> Running {
    install(berth);
    let mut peer = berth.host.berth(["exec", "-i", berth.name(), "--", INSIDE, "peer", "/run/bench.sock"]).spawn();
    assert_eq!(peer.line(PATIENCE).as_deref(), Some("ready"));
    berth.sh("mv -f /run/bench.sock /run/docker.sock").ok();
    peer
}

/// Puts the program inside.
#[track_caller]
pub(super) fn install(berth: &Berth<'_>) {
    let bytes = fs::read(programs::find("berth-bench-end")).expect("read the program");
    berth.exec_input(&["sh", "-c", &format!("cat > {INSIDE} && chmod 0755 {INSIDE}")], bytes).ok();
}

/// A copy of the program that every user may execute.
#[track_caller]
pub(super) fn program(host: &Host) -> PathBuf {
    let program = host.slot.dir.join("bench-end");
    if !program.exists() {
        fs::copy(programs::find("berth-bench-end"), &program).expect("copy the client");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("open the client to all");
    }
    program
}

use std::{
    fs, io,
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::{
    signal::{SigSet, Signal, kill},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus, kill_process, wait},
};

use crate::{
    backoff::Backoff,
    channel::Channel,
    console,
    engine::{DOCKER_SOCKET, Engine, Launch},
    readiness::Readiness,
};

/// dockerd gives a container 10 s before it kills it (a PID 1 without a handler ignores SIGTERM), and then writes down its end.
const DOCKERD_STOP: Duration = Duration::from_secs(12);
const CONTAINERD_STOP: Duration = Duration::from_secs(3);
const REST_STOP: Duration = Duration::from_secs(2);
/// SIGKILL needs no deadline but for processes stuck in the kernel, which end with the namespace or not at all.
const KILL_STOP: Duration = Duration::from_secs(1);
/// Reaped at a time, so that a fork bomb of orphans cannot keep a SIGTERM waiting.
const REAP_ROUND: usize = 512;

/// The loop of PID 1.
#[derive(Debug)]
pub(crate) struct Supervisor {
    channel: Channel,
    signals: SignalFd,
    containerd: Option<Daemon>,
    dockerd: Option<Daemon>,
    readiness: Option<Readiness>,
    stopping: Option<Stopping>,
    /// False once the kernel has said that there is no child at all.
    children: bool,
}

#[derive(Debug)]
struct Daemon {
    launch: Launch,
    state: State,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    Running { pid: Pid, since: Instant },
    Waiting { until: Instant },
    Off,
}

/// The steps of an orderly end; each ends by its condition or at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dockerd,
    Containerd,
    Rest,
    Kill,
}

#[derive(Debug)]
struct Stopping {
    stage: Stage,
    deadline: Instant,
}

impl Supervisor {
    /// Runs both daemons.
    pub(crate) fn engine(channel: Channel, engine: Engine) -> io::Result<Self> {
        Self::new(channel, Some(engine))
    }

    /// Runs nothing, only reaps: for an image without an engine.
    pub(crate) fn reaper(channel: Channel) -> io::Result<Self> {
        Self::new(channel, None)
    }

    fn new(channel: Channel, engine: Option<Engine>) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        // Blocked signals reach PID 1 from the outer pid namespace too; ones with the default action would be dropped, signal(7).
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let now = Instant::now();
        let daemon = |launch| Daemon { launch, state: State::Waiting { until: now }, backoff: Backoff::default() };
        let (containerd, dockerd) = engine.map(|e| (daemon(e.containerd), daemon(e.dockerd))).unzip();
        Ok(Self { channel, signals, containerd, dockerd, readiness: None, stopping: None, children: true })
    }

    /// Until it was told to stop and everything has ended.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            let more_to_reap = self.reap(now);
            self.read_signals(now)?;
            if self.stopping.is_some() {
                if self.advance_stop(now) {
                    self.channel.flush();
                    return Ok(());
                }
            } else {
                self.start_due(now);
            }
            self.look_at_dockerd(now);
            self.channel.flush();
            if !more_to_reap {
                self.sleep()?;
            }
        }
    }

    fn look_at_dockerd(&mut self, now: Instant) {
        let Some(readiness) = &mut self.readiness else { return };
        let ready = readiness.advance(now);
        if readiness.take_news() {
            self.channel.tell("listening");
        }
        if ready {
            self.readiness = None;
            self.channel.tell("ready");
        }
    }

    /// Sleeps until a descriptor or a deadline wants something.
    fn sleep(&self) -> io::Result<()> {
        let waits = [&self.containerd, &self.dockerd].into_iter().flatten().filter_map(Daemon::due);
        let deadline =
            waits.chain(self.readiness.as_ref().and_then(Readiness::deadline)).chain(self.stopping.as_ref().map(|s| s.deadline)).min();
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut wanted = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        wanted.extend(self.readiness.iter().flat_map(Readiness::descriptors).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        wanted.extend(self.channel.waiting().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        match poll(&mut wanted, timeout.as_ref()) {
            Err(Errno::INTR) => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    fn read_signals(&mut self, now: Instant) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let stop = [Signal::SIGTERM, Signal::SIGINT].iter().any(|&s| s as u32 == info.ssi_signo);
            if stop && self.stopping.is_none() {
                console::say("stopping");
                self.channel.tell("stopping");
                self.readiness = None;
                self.enter(Stage::Dockerd, now);
            }
        }
        Ok(())
    }

    /// Collects ended children, ours and the orphans that the kernel gave us; true when there may be more.
    fn reap(&mut self, now: Instant) -> bool {
        self.children = true;
        for _ in 0..REAP_ROUND {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status, now),
                Ok(None) => return false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.children = false;
                    return false;
                }
            }
        }
        true
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus, now: Instant) {
        let stopping = self.stopping.is_some();
        let Some(daemon) = [&mut self.containerd, &mut self.dockerd].into_iter().flatten().find(|d| d.pid() == Some(pid)) else { return };
        let name = daemon.launch.name;
        if stopping {
            daemon.state = State::Off;
            return;
        }
        let wait = daemon.ended(now);
        let status = describe(status);
        console::say(&format!("{name} ended ({status}); started again in {} ms", wait.as_millis()));
        self.channel.tell(&format!("down {name} {status}"));
        if name == "dockerd" {
            self.readiness = None;
        }
    }

    fn start_due(&mut self, now: Instant) {
        if let Some(containerd) = self.containerd.as_mut().filter(|d| d.due().is_some_and(|at| now >= at)) {
            containerd.start(now);
        }
        let Some(dockerd) = self.dockerd.as_mut().filter(|d| d.due().is_some_and(|at| now >= at)) else { return };
        // Watched before dockerd can bind, so that no bind is missed.
        let _ = fs::remove_file(DOCKER_SOCKET);
        self.readiness = Readiness::watch(Path::new(DOCKER_SOCKET), now).ok();
        dockerd.start(now);
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        let time = match stage {
            Stage::Dockerd => DOCKERD_STOP,
            Stage::Containerd => CONTAINERD_STOP,
            Stage::Rest => REST_STOP,
            Stage::Kill => KILL_STOP,
        };
        self.stopping = Some(Stopping { stage, deadline: now + time });
        match stage {
            Stage::Dockerd => signal(self.dockerd.as_ref(), rustix::process::Signal::TERM),
            Stage::Containerd => signal(self.containerd.as_ref(), rustix::process::Signal::TERM),
            // To everything in this pid namespace but ourselves; main made sure that it is one.
            Stage::Rest => drop(kill(nix::unistd::Pid::from_raw(-1), Signal::SIGTERM)),
            Stage::Kill => drop(kill(nix::unistd::Pid::from_raw(-1), Signal::SIGKILL)),
        }
    }

    /// Goes through the stages as far as they are done; true after the last.
    fn advance_stop(&mut self, now: Instant) -> bool {
        while let Some(Stopping { stage, deadline }) = self.stopping {
            let late = now >= deadline;
            let daemon = match stage {
                Stage::Dockerd => self.dockerd.as_ref(),
                Stage::Containerd => self.containerd.as_ref(),
                Stage::Rest | Stage::Kill => None,
            };
            let done = match stage {
                Stage::Dockerd | Stage::Containerd => daemon.and_then(Daemon::pid).is_none(),
                Stage::Rest | Stage::Kill => !self.children,
            };
            if !done && !late {
                return false;
            }
            if !done && let Some(daemon) = daemon {
                console::say(&format!("{} did not stop in time and is killed", daemon.launch.name));
                signal(Some(daemon), rustix::process::Signal::KILL);
            }
            match stage {
                Stage::Dockerd => self.enter(Stage::Containerd, now),
                Stage::Containerd => self.enter(Stage::Rest, now),
                Stage::Rest if !done => self.enter(Stage::Kill, now),
                Stage::Rest | Stage::Kill => return true,
            }
        }
        false
    }
}

impl Daemon {
    fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// When to start it.
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            _ => None,
        }
    }

    /// Standard input, output and error are PID 1's. A group of its own, so that a terminal signal of one never meets the other.
    fn start(&mut self, now: Instant) {
        for file in self.launch.stale {
            let _ = fs::remove_file(file);
        }
        let mut command = Command::new(&self.launch.program);
        command.args(&self.launch.arguments).env("PATH", &self.launch.path).current_dir("/").process_group(0);
        // The handle is let go: this process reaps by wait(2) for all.
        match command.spawn() {
            Ok(child) => self.state = State::Running { pid: Pid::from_child(&child), since: now },
            Err(error) => {
                let wait = self.start_later(Duration::ZERO, now);
                console::say(&format!("cannot start {}: {error}; tried again in {} ms", self.launch.program.display(), wait.as_millis()));
            }
        }
    }

    fn ended(&mut self, now: Instant) -> Duration {
        let ran = match self.state {
            State::Running { since, .. } => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        };
        self.start_later(ran, now)
    }

    fn start_later(&mut self, ran: Duration, now: Instant) -> Duration {
        let wait = self.backoff.after(ran);
        self.state = State::Waiting { until: now + wait };
        wait
    }
}

fn signal(daemon: Option<&Daemon>, signal: rustix::process::Signal) {
    if let Some(pid) = daemon.and_then(Daemon::pid) {
        let _ = kill_process(pid, signal);
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(number)) => Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.as_str().to_owned()),
        (None, None) => "unknown".to_owned(),
    }
}

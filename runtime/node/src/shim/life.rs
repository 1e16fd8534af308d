//! The end of a berth: asked for and waited for, forced when late, or come by itself.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use berth_runtime::{
    container::{SYSTEMD_HALT, signal},
    fault,
};
use nix::sys::{
    signal::Signal,
    wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{self, SignalKind},
    time::sleep_until,
};

use super::{sleep::Sleeper, state::State};
use crate::descriptor::watch;

/// How long a berth may take to end when the host goes down.
const HOST_SHUTDOWN: Duration = Duration::from_secs(30);

/// PID 1 as its parent sees it.
#[derive(Debug)]
pub(crate) struct Init {
    /// Host pid.
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
}

/// Waits until PID 1 has ended, for whatever reason, and reaps it; says how it ended.
///
/// A frozen berth is thawed before it is told to stop; a suspended one is killed as it stands.
pub(crate) async fn until_the_end(init: Init, state: &State, sleeper: &Sleeper) -> std::io::Result<String> {
    let pid = init.pid;
    let pidfd = watch(init.pidfd, Interest::READABLE)?;
    let mut stop = state.watch_stop();
    let (mut asked, mut killed) = (false, false);
    loop {
        let deadline = *stop.borrow_and_update();
        if deadline.is_some() && !asked {
            asked = true;
            if sleeper.let_end() {
                send(&pidfd, stop_signal(pid, state.handed_over()));
            } else {
                state.ask_stop(Duration::ZERO);
            }
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) && !killed {
            killed = true;
            send(&pidfd, Signal::SIGKILL as i32);
        }
        let late = async {
            match deadline {
                Some(deadline) if !killed => sleep_until(deadline.into()).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            status = ended(&pidfd) => {
                let late = if killed { "; it had not stopped in time" } else { "" };
                return Ok(format!("PID 1 {}{late}", status?));
            }
            _ = stop.changed() => {}
            () = late => {}
        }
    }
}

/// Serves the shim's own signals for ever: SIGTERM is the host going down, SIGCHLD may be a child that is not PID 1.
pub(crate) async fn serve_signals(pid: u32, state: Arc<State>) -> std::io::Result<()> {
    let mut terminate = unix::signal(SignalKind::terminate())?;
    let mut children = unix::signal(SignalKind::child())?;
    // Taken over once, these no longer end the process.
    for ignored in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()] {
        drop(unix::signal(ignored)?);
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => state.ask_stop(HOST_SHUTDOWN),
            _ = children.recv() => reap_others(pid),
        }
    }
}

fn send(pidfd: &AsyncFd<OwnedFd>, number: i32) {
    if let Err(error) = fault::point("signal PID 1").and_then(|()| signal(pidfd.get_ref().as_fd(), number)) {
        tracing::error!(error = berth_runtime::error::chain(&error), "PID 1 was not signalled");
    }
}

/// What PID 1 takes as "stop in order".
fn stop_signal(pid: u32, handed_over: bool) -> i32 {
    let systemd = || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "systemd");
    if handed_over && systemd() { SYSTEMD_HALT } else { Signal::SIGTERM as i32 }
}

async fn ended(pidfd: &AsyncFd<OwnedFd>) -> std::io::Result<String> {
    loop {
        let mut ready = pidfd.readable().await?;
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(format!("exited with status {status}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(format!("was killed by {signal}")),
            Ok(_) | Err(nix::errno::Errno::EINTR) => ready.clear_ready(),
            // Ended all the same, or its descriptor would not be readable.
            Err(_) => return Ok("ended".into()),
        }
    }
}

/// Reaps children that are not PID 1.
fn reap_others(pid: u32) {
    while let Ok(status) = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
        match status.pid() {
            Some(child) if child.as_raw() as u32 != pid => drop(waitpid(child, None)),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt,
        process::{Child, Command},
    };

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::{
        super::sleep::tests::{sleeper, written},
        *,
    };

    fn init(script: &str) -> (Child, Init) {
        let child = Command::new("sh").arg0("sh").args(["-c", script]).spawn().unwrap();
        let pid = child.id();
        let pidfd = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap();
        (child, Init { pid, pidfd })
    }

    #[tokio::test]
    async fn an_end_by_itself_is_told_with_its_status() {
        let (_child, init) = init("exit 3");
        let state = Arc::new(State::new());
        assert_eq!(until_the_end(init, &state, &sleeper(&state).0).await.unwrap(), "PID 1 exited with status 3");
    }

    #[tokio::test]
    async fn a_stop_is_asked_for_and_forced_when_late() {
        let (_child, polite) = init("trap 'exit 0' TERM; while :; do sleep 0.01; done");
        let state = Arc::new(State::new());
        let (awake, _) = sleeper(&state);
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            state.ask_stop(Duration::from_secs(20));
        };
        let (status, ()) = tokio::join!(until_the_end(polite, &state, &awake), stopping);
        assert_eq!(status.unwrap(), "PID 1 exited with status 0");

        let (_child, deaf) = init("trap '' TERM; while :; do sleep 0.01; done");
        let state = Arc::new(State::new());
        let (awake, _) = sleeper(&state);
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            state.ask_stop(Duration::from_millis(100));
        };
        let (status, ()) = tokio::join!(until_the_end(deaf, &state, &awake), stopping);
        assert_eq!(status.unwrap(), "PID 1 was killed by SIGKILL; it had not stopped in time");
    }

    #[tokio::test]
    async fn l07_a_suspended_berth_is_killed_as_it_stands_and_a_sleeping_one_is_woken_to_stop() {
        let (_child, suspended) = init("trap 'exit 0' TERM; while :; do sleep 0.01; done");
        let state = Arc::new(State::new());
        let (barred, files) = sleeper(&state);
        barred.suspend("it mines".into()).await.unwrap();
        state.ask_stop(Duration::from_secs(20));
        let status = until_the_end(suspended, &state, &barred).await.unwrap();
        assert!(status.starts_with("PID 1 was killed by SIGKILL"), "{status}");
        assert_eq!(written(&files), "1");
    }
}

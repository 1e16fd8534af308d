//! A command inside a running container: a freshly executed single-threaded process joins its namespaces, forks into its pid namespace
//! and executes there.

use std::{
    ffi::CString,
    fs,
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use berth_sys::process::{Side, clone_process, exit_now};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, execve, setgroups, setresgid, setresuid, setsid},
};
use rustix::{
    fs::{FileType, Mode, OFlags, open},
    process::{PidfdFlags, pidfd_open},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    termios::{Winsize, tcsetwinsize},
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::Group,
    error::{Error, Result, Step, chain},
    packet::send,
    seccomp,
};

/// What to run, and in which container; read as JSON from descriptor 3.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enter {
    /// Host pid of the container's PID 1.
    pub pid: u32,
    pub cgroup: Group,
    pub argv: Vec<String>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<String>,
    pub cwd: String,
    /// Ids inside.
    pub uid: u32,
    pub gid: u32,
    /// Columns and rows of the terminal to make; without: the caller's descriptors 0, 1, 2 are the command's.
    pub tty: Option<(u16, u16)>,
    pub apparmor: Option<String>,
}

/// Status of a failure of ours, as with `docker exec`.
const FAILED: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Entry of the child: `<program> enter`, with [`Enter`] at descriptor 3 and, for a terminal, at 4 a `SOCK_SEQPACKET` socket over which its
/// master is sent. Exits with the command's status (128 + n after signal n); what went wrong is on standard error.
pub fn enter() -> ! {
    let status = run().unwrap_or_else(|error| {
        eprintln!("berth: {}", chain(&error));
        FAILED
    });
    exit_now(status)
}

fn run() -> Result<i32> {
    // The tenant's root may trace what shares its user namespace, unless it is not dumpable: set before anything of his is near.
    prctl::set_dumpable(false).step("clear", "dumpable")?;
    let mut text = String::new();
    let request = berth_sys::descriptor::inherited(3).step("take", "descriptor 3")?;
    fs::File::from(request).read_to_string(&mut text).step("read", "the request")?;
    let enter: Enter = serde_json::from_str(&text).map_err(|e| Error::Invalid(format!("the request is not understood: {e}")))?;
    let terminal_to = enter.tty.map(|_| berth_sys::descriptor::inherited(4).step("take", "descriptor 4")).transpose()?;

    let raw = Pid::from_raw(enter.pid as i32);
    let target = rustix::process::Pid::from_raw(raw.as_raw()).ok_or_else(|| Error::Invalid("pid 0".into()))?;
    let pidfd = pidfd_open(target, PidfdFlags::empty()).step("open", format!("process {raw}"))?;
    enter.cgroup.join_inner(0)?;
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME);
    setns(&pidfd, all).step("enter", "the berth")?;
    drop(pidfd);
    setgroups(&[]).step("drop", "supplementary groups")?;
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(root.1, root.1, root.1).step("become", "root inside")?;
    setresuid(root.0, root.0, root.0).step("become", "root inside")?;
    prctl::set_dumpable(false).step("clear", "dumpable")?;

    match clone_process(0).step("clone", "the command")? {
        Side::Parent(pid) => {
            drop(terminal_to);
            wait_for(Pid::from_raw(pid as i32))
        }
        Side::Child => {
            let status = command(&enter, terminal_to.as_ref().map(AsFd::as_fd)).unwrap_or_else(|error| {
                eprintln!("berth: {}", chain(&error));
                FAILED
            });
            exit_now(status)
        }
    }
}

fn wait_for(pid: Pid) -> Result<i32> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).step("await", "the command"),
        }
    }
}

/// Returns a status only when there was nothing to execute.
fn command(enter: &Enter, terminal_to: Option<BorrowedFd<'_>>) -> Result<i32> {
    // Ends with the process that serves it, also when that is killed.
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the caller's death")?;
    setsid().step("start", "a session")?;
    berth_sys::keyring::join_new_session().step("make", "a session keyring")?;
    if let (Some((columns, rows)), Some(to)) = (enter.tty, terminal_to) {
        let slave = terminal(columns, rows, to)?;
        control(&slave)?;
        dup2_stdin(&slave).step("set", "standard input")?;
        dup2_stdout(&slave).step("set", "standard output")?;
        dup2_stderr(&slave).step("set", "standard error")?;
    }
    super::child::enter_profile(enter.apparmor.as_deref())?;
    berth_sys::descriptor::close_on_exec_from(3).step("close", "descriptors")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).step("clear", "the signal mask")?;
    // Loading a filter needs the right that the next step gives up.
    seccomp::confine_berth()?;
    if enter.uid != 0 || enter.gid != 0 {
        let (uid, gid) = (Uid::from_raw(enter.uid), Gid::from_raw(enter.gid));
        setresgid(gid, gid, gid).step("become group", enter.gid)?;
        setresuid(uid, uid, uid).step("become user", enter.uid)?;
        prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the caller's death")?;
    }
    if let Err(error) = std::env::set_current_dir(&enter.cwd) {
        eprintln!("berth: cannot enter directory {}: {error}", enter.cwd);
        return Ok(NOT_EXECUTABLE);
    }
    Ok(execute(enter))
}

/// A pseudo terminal of the berth's own devpts; the master goes to the caller. The path is the tenant's: what is no terminal is refused.
fn terminal(columns: u16, rows: u16, to: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).step("open", "/dev/pts/ptmx inside")?;
    let stat = rustix::fs::fstat(&master).step("look at", "/dev/pts/ptmx inside")?;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (5, 2);
    if !is_ptmx {
        return Err(Error::Invalid("/dev/pts/ptmx inside is no terminal multiplexer; run without a terminal, or restart the berth".into()));
    }
    rustix::pty::unlockpt(&master).step("unlock", "the terminal")?;
    let peer = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).step("open", "the terminal")?;
    tcsetwinsize(&master, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).step("size", "the terminal")?;
    send(to, &"terminal", &[master.as_fd()])?;
    Ok(slave)
}

fn control(slave: &OwnedFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(slave).step("control", "the terminal")
}

/// execvp over the PATH of the command's own environment.
fn execute(enter: &Enter) -> i32 {
    let words = |list: &[String]| list.iter().filter_map(|w| CString::new(w.as_str()).ok()).collect::<Vec<_>>();
    let (argv, env) = (words(&enter.argv), words(&enter.env));
    let Some(name) = enter.argv.first() else {
        eprintln!("berth: no command given");
        return NOT_FOUND;
    };
    let path = enter.env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let candidates: Vec<String> = match name.contains('/') {
        true => vec![name.clone()],
        false => path.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(name).to_string_lossy().into_owned()).collect(),
    };
    let mut status = NOT_FOUND;
    let mut reason = nix::errno::Errno::ENOENT;
    for candidate in candidates {
        let Ok(file) = CString::new(candidate) else { continue };
        match execve(&file, &argv, &env) {
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => {}
            Err(error) => (status, reason) = (NOT_EXECUTABLE, error),
            Ok(never) => match never {},
        }
    }
    eprintln!("berth: {name}: {reason}");
    status
}

//! PID 1 before it is berth-init: root of its own namespaces, nothing of the host but what the stage left.

use std::{
    convert::Infallible,
    ffi::CString,
    fs,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::AtFlags,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    },
    unistd::{execveat, setsid},
};
use rustix::{
    fs::{CWD, Mode, OFlags, open, openat},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use super::{
    Bundle,
    message::{FromChild, ToChild, receive, send},
};
use crate::{
    error::{Error, Result, Step},
    rootfs, seccomp,
};

/// Descriptor of the channel to the shim in berth-init.
const CHANNEL: i32 = 3;

/// What PID 1 is made with.
pub(super) struct Parts {
    pub(super) init: OwnedFd,
    pub(super) console: OwnedFd,
    pub(super) channel: OwnedFd,
    pub(super) disk: OwnedFd,
    /// The mount of the emulated files.
    pub(super) emulated: Option<OwnedFd>,
}

/// Returns only when it failed.
pub(super) fn run(bundle: &Bundle, socket: BorrowedFd<'_>, parts: Parts) -> Error {
    match prepare(bundle, socket, parts) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare(bundle: &Bundle, socket: BorrowedFd<'_>, parts: Parts) -> Result<Infallible> {
    let Parts { init, console, channel, disk, emulated } = parts;
    let host_name = bundle.spec.hostname().as_deref().unwrap_or("berth");
    nix::unistd::sethostname(host_name).step("set", "the host name")?;
    rootfs::enter(&bundle.contents(), emulated)?;
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open", "/")?;

    setsid().step("start", "a session")?;
    berth_sys::keyring::join_new_session().step("make", "a session keyring")?;
    // Last change of credentials is behind us (the mapped ids are the base ids): from here the berth ends with its shim.
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the shim's death")?;
    send(socket, &FromChild::Ready, &[root.as_fd(), disk.as_fd()])?;
    // Waiting for the word also proves that the shim had not died before the death signal was set.
    let (ToChild::Go, _) = receive(socket)? else { return Err(Error::Invalid("something came instead of go".into())) };
    drop((root, disk));

    enter_profile(bundle.apparmor.as_deref())?;
    let (argv, env) = program(bundle)?;
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open", "/dev/null")?;
    // The socket and the program were opened by the stage and stay above the standard descriptors; both close on exec.
    let init = rustix::io::fcntl_dupfd_cloexec(&init, 16).step("keep", "the program")?;
    let failures = rustix::io::fcntl_dupfd_cloexec(socket, 16).step("keep", "the socket")?;
    let channel = rustix::io::fcntl_dupfd_cloexec(&channel, 16).step("keep", "the channel")?;
    dup2_stdout(&console).step("set", "standard output")?;
    dup2_stderr(&console).step("set", "standard error")?;
    dup2_stdin(&null).step("set", "standard input")?;
    berth_sys::descriptor::replace(CHANNEL, channel).step("place", "the channel")?;
    berth_sys::descriptor::close_on_exec_from(CHANNEL as u32 + 1).step("close", "descriptors")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).step("clear", "the signal mask")?;
    let done = seccomp::confine_berth_heard().and_then(|listener| {
        if let Some(listener) = listener {
            send(failures.as_fd(), &FromChild::Heard, &[listener.as_fd()])?;
        }
        let argv: Vec<&std::ffi::CStr> = argv.iter().map(CString::as_c_str).collect();
        let env: Vec<&std::ffi::CStr> = env.iter().map(CString::as_c_str).collect();
        execveat(init.as_fd(), c"", &argv, &env, AtFlags::AT_EMPTY_PATH).step("execute", "berth-init")
    });
    if let Err(error) = &done {
        let _ = send(failures.as_fd(), &FromChild::Failed { detail: crate::error::chain(error) }, &[]);
        berth_sys::process::exit_now(1);
    }
    done
}

/// On the next exec; host profiles attach by path inside a berth otherwise.
pub(super) fn enter_profile(profile: Option<&str>) -> Result<()> {
    let Some(profile) = profile else { return Ok(()) };
    let mut attr = fs::OpenOptions::new().write(true).open("/proc/thread-self/attr/exec").step("open", "the AppArmor attribute")?;
    attr.write_all(format!("exec {profile}").as_bytes()).step("enter AppArmor profile", profile)
}

fn program(bundle: &Bundle) -> Result<(Vec<CString>, Vec<CString>)> {
    let process = bundle.spec.process().as_ref().ok_or_else(|| Error::Invalid("the spec names no process".into()))?;
    let text = |list: &Option<Vec<String>>| -> Result<Vec<CString>> {
        let words = list.iter().flatten();
        words.map(|w| CString::new(w.as_str()).map_err(|_| Error::Invalid(format!("{w:?} holds a NUL byte")))).collect()
    };
    Ok((text(process.args())?, text(process.env())?))
}

//! A child with the user's own ids and groups opens a directory; the parent waits no longer than it wants to.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use berth_sys::process::{Side, clone_process, exit_now};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid},
};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use super::{DEADLINE, Request, Wanted, readable_by};
use crate::{
    error::{Result, Step},
    packet::{receive, send},
};

/// A directory that is being opened.
pub(super) struct Opener {
    pid: Pid,
    socket: OwnedFd,
}

/// The caller is single-threaded host root.
pub(super) fn start(request: &Request, wanted: &Wanted) -> Result<Opener> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step("make", "a socket pair")?;
    match clone_process(0).step("clone", "a child with the user's ids")? {
        Side::Parent(pid) => Ok(Opener { pid: Pid::from_raw(pid as i32), socket: ours }),
        Side::Child => {
            drop(ours);
            let opened = become_user(request).map_err(|e| crate::error::chain(&e)).and_then(|()| open(wanted));
            let _ = match &opened {
                Ok(directory) => send(theirs.as_fd(), &None::<String>, &[directory.as_fd()]),
                Err(reason) => send(theirs.as_fd(), &Some(reason), &[]),
            };
            exit_now(0)
        }
    }
}

impl Opener {
    /// The directory, or why there is none. A child that hangs in the kernel is killed and left behind.
    pub(super) fn wait(self, end: Instant) -> std::result::Result<OwnedFd, String> {
        let answer = match readable_by(self.socket.as_fd(), end) {
            true => receive::<Option<String>>(self.socket.as_fd()).map_err(|e| crate::error::chain(&e)),
            false => Ok((Some(format!("it did not open within {:.1} s; its server does not answer", DEADLINE.as_secs_f32())), Vec::new())),
        };
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        match answer? {
            (Some(reason), _) => Err(reason),
            (None, descriptors) => descriptors.into_iter().next().ok_or_else(|| "no directory came".to_owned()),
        }
    }
}

/// For good: whoever else runs with these ids may signal this process, and nothing more.
fn become_user(request: &Request) -> Result<()> {
    let groups: Vec<Gid> = request.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).step("take", "the user's groups")?;
    let (uid, gid) = (Uid::from_raw(request.uid), Gid::from_raw(request.gid));
    setresgid(gid, gid, gid).step("become", "the user's group")?;
    setresuid(uid, uid, uid).step("become", "the user")?;
    prctl::set_dumpable(false).step("clear", "dumpable")?;
    prctl::set_no_new_privs().step("set", "no_new_privs")?;
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the parent's death")
}

/// What may hang hangs here: the look at the directory too, so that the parent gets one that answered.
fn open(wanted: &Wanted) -> std::result::Result<OwnedFd, String> {
    let resolve = match wanted.home {
        true => ResolveFlags::NO_MAGICLINKS,
        false => ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat2(CWD, &wanted.path, flags, Mode::empty(), resolve).map_err(sentence)?;
    fstat(&directory).map_err(sentence)?;
    Ok(directory)
}

fn sentence(error: Errno) -> String {
    match error {
        Errno::NOENT => "it does not exist".into(),
        Errno::ACCESS | Errno::PERM => "the user himself may not enter it (permission denied)".into(),
        Errno::LOOP => "a symbolic link is in its path".into(),
        Errno::NOTDIR => "it is no directory".into(),
        Errno::NOTCONN => "its server is gone (transport endpoint is not connected)".into(),
        other => format!("the user himself cannot open it: {other}"),
    }
}

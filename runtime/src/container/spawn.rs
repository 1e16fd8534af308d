//! The stage's process: the caller's own program anew, born in its control group.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
};

use berth_sys::process::{Side, clone_into, exit_now};
use nix::{
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        wait::waitpid,
    },
    unistd::{Pid, execve},
};
use rustix::stdio::dup2_stdin;

use crate::{
    cgroup::{Group, Part},
    error::{Result, Step},
    fault,
};

/// A child of the caller.
pub(super) struct Stage {
    pid: Pid,
}

impl Stage {
    /// Executes `<this program> stage` in the payload's group, so that nothing of it was ever outside; on v1 hierarchies, into which nobody
    /// can be born, it has yet to be moved. `input` becomes its standard input; whoever holds the other end sees it close when it fails.
    pub(super) fn spawn(group: &Group, input: OwnedFd) -> Result<Self> {
        let dir = group.open(Part::Payload)?;
        match clone_into(dir.as_fd(), 0).step("clone", "the stage")? {
            Side::Parent(pid) => Ok(Self { pid: Pid::from_raw(pid as i32) }),
            Side::Child => {
                execute(input);
                exit_now(125)
            }
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    pub(super) fn wait(&self) -> Result<()> {
        waitpid(self.pid, None).map(drop).step("await", "the stage")
    }
}

/// Returns when it failed.
fn execute(input: OwnedFd) {
    let armed = std::env::var_os(fault::VARIABLE).map(|file| [fault::VARIABLE.as_bytes(), b"=", &file.into_vec()].concat());
    let environment: Vec<CString> = armed.and_then(|text| CString::new(text).ok()).into_iter().collect();
    let unblocked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    if unblocked.is_ok() && dup2_stdin(input).is_ok() {
        let _ = execve(c"/proc/self/exe", &[c"/proc/self/exe", c"stage"], &environment);
    }
}

//! Processes by clone3(2).

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Which side of a [`clone_process`] the caller is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The child's pid, in the caller's pid namespace.
    Parent(u32),
    Child,
}

/// Namespaces and relations for [`clone_process`], linux/sched.h.
pub const CLONE_PARENT: u64 = 0x8000;
pub const CLONE_NEWUSER: u64 = 0x1000_0000;
pub const CLONE_NEWPID: u64 = 0x2000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Copies the calling process, as fork(2) does, into new namespaces.
///
/// Refused (`EDEADLK`) when the caller has more than one thread: the child would inherit locks that nobody releases.
/// With [`CLONE_PARENT`] the child becomes a sibling; its exit signal is the caller's own then (the kernel refuses another).
pub fn clone_process(flags: u64) -> io::Result<Side> {
    clone_with(CloneArgs { flags, ..CloneArgs::default() })
}

/// The same into a group of the cgroup2 hierarchy, given by its directory: the child is never anywhere else.
pub fn clone_into(group: BorrowedFd<'_>, flags: u64) -> io::Result<Side> {
    clone_with(CloneArgs { flags: flags | CLONE_INTO_CGROUP, cgroup: group.as_raw_fd() as u64, ..CloneArgs::default() })
}

fn clone_with(args: CloneArgs) -> io::Result<Side> {
    if fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(1) != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let exit_signal = if args.flags & CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    let args = CloneArgs { exit_signal, ..args };
    // SAFETY: without CLONE_VM the child runs on a copy of our memory and stack, like fork's; there is one thread only (checked), so
    // no lock can be held by another. `args` lives across the call and has the size that is passed.
    match unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid as u32)),
    }
}

/// Ends the process at once: no destructors, no exit handlers of the copied parent.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes no memory and does not return.
    unsafe { libc::_exit(status) }
}

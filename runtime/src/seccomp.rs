//! System-call limits: deny lists for every ABI, by libseccomp. A hardening of what user namespaces already confine, never the policy.

mod listener;

use std::os::fd::OwnedFd;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, error::SeccompError};

pub use listener::{Call, Listener};

use crate::error::{Error, Result};

/// Refused inside every berth: kernel surface that no container needs, and host-global state.
const BERTH: [&str; 26] = [
    "acct",
    "bpf",
    "clock_settime",
    "clock_settime64",
    "delete_module",
    "finit_module",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "lookup_dcookie",
    "nfsservctl",
    "perf_event_open",
    // Inside a pid namespace it only ends that one's PID 1; systemd then ends by itself (EPERM).
    "reboot",
    "request_key",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    // The kernel's log: readable by all where kernel.dmesg_restrict is off (P06).
    "syslog",
    "userfaultfd",
    "vhangup",
];

/// Refused to the shim besides: it only moves bytes.
const SHIM: [&str; 25] = [
    "add_key",
    "chroot",
    "execve",
    "execveat",
    "fork",
    "fsconfig",
    "fsmount",
    "fsopen",
    "keyctl",
    "mknod",
    "mknodat",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "setns",
    "umount2",
    "unshare",
    "vfork",
    "pidfd_getfd",
];

/// Limits the calling thread, and all that it will execute, to what a berth may do. Needs `CAP_SYS_ADMIN` in its user namespace.
pub fn confine_berth() -> Result<()> {
    load(&BERTH, |_| Ok(())).map(drop)
}

/// The same; and calls of sysinfo(2) wait for an answer from who holds the descriptor, see [`Listener`]. `None` where that is not to be
/// had. In what is confined so nobody else can listen to system calls (EBUSY, seccomp(2)).
pub fn confine_berth_heard() -> Result<Option<OwnedFd>> {
    let heard = load(&BERTH, |filter| filter.add_rule(ScmpAction::Notify, ScmpSyscall::from_name("sysinfo")?).map(drop));
    let Ok(filter) = heard else { return confine_berth().map(|()| None) };
    let number = filter.get_notify_fd().map_err(|source| Error::Seccomp { operation: "listen".into(), source })?;
    // The library keeps its own.
    let listener = berth_sys::descriptor::duplicate(number).map_err(|source| Error::Step {
        operation: "duplicate",
        object: "the listener".into(),
        source,
    })?;
    Ok(Some(listener))
}

/// Limits the shim. Needs `no_new_privs`.
pub fn confine_shim() -> Result<()> {
    load(&BERTH, |_| Ok(()))?;
    load(&SHIM, threads_only).map(drop)
}

/// The shim makes no process, only the thread that waits for the disk. A filter cannot look into clone3's arguments: C libraries go back
/// to clone when the kernel does not know it.
fn threads_only(filter: &mut ScmpFilterContext) -> std::result::Result<(), SeccompError> {
    let thread = nix::libc::CLONE_THREAD as u64;
    let no_thread = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(thread), 0);
    filter.add_rule_conditional(ScmpAction::Errno(nix::libc::EPERM), ScmpSyscall::from_name("clone")?, &[no_thread])?;
    if let Ok(call) = ScmpSyscall::from_name("clone3") {
        filter.add_rule(ScmpAction::Errno(nix::libc::ENOSYS), call)?;
    }
    Ok(())
}

fn load(denied: &[&str], more: impl FnOnce(&mut ScmpFilterContext) -> std::result::Result<(), SeccompError>) -> Result<ScmpFilterContext> {
    let named = |operation: &str| {
        let operation = operation.to_owned();
        move |source: SeccompError| Error::Seccomp { operation, source }
    };
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).map_err(named("new filter"))?;
    for &arch in foreign_abis() {
        // One ABI without the rules would be a way around them (S02).
        filter.add_arch(arch).map_err(named("add an ABI"))?;
    }
    // no_new_privs would break every setuid program inside; the caller decides.
    filter.set_ctl_nnp(false).map_err(named("leave no_new_privs"))?;
    for name in denied {
        // A name that this libseccomp does not know is a call that this kernel's headers do not have.
        if let Ok(call) = ScmpSyscall::from_name(name) {
            filter.add_rule(ScmpAction::Errno(nix::libc::EPERM), call).map_err(named(name))?;
        }
    }
    more(&mut filter).map_err(named("add rules of its own"))?;
    filter.load().map_err(named("load"))?;
    Ok(filter)
}

fn foreign_abis() -> &'static [ScmpArch] {
    match ScmpArch::native() {
        ScmpArch::X8664 => &[ScmpArch::X86, ScmpArch::X32],
        ScmpArch::Aarch64 => &[ScmpArch::Arm],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use super::*;

    #[test]
    fn s02_a_shim_makes_threads_and_no_process() {
        // A filter holds for the thread that loads it and what comes of it: the other tests are free.
        let confined = thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            confine_shim().unwrap();
            let thread = thread::Builder::new().spawn(|| 7).map(|t| t.join().unwrap());
            let process = Command::new("/bin/true").status();
            (thread.unwrap(), process.unwrap_err().raw_os_error())
        });
        assert_eq!(confined.join().unwrap(), (7, Some(nix::libc::EPERM)));
    }
}

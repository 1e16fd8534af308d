//! System-call limits: deny lists for every ABI, by libseccomp. A hardening of what user namespaces already confine, never the policy.

use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall, error::SeccompError};

use crate::error::{Error, Result};

/// Refused inside every berth: kernel surface that no container needs, and host-global state.
const BERTH: [&str; 24] = [
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
    "request_key",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "userfaultfd",
    "vhangup",
];

/// Refused to the shim besides: it only moves bytes.
const SHIM: [&str; 27] = [
    "add_key",
    "chroot",
    "clone3",
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
    "reboot",
    "setns",
    "umount2",
    "unshare",
    "vfork",
    "pidfd_getfd",
];

/// Limits the calling thread, and all that it will execute, to what a berth may do. Needs `CAP_SYS_ADMIN` in its user namespace.
pub fn confine_berth() -> Result<()> {
    load(&BERTH)
}

/// Limits the shim. Needs `no_new_privs`.
pub fn confine_shim() -> Result<()> {
    load(&BERTH)?;
    load(&SHIM)
}

fn load(denied: &[&str]) -> Result<()> {
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
    filter.load().map_err(named("load"))
}

fn foreign_abis() -> &'static [ScmpArch] {
    match ScmpArch::native() {
        ScmpArch::X8664 => &[ScmpArch::X86, ScmpArch::X32],
        ScmpArch::Aarch64 => &[ScmpArch::Arm],
        _ => &[],
    }
}

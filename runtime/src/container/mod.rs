//! One container, from nothing to running and back.
//!
//! ```text
//! caller (freshly executed, single-threaded, host root: the shim)
//!   │ start(): cgroups, disk, then executes itself as `stage` ──► stage: private mount namespace with what comes from the host;
//!   │                                                             a child makes user namespace (euid = base) and root, and ends;
//!   │                                                             host mounts onto the root, then all other namespaces
//!   │ sets clocks, moves the veth in, opens DNS sockets          │ clone(CLONE_PARENT | NEWPID)
//!   └──────────── parent of ────────────────────────────────────► PID 1: mounts, pivot_root, seccomp, berth-init from a memfd
//! ```
//!
//! Everything before `commit` is on an [`Undo`] stack; what a killed caller left is removed by [`sweep`].

mod child;
mod confine;
mod enter;
mod message;
mod signal;
mod spawn;
mod stage;
mod start;
mod sweep;

use std::{
    net::{TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::PathBuf,
};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

pub use crate::rootfs::{MOUNTS_OF_A_SHARE, Share, install_wrapper, remove_wrapper};
pub use berth_sys::code::forget as forget_code;
pub use confine::{close_strays, confine};
pub use enter::{Enter, enter};
pub use signal::{SYSTEMD_HALT, signal};
pub use stage::stage;
pub use start::start;
pub use sweep::sweep;

use crate::{cgroup, disk, net, rootfs, seccomp::Listener};

/// Everything needed to start one container; pure data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bundle {
    /// Names cgroup and messages.
    pub id: String,
    /// What runs, its root (the read-only image tree at `root.path`), hostname, environment, mounts from the host, resources.
    pub spec: Spec,
    /// First host id of the container's 65536.
    pub id_base: u32,
    /// Holds everything the container writes.
    pub disk: disk::Disk,
    /// What of it the container may take, from its first instant.
    pub room: disk::Room,
    pub cgroup: cgroup::Group,
    pub limits: cgroup::Limits,
    pub net: net::Link,
    /// Small read-only files laid over the image: path inside, contents.
    pub files: Vec<(PathBuf, String)>,
    /// Static program that becomes PID 1; `spec.process.args` are its arguments.
    pub init: PathBuf,
    /// Directories of the host inside.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// The inner OCI-runtime wrapper, a file of the host; without it inner containers are run as they are asked for.
    #[serde(default)]
    pub runc: Option<PathBuf>,
    /// AppArmor profile to enter on exec, where the host has AppArmor.
    pub apparmor: Option<String>,
}

impl Bundle {
    fn contents(&self) -> rootfs::Contents<'_> {
        rootfs::Contents {
            spec: &self.spec,
            id_base: self.id_base,
            files: &self.files,
            runc: self.runc.as_deref(),
            shares: &self.shares,
            address: self.net.address,
            v1: self.cgroup.inner_v1(&self.limits).map(|v1| (v1.options.as_str(), v1.mount.as_path())).collect(),
        }
    }
}

/// A running container, as its parent holds it.
#[derive(Debug)]
pub struct Started {
    /// Host pid of PID 1, a child of the caller.
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// `O_PATH` on the container's `/`; follows its later mounts. Resolve below it with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` only.
    pub root: OwnedFd,
    /// The disk's own root directory (id-mapped mount), for trimming.
    pub disk: OwnedFd,
    /// Read end of PID 1's standard output and error.
    pub console: OwnedFd,
    /// Stream to berth-init (its descriptor 3): `ready`, `down …`, `stopping`, `handover`, `failed …` lines.
    pub channel: OwnedFd,
    /// Bound inside the container's network namespace at [`net::DNS_ADDRESS`], port 53.
    pub dns_udp: UdpSocket,
    pub dns_tcp: TcpListener,
    /// The way to what listens at the container's 127.0.0.1 only.
    pub loopback: net::Loopback,
    /// The FUSE device of the emulated files of `/proc` and `/sys`, not served yet; `None` where the kernel has no FUSE.
    pub emulated: Option<OwnedFd>,
    /// Calls of sysinfo(2) of everything in the container wait here; `None` where the kernel answers them.
    pub heard: Option<Listener>,
    /// Seconds from the host's boot to the container's.
    pub booted: u64,
}

//! runc as the peer of a start: the same image in a user namespace, the same limits, no network but its own empty one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    compare::had,
    rootfs::{self, Daemons, ID_COUNT},
};
use crate::{Host, Run};

const NAME: &str = "bench";

/// A bundle that runc starts; ended when dropped.
pub(super) struct Runc<'h> {
    host: &'h Host,
    dir: PathBuf,
}

impl<'h> Runc<'h> {
    /// A bundle of a copy of `image`, whose files are given to the range's ids: runc of Debian 12 maps none.
    #[track_caller]
    pub(super) fn create(host: &'h Host, image: &Path, daemons: &Daemons) -> Self {
        assert!(Path::new("/usr/sbin/runc").exists(), "runc is missing");
        let dir = host.slot.dir.join("runc");
        fs::create_dir_all(&dir).expect("make directory");
        let rootfs = dir.join("rootfs");
        rootfs::copy(image, &rootfs, daemons);
        let first = rootfs::first_id(host);
        rootfs::give(&rootfs, &|id| first + id);
        fs::write(dir.join("config.json"), config(first, &Self::group(host)).to_string()).expect("write config.json");
        Self { host, dir }
    }

    /// The command that starts it; it ends when the container runs.
    pub(super) fn start(&self) -> Run {
        self.tool("run").args(["--detach", "--bundle"]).arg(&self.dir).arg(NAME)
    }

    /// Ends it at once.
    #[track_caller]
    pub(super) fn kill(&self) {
        self.tool("delete").args(["--force", NAME]).ok();
    }

    /// Its control groups, one in each hierarchy: below those of the instance, with which they are swept.
    pub(super) fn groups(host: &Host) -> Vec<PathBuf> {
        host.slot.groups().into_iter().map(|group| group.join("runc")).collect()
    }

    fn group(host: &Host) -> String {
        format!("/berth{}/runc", host.slot.instance())
    }

    fn tool(&self, verb: &str) -> Run {
        Run::new("/usr/sbin/runc").arg("--root").arg(self.dir.join("state")).arg(verb)
    }
}

impl Drop for Runc<'_> {
    fn drop(&mut self) {
        // It may be gone already, which is no error with --force.
        let _ = had(|| self.tool("delete").args(["--force", NAME]).output_within());
        for group in Self::groups(self.host) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// The limits are those of a new berth of the harness; every capability, as PID 1 of a berth has it.
fn config(first: u32, group: &str) -> serde_json::Value {
    let map = json!([{ "containerID": 0, "hostID": first, "size": ID_COUNT }]);
    let mount = |target: &str, kind: &str, options: &str| json!({ "destination": target, "type": kind, "source": kind, "options": options.split(',').collect::<Vec<_>>() });
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"].map(|kind| json!({ "type": kind }));
    let capabilities: Vec<&str> = CAPABILITIES.split(' ').collect();
    json!({
        "ociVersion": "1.0.2",
        // Its daemons must not hold what runc writes to.
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", format!("exec >/dev/null 2>&1; exec {}", rootfs::INIT)],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "rootfs" },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev"),
        ],
        "linux": {
            "namespaces": namespaces,
            "uidMappings": map,
            "gidMappings": map,
            "cgroupsPath": group,
            "resources": { "memory": { "limit": 1_u64 << 30 }, "cpu": { "quota": 200_000, "period": 100_000 }, "pids": { "limit": 1024 } },
        },
    })
}

const CAPABILITIES: &str = "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD \
CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_PTRACE";

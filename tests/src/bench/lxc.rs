//! LXC as the peer of a start: the same image, the same daemons with the same flags, a disk on the same file system, a network of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    compare::had,
    rootfs::{self, ID_COUNT},
};
use crate::{Berth, Host, Run, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// What keeps stopped containers of killed runs apart: `deploy/bench` ends them by this name.
const NAME: &str = "berth-bench";

/// An unprivileged LXC container; ended when dropped.
pub(super) struct Lxc {
    /// `lxcpath`, which holds all that is known of it.
    dir: PathBuf,
    rootfs: PathBuf,
    /// Groups of LXC's own that were there before; it never takes any of them away.
    pivots: Vec<PathBuf>,
    /// A process in whose mount namespace it is started.
    among: Option<u32>,
}

impl Lxc {
    /// A container with a copy of `image`, which starts what `berth`, running, runs.
    #[track_caller]
    pub(super) fn create(host: &Host, image: &Path, berth: &Berth<'_>) -> Self {
        Self::create_with(host, image, berth, "", None)
    }

    /// The same with more lines of its configuration, and among the mounts of a process.
    #[track_caller]
    pub(super) fn create_with(host: &Host, image: &Path, berth: &Berth<'_>, more: &str, among: Option<u32>) -> Self {
        assert!(Path::new("/usr/bin/lxc-start").exists(), "lxc-start is missing");
        let dir = host.slot.dir.join("lxc");
        let rootfs = dir.join(NAME).join("rootfs");
        fs::create_dir_all(dir.join(NAME)).expect("make directory");
        rootfs::copy(image, &rootfs, &rootfs::daemons(berth));
        let first = rootfs::first_id(host);
        let config = format!(
            "lxc.uts.name = bench\nlxc.rootfs.path = dir:{}\nlxc.rootfs.options = idmap=container\nlxc.idmap = u 0 {first} {ID_COUNT}\n\
             lxc.idmap = g 0 {first} {ID_COUNT}\nlxc.mount.auto = proc:rw sys:rw cgroup:rw:force\nlxc.init.cmd = /sbin/bench-init\n\
             lxc.signal.halt = SIGTERM\nlxc.apparmor.profile = unconfined\nlxc.tty.max = 0\nlxc.console.path = none\n\
             lxc.net.0.type = veth\nlxc.net.0.veth.pair = {}lx\nlxc.net.0.flags = up\nlxc.net.0.ipv4.address = 198.51.100.2/30\n\
             lxc.net.0.ipv4.gateway = 198.51.100.1\n{more}",
            rootfs.display(),
            host.slot.link_prefix(),
        );
        fs::write(dir.join(NAME).join("config"), config).expect("write the container's config");
        Self { dir, rootfs, pivots: pivots(), among }
    }

    /// The inner Docker's socket, seen from the host.
    pub(super) fn socket(&self) -> PathBuf {
        self.rootfs.join("run/docker.sock")
    }

    /// The command that starts it; it ends when the container runs.
    pub(super) fn start(&self) -> Run {
        self.tool("lxc-start").arg("--logfile").arg(self.dir.join("log"))
    }

    /// Ends the daemons in order, as `berth stop` does.
    #[track_caller]
    pub(super) fn stop(&self) {
        self.tool("lxc-stop").args(["-t", "20"]).ok();
        until("the LXC container is stopped", PATIENCE, || {
            self.tool("lxc-info").args(["-s", "-H"]).output().stdout.contains("STOPPED").then_some(())
        });
    }

    /// A program inside, which runs.
    pub(super) fn attach(&self, program: &str) -> Run {
        self.tool("lxc-attach").arg("--").arg(program)
    }

    /// Its files, seen from the host.
    pub(super) fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// Ends it at once.
    #[track_caller]
    pub(super) fn kill(&self) {
        self.tool("lxc-stop").arg("-k").ok();
    }

    /// The control groups of its payload, one in each hierarchy.
    pub(super) fn groups() -> Vec<PathBuf> {
        groups_named("lxc.payload.berth-bench")
    }

    /// Without newuidmap in its path LXC writes the id map itself and asks nothing of /etc/subuid.
    fn tool(&self, name: &str) -> Run {
        let program = Path::new("/usr/bin").join(name);
        let run = match self.among {
            Some(pid) => Run::new("/usr/bin/nsenter").arg(format!("--mount=/proc/{pid}/ns/mnt")).arg(program),
            None => Run::new(program),
        };
        run.env("PATH", "/usr/sbin:/sbin").arg("-P").arg(&self.dir).args(["-n", NAME])
    }
}

impl Drop for Lxc {
    fn drop(&mut self) {
        // It may be stopped already, which is an error to LXC.
        let _ = had(|| self.tool("lxc-stop").arg("-k").output_within());
        for group in pivots().into_iter().filter(|group| !self.pivots.contains(group)) {
            // Stays while another container needs it.
            let _ = fs::remove_dir(group);
        }
    }
}

/// Where LXC's processes wait for the end of a container's groups.
fn pivots() -> Vec<PathBuf> {
    groups_named("lxc.pivot")
}

/// Groups below the root of every hierarchy.
fn groups_named(name: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path()).chain([base.to_owned()]);
    hierarchies.map(|hierarchy| hierarchy.join(name)).filter(|group| group.is_dir()).collect()
}

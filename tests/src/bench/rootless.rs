//! Rootless Docker as a peer: rootlesskit and slirp4netns as dockerd-rootless.sh of the image calls them, around the image's own daemons.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        stat::{Mode, SFlag, makedev, mknod},
    },
    unistd::Pid,
};

use super::rootfs::{self, Daemons};
use crate::{Host, User, account, daemon::Daemon, wait::within};

const PATIENCE: Duration = Duration::from_secs(30);
/// What dockerd wants to find in its path, and only rootlesskit brings.
const PROXY: &str = "/usr/bin/rootlesskit-docker-proxy";

/// An account with a root file system that its own root may enter; all its processes are ended when it is dropped.
pub(super) struct Rootless {
    user: User,
    dir: PathBuf,
}

impl Rootless {
    #[track_caller]
    pub(super) fn create(host: &Host, image: &Path, daemons: &Daemons, name: &str) -> Self {
        for program in ["/usr/bin/rootlesskit", "/usr/bin/slirp4netns", "/usr/bin/newuidmap", PROXY] {
            assert!(Path::new(program).exists(), "{program} is missing");
        }
        let user = host.user(name);
        let ids = fs::read_to_string("/etc/subuid").unwrap_or_default();
        assert!(ids.lines().any(|line| line.starts_with(&format!("{}:", user.name))), "useradd gave the account no range in /etc/subuid");
        let dir = host.slot.dir.join(name);
        fs::create_dir_all(&dir).expect("make directory");
        let rootfs = dir.join("rootfs");
        let [containerd, mut dockerd] = daemons.clone();
        dockerd.push("--rootless".into());
        rootfs::copy(image, &rootfs, &[containerd, dockerd]);
        fs::copy(PROXY, rootfs.join("usr/bin/rootlesskit-docker-proxy")).expect("copy the proxy of ports");
        rootfs::give(&rootfs, &|id| if id == 0 { user.uid } else { id });
        let runtime = dir.join("run");
        fs::create_dir(&runtime).expect("make directory");
        chown(&runtime, Some(user.uid), Some(user.gid)).expect("give directory");
        fs::write(dir.join("enter"), ENTER).expect("write script");
        fs::set_permissions(dir.join("enter"), fs::Permissions::from_mode(0o755)).expect("make script executable");
        // As udev makes it; hosts without udev keep theirs to root.
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&dir.join("tun"), SFlag::S_IFCHR, mode, makedev(10, 200)).expect("make the tun device");
        fs::set_permissions(dir.join("tun"), fs::Permissions::from_mode(0o666)).expect("open the tun device");
        Self { user, dir }
    }

    /// Its Docker's socket, seen from the host.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("rootfs/run/docker.sock")
    }

    #[track_caller]
    pub(super) fn start(&self) -> Daemon {
        let User { name, uid, gid, home } = &self.user;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-ec", "mount --bind \"$0\" /dev/net/tun; exec \"$@\""])
            .arg(self.dir.join("tun"))
            .args([
                "setpriv",
                "--reuid",
                &uid.to_string(),
                "--regid",
                &gid.to_string(),
                "--clear-groups",
                "--inh-caps=-all",
                "--",
                "env",
                "-i",
            ])
            .arg(format!("HOME={}", home.display()))
            .arg(format!("USER={name}"))
            .arg("PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .arg(format!("XDG_RUNTIME_DIR={}", self.dir.join("run").display()))
            .arg("rootlesskit")
            .arg(format!("--state-dir={}", self.dir.join("run/rootlesskit").display()))
            .args([
                "--net=slirp4netns",
                "--mtu=65520",
                "--slirp4netns-sandbox=auto",
                "--slirp4netns-seccomp=auto",
                "--disable-host-loopback",
            ])
            .args(["--port-driver=builtin", "--copy-up=/etc", "--copy-up=/run"])
            .arg(self.dir.join("enter"))
            .arg(self.dir.join("rootfs"))
            .arg(rootfs::INIT)
            .current_dir("/");
        Daemon::start("rootless", &self.dir, command)
    }

    /// Ends it in order, then whatever it left.
    pub(super) fn stop(&self, running: Daemon) {
        let _ = kill(Pid::from_raw(running.pid().cast_signed()), Signal::SIGTERM);
        let mut running = running;
        within(PATIENCE, || (!running.alive()).then_some(()));
        running.kill();
        account::end_processes(self.user.uid);
        let _ = fs::remove_dir_all(self.dir.join("run/rootlesskit"));
        let _ = fs::remove_file(self.socket());
    }

    /// Puts a program into its root file system.
    #[track_caller]
    pub(super) fn add(&self, program: &Path, inside: &str) {
        let to = self.dir.join("rootfs").join(inside.trim_start_matches('/'));
        fs::copy(program, &to).expect("copy a program");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("make it executable");
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        account::end_processes(self.user.uid);
    }
}

/// `$1` becomes the root of what runs `$2`; a mount of its own, or nothing inside could change its root again.
const ENTER: &str = "#!/bin/sh
set -e
mount --rbind \"$1\" \"$1\"
for dir in proc sys dev; do mount --rbind \"/$dir\" \"$1/$dir\"; done
exec chroot \"$1\" \"$2\"
";

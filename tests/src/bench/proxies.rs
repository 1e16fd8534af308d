//! The peers of Berth's socket: what else could stand between a user and the inner Docker.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::process;
use crate::{Host, daemon::Daemon, until};

const READY: Duration = Duration::from_secs(10);

/// A proxy from a socket of its own to `docker.sock` of a directory, which each names from inside, as the clients do: a long way to the
/// inner socket would not be the proxy's fault.
pub(super) struct Proxy {
    pub(super) socket: PathBuf,
    daemon: Option<Daemon>,
}

impl Proxy {
    /// HAProxy in TCP mode (in HTTP mode attach and exec break), allowed to splice where it wants to; its other defaults kept: one thread
    /// per processor, 16 KiB buffers.
    #[track_caller]
    pub(super) fn haproxy(host: &Host, inner: &Path) -> Self {
        let socket = host.slot.dir.join("haproxy.sock");
        let config = format!(
            "global\n  maxconn 1000\n  chroot {}\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen docker\n  bind unix@{} mode 600\n  server inner unix@/docker.sock\n",
            inner.display(),
            socket.display()
        );
        let file = host.slot.dir.join("haproxy.cfg");
        fs::write(&file, config).expect("write haproxy.cfg");
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file);
        Self::start(host, "haproxy", socket, command)
    }

    /// A process for each connection; 64 KiB buffers, which is faster than its default of 8 KiB.
    #[track_caller]
    pub(super) fn socat(host: &Host, inner: &Path) -> Self {
        let socket = host.slot.dir.join("socat.sock");
        let mut command = Command::new("socat");
        command
            .args(["-b", "65536", &format!("UNIX-LISTEN:{},fork,mode=600", socket.display()), "UNIX-CONNECT:docker.sock"])
            .current_dir(inner);
        Self::start(host, "socat", socket, command)
    }

    #[track_caller]
    fn start(host: &Host, name: &str, socket: PathBuf, command: Command) -> Self {
        let mut daemon = Daemon::start(name, &host.slot.dir, command);
        until(&format!("{name} listens ({})", host.slot.dir.join(name).with_extension("log").display()), READY, || {
            assert!(daemon.alive(), "{name} ended: {}", host.log(name));
            UnixStream::connect(&socket).ok()
        });
        Self { socket, daemon: Some(daemon) }
    }

    pub(super) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("taken by drop only").pid()
    }

    /// CPU time so far, once the processes of ended connections are gone and counted.
    #[track_caller]
    pub(super) fn cpu_seconds(&self) -> f64 {
        until("the processes of ended connections are gone", READY, || (process::children(self.pid()) == 0).then_some(()));
        process::cpu_seconds(self.pid())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }
}

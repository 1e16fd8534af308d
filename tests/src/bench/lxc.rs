//! LXC as the peer of a start: the same image, the same daemons with the same flags, a disk on the same file system, a network of its own.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Berth, Host, Run, until};

const PATIENCE: Duration = Duration::from_secs(60);
const ID_COUNT: u32 = 65_536;
/// What keeps stopped containers of killed runs apart: `deploy/bench` ends them by this name.
const NAME: &str = "berth-bench";

/// An unprivileged LXC container; ended when dropped.
pub(super) struct Lxc {
    /// `lxcpath`, which holds all that is known of it.
    dir: PathBuf,
    rootfs: PathBuf,
    /// Groups of LXC's own that were there before; it never takes any of them away.
    pivots: Vec<PathBuf>,
}

impl Lxc {
    /// A container with a copy of `image`, which starts what `berth`, running, runs.
    #[track_caller]
    pub(super) fn create(host: &Host, image: &Path, berth: &Berth<'_>) -> Self {
        let dir = host.slot.dir.join("lxc");
        let rootfs = dir.join(NAME).join("rootfs");
        fs::create_dir_all(dir.join(NAME)).expect("make directory");
        Run::new("cp").arg("-a").arg(image).arg(&rootfs).limit(PATIENCE).ok();
        let init = rootfs.join("sbin/bench-init");
        fs::write(&init, init_script(&[command_line(berth, "containerd"), command_line(berth, "dockerd")])).expect("write init");
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("make init executable");
        // The last range of the slot, so that what stays of it is seen and swept with the slot.
        let first = host.slot.ids().1 + 1 - ID_COUNT;
        let config = format!(
            "lxc.uts.name = bench\nlxc.rootfs.path = dir:{}\nlxc.rootfs.options = idmap=container\nlxc.idmap = u 0 {first} {ID_COUNT}\n\
             lxc.idmap = g 0 {first} {ID_COUNT}\nlxc.mount.auto = proc:rw sys:rw cgroup:rw:force\nlxc.init.cmd = /sbin/bench-init\n\
             lxc.signal.halt = SIGTERM\nlxc.apparmor.profile = unconfined\nlxc.tty.max = 0\nlxc.console.path = none\n\
             lxc.net.0.type = veth\nlxc.net.0.veth.pair = {}lx\nlxc.net.0.flags = up\nlxc.net.0.ipv4.address = 198.51.100.2/30\n\
             lxc.net.0.ipv4.gateway = 198.51.100.1\n",
            rootfs.display(),
            host.slot.link_prefix(),
        );
        fs::write(dir.join(NAME).join("config"), config).expect("write the container's config");
        Self { dir, rootfs, pivots: pivots() }
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

    /// Without newuidmap in its path LXC writes the id map itself and asks nothing of /etc/subuid.
    fn tool(&self, name: &str) -> Run {
        Run::new(Path::new("/usr/bin").join(name)).env("PATH", "/usr/sbin:/sbin").arg("-P").arg(&self.dir).args(["-n", NAME])
    }
}

impl Drop for Lxc {
    fn drop(&mut self) {
        // It may be stopped already, which is an error to LXC.
        let _ = self.tool("lxc-stop").arg("-k").output_within();
        for group in pivots().into_iter().filter(|group| !self.pivots.contains(group)) {
            // Stays while another container needs it.
            let _ = fs::remove_dir(group);
        }
    }
}

/// Where LXC's processes wait for the end of a container's groups, in every hierarchy.
fn pivots() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path()).chain([base.to_owned()]);
    hierarchies.map(|hierarchy| hierarchy.join("lxc.pivot")).filter(|group| group.is_dir()).collect()
}

/// PATH set, /run cleared, both daemons side by side: what berth-init does.
fn init_script(daemons: &[Vec<String>; 2]) -> String {
    let [containerd, dockerd] = daemons;
    let mut script =
        String::from("#!/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\nrm -rf /run/*\n");
    for socket in dockerd.iter().filter_map(|word| word.strip_prefix("--host=unix://")) {
        let _ = writeln!(script, "mkdir -p {}", quoted(socket.rsplit_once('/').map_or("/run", |(dir, _)| dir)));
    }
    let line = |words: &Vec<String>| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let _ = writeln!(script, "{} &\nexec {}", line(containerd), line(dockerd));
    script
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// How the berth itself runs a daemon, so that both start the same.
#[track_caller]
fn command_line(berth: &Berth<'_>, name: &str) -> Vec<String> {
    let runs = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    let pid = berth.group_pids("payload").into_iter().find(runs).unwrap_or_else(|| panic!("no {name} runs in the berth"));
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).expect("read a command line");
    without_config(String::from_utf8_lossy(&bytes).split_terminator('\0').map(str::to_owned))
}

/// A configuration that Berth wrote is no peer's: who starts the image otherwise has what the image brings.
fn without_config(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut words = words.peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word == "--config" && words.peek().is_some_and(|file| file.starts_with("/run/berth/")) {
            true => drop(words.next()),
            false => kept.push(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configuration_of_berth_is_left_out() {
        let kept = |text: &str| without_config(text.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(kept("containerd --config /run/berth/c.toml --log-level warn"), "containerd --log-level warn");
        assert_eq!(kept("containerd --config /etc/c.toml --config"), "containerd --config /etc/c.toml --config");
    }

    #[test]
    fn the_script_clears_run_and_starts_both_with_their_own_words() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let script =
            init_script(&[words("/usr/bin/containerd --address /run/c.sock"), words("/usr/sbin/dockerd --host=unix:///run/b/it's/d.sock")]);
        let expected = "rm -rf /run/*\nmkdir -p '/run/b/it'\\''s'\n'/usr/bin/containerd' '--address' '/run/c.sock' &\n\
                        exec '/usr/sbin/dockerd' '--host=unix:///run/b/it'\\''s/d.sock'\n";
        assert!(script.ends_with(expected), "{script}");
    }
}

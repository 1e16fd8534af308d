//! Sessions of host users as on an installation: `/run/berth` is the instance, and the files of `deploy/host` are where deploy/up puts
//! them. All of it lies in a mount namespace of each program's own; the host's files stay as they are.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{account::User, daemon::Daemon, host::Host, programs, run::Run, wait::until};

/// `$0` is the directory with the files, `$1` the run directory of the instance, then the program.
const ENTER: &str = r#"set -e
cd "$0"
mount --bind "$1" run
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/berth "$1" /run/sshd
mount --bind run /run/berth
mount --bind run "$1"
mount --bind profile.d /etc/profile.d
if [ -d /etc/fish/conf.d ]; then mount --bind fish.d /etc/fish/conf.d; fi
if [ -f /etc/pam.d/sshd ]; then mount --bind pam /etc/pam.d/sshd; fi
shift
cd /
exec "$@""#;

/// How sessions of an instance begin.
pub struct Sessions<'h> {
    host: &'h Host,
    dir: PathBuf,
}

impl<'h> Sessions<'h> {
    /// With what deploy/up installs; `pam_env` as with its `--pam-env`.
    #[track_caller]
    pub fn of(host: &'h Host, pam_env: bool) -> Self {
        let dir = host.slot.dir.join(if pam_env { "session-pam" } else { "session" });
        for name in ["run", "profile.d", "fish.d"] {
            fs::create_dir_all(dir.join(name)).expect("make directory");
        }
        let source = programs::repository().join("deploy/host");
        let files = [("profile.sh", "profile.d/berth.sh"), ("login.fish", "fish.d/berth.fish"), ("has-berth", "has-berth")];
        for (from, to) in files.into_iter().chain([("pam_env.conf", "pam_env.conf")]) {
            fs::copy(source.join(from), dir.join(to)).expect("copy a file of deploy/host");
        }
        // `berth` is on the path of whoever logs in.
        let programs = programs::find("berth").parent().expect("a directory").to_path_buf();
        fs::write(dir.join("profile.d/a-path.sh"), format!("PATH={}:$PATH\n", programs.display())).expect("write a-path.sh");
        // The service `sshd` with nothing in it but what pam-auth-update makes of our file.
        let mut pam = "auth required pam_deny.so\naccount required pam_permit.so\nsession required pam_permit.so\n".to_owned();
        if pam_env {
            let config = fs::read_to_string(source.join("pam-config")).expect("read pam-config");
            let (_, lines) = config.split_once("Session:\n").expect("lines for sessions");
            for line in lines.lines() {
                let line = line.trim().replace("/usr/local/lib/berth", dir.to_str().expect("a plain path"));
                let line = line.replace("/usr/local/share/berth", dir.to_str().expect("a plain path"));
                pam.push_str(&format!("session {line}\n"));
            }
        }
        fs::write(dir.join("pam"), pam).expect("write pam");
        Self { host, dir }
    }

    fn enter(&self) -> Vec<PathBuf> {
        let words = ["--mount", "--propagation", "private", "sh", "-c", ENTER];
        words.iter().map(PathBuf::from).chain([self.dir.clone(), self.host.run_dir.clone()]).collect()
    }

    /// A program as `user`, with nothing in its environment but what login(1) sets.
    pub fn run(&self, user: &User, argv: &[&str]) -> Run {
        let client = self.host.cache.as_ref().expect("the instance has images").client();
        Run::new("unshare")
            .args(self.enter())
            .args([
                "setpriv",
                "--reuid",
                &user.uid.to_string(),
                "--regid",
                &user.gid.to_string(),
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ])
            .args(argv)
            .env_clear()
            .env("HOME", &user.home)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name)
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", client.display()))
    }

    /// OpenSSH's server on the host's loopback; `docker` is on the path of whoever logs in.
    #[track_caller]
    pub fn sshd(&self) -> Sshd {
        let port = 42_200 + u16::try_from(self.host.slot.number).expect("a small number");
        let key = self.dir.join("host-key");
        Run::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).ok();
        let client = self.host.cache.as_ref().expect("the instance has images").client();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nUsePAM yes\nPasswordAuthentication no\n\
             AuthorizedKeysFile %h/.ssh/authorized_keys\nStrictModes no\nMaxStartups 100\nSetEnv PATH={}:/usr/bin:/bin\n",
            key.display(),
            client.display(),
        );
        let file = self.dir.join("sshd_config");
        fs::write(&file, config).expect("write sshd_config");
        let mut command = Command::new("unshare");
        command.args(self.enter()).args(["/usr/sbin/sshd", "-D", "-e", "-f"]).arg(&file);
        let daemon = Daemon::start("sshd", &self.host.slot.dir, command);
        until("sshd listens", Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Sshd { port, daemon: Some(daemon) }
    }
}

/// The server; ended when dropped.
pub struct Sshd {
    pub port: u16,
    daemon: Option<Daemon>,
}

impl Sshd {
    /// `from` may log in as `to` from now on.
    #[track_caller]
    pub fn admit(&self, from: &User, to: &User) {
        let ssh = |user: &User| {
            let dir = user.home.join(".ssh");
            fs::create_dir_all(&dir).expect("make directory");
            dir
        };
        let (client, server) = (ssh(from), ssh(to));
        let key = client.join("id_ed25519");
        if !key.exists() {
            Run::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).ok();
        }
        fs::copy(client.join("id_ed25519.pub"), server.join("authorized_keys")).expect("copy the key");
        fs::write(client.join("config"), "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\nBatchMode yes\n")
            .expect("write config");
        for (user, dir) in [(from, &client), (to, &server)] {
            for path in fs::read_dir(dir).expect("list").flatten().map(|e| e.path()).chain([dir.clone()]) {
                let mode = if path.is_dir() { 0o700 } else { 0o600 };
                own(&path, user, mode);
            }
        }
        // An account without any password counts as locked.
        Run::new("usermod").args(["-p", "*", &to.name]).ok();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.stop(Duration::from_secs(5));
        }
    }
}

fn own(path: &Path, user: &User, mode: u32) {
    chown(path, Some(user.uid), Some(user.gid)).expect("give away");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set mode");
}

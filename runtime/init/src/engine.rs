//! How containerd and dockerd of the image are started.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io::{ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{arguments::Arguments, console};

/// The inner socket, where the shim connects.
pub(crate) const DOCKER_SOCKET: &str = "/run/docker.sock";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
/// What Debian's containerd (bookworm to sid) ships there: nobody's choice.
const DEBIANS_CONTAINERD_CONFIG: &str = r#"
version = 2
[plugins]
[plugins."io.containerd.grpc.v1.cri"]
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
"#;
const OUR_CONTAINERD_CONFIG_FILE: &str = "/run/berth/containerd.toml";
/// Used where nobody configured one. What a Docker engine never asks for costs start time and memory: Kubernetes' side (the containerd
/// that dockerd starts itself lacks it too), and snapshotters that need another file system or block devices.
/// Names that a containerd does not know do no harm.
const OUR_CONTAINERD_CONFIG: &str = r#"version = 2
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
"#;
/// More than any real configuration; what is longer counts as unreadable, or as configured.
const MOST_CONFIG: u64 = 1 << 20;

/// A program and its arguments, environment additions included.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) path: String,
    /// What an earlier run may have left, and what would keep the next from starting.
    pub(crate) stale: &'static [&'static str],
}

/// The engine found in an image.
#[derive(Debug)]
pub(crate) struct Programs {
    containerd: PathBuf,
    dockerd: PathBuf,
}

/// Both daemons.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) containerd: Launch,
    pub(crate) dockerd: Launch,
}

/// Looks for both daemons along `path`; the error is a sentence for the user.
pub(crate) fn find(path: &str) -> Result<Programs, String> {
    let search = |name: &str| {
        let found = path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(name)).find(|file| executable(file));
        found.ok_or_else(|| {
            format!("{name} not found in the image; docker does not work in this berth, `berth shell` does. Give it an image with a Docker engine (`berth image build`), or one whose entry point starts its own")
        })
    };
    Ok(Programs { dockerd: search("dockerd")?, containerd: search("containerd")? })
}

fn executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The command lines, by what the image configures itself.
pub(crate) fn launch(programs: Programs, arguments: &Arguments, path: &str) -> Engine {
    let mut containerd = vec!["--address".into(), CONTAINERD_SOCKET.into(), "--log-level".into(), "warn".into()];
    if !configured(Path::new(CONTAINERD_CONFIG)) {
        let file = OUR_CONTAINERD_CONFIG_FILE;
        match fs::write(file, OUR_CONTAINERD_CONFIG) {
            Ok(()) => containerd.extend(["--config".into(), file.into()]),
            Err(error) => console::say(&format!("{file}: {error}; containerd starts with its own defaults")),
        }
    }
    let keys = daemon_json_keys(Path::new(DAEMON_JSON));
    let socket = arguments.docker_socket.display();
    let defaults = [
        format!("--containerd={CONTAINERD_SOCKET}"),
        format!("--host=unix://{DOCKER_SOCKET}"),
        format!("--host=unix://{socket}"),
        "--pidfile=/run/docker.pid".to_owned(),
        "--exec-root=/run/docker".to_owned(),
        "--log-driver=json-file".to_owned(),
        "--log-opt=max-size=10m".to_owned(),
        "--log-opt=max-file=3".to_owned(),
    ];
    let dockerd = dockerd_flags(defaults.iter().chain(&arguments.dockerd_arguments), &keys);
    if keys.contains("hosts") {
        console::say(&format!("{DAEMON_JSON} sets hosts: it must have unix://{DOCKER_SOCKET}, where this berth's socket leads"));
        // The user's path must lead to the engine here too, though dockerd does not listen on it.
        let _ = std::os::unix::fs::symlink(DOCKER_SOCKET, &arguments.docker_socket);
    }
    Engine {
        containerd: Launch {
            name: "containerd",
            program: programs.containerd,
            arguments: containerd,
            path: path.to_owned(),
            stale: &["/run/containerd/containerd.pid"],
        },
        dockerd: Launch {
            name: "dockerd",
            program: programs.dockerd,
            arguments: dockerd.into_iter().map(Into::into).collect(),
            path: path.to_owned(),
            stale: &["/run/docker.pid", "/var/run/docker.pid"],
        },
    }
}

/// Whether somebody wrote this configuration of containerd; what cannot be read is containerd's to complain about.
fn configured(file: &Path) -> bool {
    let read = |file: File| {
        let mut text = String::new();
        file.take(MOST_CONFIG).read_to_string(&mut text).map(|_| text)
    };
    match File::open(file).and_then(read) {
        Ok(text) => !lines(&text).eq(lines(DEBIANS_CONTAINERD_CONFIG)),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// What a configuration says, line by line.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// The flags that daemon.json does not settle already: dockerd refuses to start with a setting in both places.
fn dockerd_flags<'a>(flags: impl Iterator<Item = &'a String>, keys: &BTreeSet<String>) -> Vec<String> {
    flags.filter(|flag| !settled(flag, keys)).cloned().collect()
}

/// A list's key is the plural of its flag (`hosts` and `--host`). The options of one log driver are an error for another.
fn settled(flag: &str, keys: &BTreeSet<String>) -> bool {
    let name = flag.trim_start_matches('-').split(['=', ' ']).next().unwrap_or_default();
    let plural = match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{name}s"),
    };
    let logging = name.starts_with("log-") && name != "log-level" && name != "log-format";
    keys.contains(name) || keys.contains(&plural) || (logging && (keys.contains("log-driver") || keys.contains("log-opts")))
}

/// The top-level keys; none when there is no such file. One that dockerd will refuse is dockerd's to complain about.
fn daemon_json_keys(file: &Path) -> BTreeSet<String> {
    let mut text = Vec::new();
    let Ok(handle) = File::open(file) else { return BTreeSet::new() };
    match handle.take(MOST_CONFIG).read_to_end(&mut text).map_err(|e| e.to_string()).and_then(|_| keys(&text)) {
        Ok(keys) => keys,
        Err(reason) => {
            console::say(&format!("{}: {reason}", file.display()));
            BTreeSet::new()
        }
    }
}

fn keys(json: &[u8]) -> Result<BTreeSet<String>, String> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(map)) => Ok(map.into_iter().map(|(key, _)| key).collect()),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(flags: &[&str], json: &str) -> Vec<String> {
        let flags: Vec<String> = flags.iter().map(|&f| f.to_owned()).collect();
        dockerd_flags(flags.iter(), &keys(json.as_bytes()).unwrap())
    }

    #[test]
    fn a_key_of_daemon_json_takes_the_place_of_our_flag() {
        let flags = [
            "--host=unix:///a",
            "--host=unix:///b",
            "--default-address-pool=base=10.0.0.0/16,size=24",
            "--registry-mirror=http://m",
            "--bip=10.0.0.1/24",
        ];
        assert_eq!(left(&flags, "{}"), flags);
        assert_eq!(left(&flags, r#"{"hosts": ["unix:///x"]}"#), flags[2..]);
        assert_eq!(left(&flags, r#"{"default-address-pools": []}"#), [&flags[..2], &flags[3..]].concat());
        assert_eq!(left(&flags, r#"{"bip": "10.9.0.1/24", "registry-mirrors": []}"#), flags[..3]);
        let insecure = ["--insecure-registry=r"];
        assert_eq!(left(&insecure, r#"{"insecure-registries": ["r"]}"#), [""; 0]);
    }

    #[test]
    fn options_of_our_log_driver_do_not_meet_another_driver() {
        let flags = ["--log-driver=json-file", "--log-opt=max-size=10m", "--log-level=warn"];
        assert_eq!(left(&flags, r#"{"log-driver": "journald"}"#), flags[2..]);
        assert_eq!(left(&flags, r#"{"log-opts": {"max-size": "1m"}}"#), flags[2..]);
        assert_eq!(left(&flags, r#"{"debug": true}"#), flags);
    }

    #[test]
    fn a_broken_daemon_json_settles_nothing() {
        assert!(keys(b"{").is_err() && keys(b"[]").is_err());
        let dir = tempfile::tempdir().unwrap();
        assert!(daemon_json_keys(&dir.path().join("daemon.json")).is_empty());
    }

    #[test]
    fn what_somebody_wrote_for_containerd_is_heeded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        assert!(!configured(&file));
        let shipped = "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      \
                       bin_dir = \"/usr/lib/cni\"\n      conf_dir = \"/etc/cni/net.d\"\n  [plugins.\"io.containerd.internal.v1.opt\"]\n    \
                       path = \"/var/lib/containerd/opt\"\n";
        fs::write(&file, shipped).unwrap();
        assert!(!configured(&file));
        for own in
            [shipped.replace("/usr/lib/cni", "/opt/cni"), format!("{shipped}[debug]\n"), String::new(), "disabled_plugins = []".into()]
        {
            fs::write(&file, own).unwrap();
            assert!(configured(&file));
        }
        fs::write(&file, b"\xff").unwrap();
        assert!(configured(&file));
    }

    #[test]
    fn a_missing_engine_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(dir.path().to_str().unwrap()).unwrap_err().starts_with("dockerd not found in the image; "));
    }
}

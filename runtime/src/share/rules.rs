//! Which paths of the host may appear inside at all. Pure.

use std::path::{Component, Path};

/// Trees that a berth has of its own, or that no tenant is to be near: neither they, nor what lies above or below them.
const OWN: [&str; 19] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/boot",
    "/root",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/berth",
    "/var/log/berth",
];
/// Longest path in bytes: it is a mount point, and goes through messages.
const LONGEST: usize = 1024;

/// Why `path` is not for a berth, if so: a sentence.
pub fn refusal(path: &Path) -> Option<String> {
    let text = path.to_str().filter(|t| t.len() <= LONGEST && !t.chars().any(char::is_control));
    let Some(text) = text else { return Some(format!("its name is longer than {LONGEST} bytes, or not printable")) };
    let clean = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    // `components` passes over `//` and `/./`, which would be other names for the same place.
    if !clean || !text.starts_with('/') || path.components().collect::<std::path::PathBuf>().to_str() != Some(text) {
        return Some("it is not an absolute path without . and .. and doubled slashes".into());
    }
    let near = OWN.iter().find(|own| path.starts_with(own) || Path::new(own).starts_with(path))?;
    Some(format!("a berth has {near} of its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h02_what_would_cover_the_berths_own_world_is_refused_by_name() {
        for path in ["/home/alice", "/srv/data", "/data", "/mnt/x", "/usrlocal", "/var/lib/postgresql", "/opt/räume", "/tmp/x"] {
            assert_eq!(refusal(Path::new(path)), None, "{path}");
        }
        for path in [
            "/",
            "/proc",
            "/proc/1",
            "/usr/local/share",
            "/var",
            "/var/lib",
            "/var/lib/docker/x",
            "/etc/x",
            "/root",
            "/run/user/1000",
            "/lib64",
            "/dev/shm",
            "/boot",
            "/var/run/x",
        ] {
            assert!(refusal(Path::new(path)).is_some_and(|r| r.contains("of its own")), "{path}");
        }
        let long = format!("/{}", "x".repeat(1024));
        for path in ["home", "", "/home/../etc", "/home/./a", "/home//a", "/home/a/", "/home/a\n", long.as_str()] {
            assert!(refusal(Path::new(path)).is_some(), "{path}");
        }
    }
}

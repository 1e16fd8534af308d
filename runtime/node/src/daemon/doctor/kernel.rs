//! What the kernel must be able to do, tried.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

use berth_protocol::Check;
use berth_runtime::error::chain;

use super::{Scratch, failed, first_line, ok, warning};
use crate::daemon::host::Host;

pub(super) fn checks(host: &Host) -> Vec<Check> {
    vec![release(), user_namespaces(), overlay(host), id_mapped(host), control_groups(host), loop_devices(), fuse()]
}

/// Id-mapped overlay layers came with 5.19.
const LEAST: (u32, u32) = (5, 19);

fn release() -> Check {
    let names = rustix::system::uname();
    let release = names.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= LEAST => ok("kernel", release),
        _ => failed(
            "kernel",
            format!("{release} is older than {}.{}", LEAST.0, LEAST.1),
            "boot a newer kernel (Debian 12 and later have one)",
        ),
    }
}

/// In a process of its own: this one has threads.
fn unshared(script: &str, dir: &std::path::Path) -> Result<(), String> {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork", "sh", "-ec", script])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("unshare (package util-linux): {e}"))?;
    if output.status.success() { Ok(()) } else { Err(first_line(&output.stderr)) }
}

fn user_namespaces() -> Check {
    match unshared("true", "/".as_ref()) {
        Ok(()) => ok("namespaces", "a user namespace with all others in it can be made"),
        Err(why) => failed(
            "namespaces",
            why,
            "allow them: sysctl user.max_user_namespaces (above 0), and no kernel.apparmor_restrict_unprivileged_userns",
        ),
    }
}

fn overlay(host: &Host) -> Check {
    let dir = host.layout.node_dir().join("doctor");
    let scratch = Scratch(&dir);
    let made = ["", "l", "u", "w", "m"].iter().try_for_each(|name| match fs::create_dir(dir.join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)),
    });
    let mounted = made.map_err(|e| e.to_string()).and_then(|()| {
        unshared("mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr overlay m && echo x > m/x && test -e u/x", scratch.0)
    });
    match mounted {
        Ok(()) => ok("overlay", "overlay in a user namespace works"),
        Err(why) => {
            failed("overlay", format!("overlay in a user namespace: {why}"), "modprobe overlay; state_dir must be on ext4, XFS or btrfs")
        }
    }
}

/// In a process of its own: only a single-threaded one may make the user namespace.
fn id_mapped(host: &Host) -> Check {
    let images = host.layout.images();
    let tried = Command::new(host.layout.shim_program()).arg("try-idmap").arg(&images).arg(host.config.ids.first.to_string()).output();
    let why = match tried {
        Ok(output) if output.status.success() => return ok("id-mapped mounts", format!("{} takes an id map", images.display())),
        Ok(output) => first_line(&output.stderr),
        Err(error) => format!("{}: {error}", host.layout.shim_program().display()),
    };
    failed("id-mapped mounts", why, "put state_dir on ext4, XFS or btrfs, under Linux 5.19 or later")
}

/// The controllers, and what tracking and killing go by.
fn control_groups(host: &Host) -> Check {
    let kind = if host.hierarchy.hybrid() { "hybrid" } else { "v2" };
    let tried = if host.hierarchy.hybrid() { limits_v1(host) } else { limits_v2(host) };
    match tried.and_then(|()| kill_file(host)) {
        Ok(()) => ok("control groups", format!("{kind}: limits for cpu, memory and pids can be set, groups can be killed")),
        Err(why) => {
            let fix =
                "cpu, memory and pids must be enabled (kernel command line, and whoever mounts /sys/fs/cgroup), on Linux 5.14 or later";
            failed("control groups", format!("{kind}: {why}"), fix)
        }
    }
}

fn limits_v2(host: &Host) -> Result<(), String> {
    let have = host.hierarchy.controllers().map_err(|e| chain(&e))?;
    let missing: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|c| !have.iter().any(|h| h == c)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("no controller {}", missing.join(", "))) }
}

/// Sets each limit on a group of its own, which is gone again afterwards.
fn limits_v1(host: &Host) -> Result<(), String> {
    for (file, value) in [("cpu.cfs_quota_us", "100000"), ("memory.limit_in_bytes", "67108864"), ("pids.max", "64")] {
        let groups = host.hierarchy.v1.iter().map(|h| h.mount.join(host.group_parent()).join("doctor"));
        let mut tried = Err(format!("no hierarchy has {file}"));
        for group in groups {
            fs::create_dir_all(&group).map_err(|e| format!("{}: {e}", group.display()))?;
            if group.join(file).exists() {
                tried = fs::write(group.join(file), value).map_err(|e| format!("{}: {e}", group.join(file).display()));
            }
            let _ = fs::remove_dir(&group);
        }
        tried?;
    }
    Ok(())
}

/// `cgroup.kill` is where any group but the root is; this process is in one, or may make one.
fn kill_file(host: &Host) -> Result<(), String> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let own = text.lines().find_map(|l| l.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let (dir, made) = match own.as_str() {
        "" => (host.hierarchy.unified.join(host.group_parent()).join("doctor"), true),
        own => (host.hierarchy.unified.join(own), false),
    };
    if made {
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    let there = dir.join("cgroup.kill").exists();
    if made {
        let _ = fs::remove_dir(&dir);
    }
    if there { Ok(()) } else { Err(format!("{} has no cgroup.kill", dir.display())) }
}

fn loop_devices() -> Check {
    // Without it losetup looks through what is in /dev, and finds what nobody can attach to.
    const CONTROL: &str = "/dev/loop-control";
    if fs::metadata(CONTROL).map_or(0, |m| m.rdev()) != rustix::fs::makedev(10, 237) {
        return failed("loop devices", format!("{CONTROL} is not the loop driver's: no loop device can be attached"), "modprobe loop");
    }
    match Command::new("losetup").arg("--find").output() {
        Ok(output) if output.status.success() => ok("loop devices", format!("{} is free", String::from_utf8_lossy(&output.stdout).trim())),
        Ok(output) => failed("loop devices", first_line(&output.stderr), "modprobe loop"),
        Err(error) => failed("loop devices", format!("losetup: {error}"), "apt-get install util-linux mount"),
    }
}

/// Berths start without it, and their `/proc` shows the host's figures then.
fn fuse() -> Check {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => ok("fuse", "/proc of a berth shows its quota"),
        Err(error) => warning(
            "fuse",
            format!("/dev/fuse: {error}: free, top and the like show this host's figures inside berths"),
            "modprobe fuse, then restart the berths",
        ),
    }
}

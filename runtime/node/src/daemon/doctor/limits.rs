//! What the host lacks for quotas, and which of its own limits are low. Berths run without any of it, so nothing here fails.

use std::path::{Path, PathBuf};

use berth_protocol::Check;
use berth_runtime::{cgroup, error::chain};

use super::{ok, warning};
use crate::daemon::host::Host;

pub(super) fn checks(host: &Host) -> Vec<Check> {
    vec![io(host), swap(host), throttle(host), reclaim(host), pressure(host), tuned(host)]
}

/// The place of a file in some group but the root, on whichever hierarchy has it. The kernel has a file in all such groups or in none.
fn anywhere(host: &Host, name: &str) -> Option<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().filter_map(|line| Some(line.splitn(3, ':').nth(2)?.trim_start_matches('/').to_owned()));
    let groups: Vec<PathBuf> = own.map(PathBuf::from).chain([host.group_parent(), "init.scope".into(), PathBuf::new()]).collect();
    let mounts = host.hierarchy.v1.iter().map(|h| &h.mount).chain([&host.hierarchy.unified]);
    mounts.flat_map(|mount| groups.iter().map(|group| mount.join(group).join(name))).find(|file| file.exists())
}

fn io(host: &Host) -> Check {
    let there = match host.hierarchy.hybrid() {
        true => anywhere(host, "blkio.throttle.read_bps_device").is_some(),
        false => host.hierarchy.controllers().is_ok_and(|have| have.iter().any(|c| c == "io")),
    };
    let fix = "boot a kernel with CONFIG_BLK_CGROUP and CONFIG_BLK_DEV_THROTTLING (Debian's have both), without cgroup_disable=io or blkio";
    match (there, host.hierarchy.hybrid()) {
        (true, false) => ok("I/O limits", "the io controller is there"),
        (true, true) => {
            let fix = "boot with systemd.unified_cgroup_hierarchy=1 (cgroup v2): buffered writes come under I/O limits only there";
            warning("I/O limits", "the blkio controller of cgroup v1 limits reads and direct writes, not buffered ones", fix)
        }
        (false, _) => warning("I/O limits", "no controller for block devices: berths with I/O limits do not start", fix),
    }
}

fn swap(host: &Host) -> Check {
    if anywhere(host, "memory.swap.max").or_else(|| anywhere(host, "memory.memsw.limit_in_bytes")).is_some() {
        return ok("swap accounting", "a berth has no swap but what its quota gives");
    }
    let fix = "boot with swapaccount=1, or a kernel with CONFIG_SWAP and CONFIG_MEMCG; or swapoff -a";
    match cgroup::swap_exists() {
        false => ok("swap accounting", "none, and this host has no swap"),
        true => warning("swap accounting", "none: berths may fill the host's swap beyond their memory", fix),
    }
}

fn throttle(host: &Host) -> Check {
    if anywhere(host, "memory.high").is_some() {
        return ok("memory throttling", "memory_high slows a berth down before its limit kills");
    }
    let fix = "boot with systemd.unified_cgroup_hierarchy=1 (cgroup v2)";
    warning("memory throttling", "cgroup v1 has none: memory_high is a hint that the kernel heeds when the host is short of memory", fix)
}

fn reclaim(host: &Host) -> Check {
    if anywhere(host, "memory.reclaim").or_else(|| anywhere(host, "memory.force_empty")).is_some() {
        return ok("memory reclaim", "memory of sleeping berths can be taken back");
    }
    warning("memory reclaim", "this kernel has no memory.reclaim: sleeping berths keep their memory", "boot Linux 5.19 or later")
}

fn pressure(host: &Host) -> Check {
    let parts = ["cpu.pressure", "memory.pressure", "io.pressure"];
    if Path::new("/proc/pressure/cpu").exists() && parts.iter().all(|part| anywhere(host, part).is_some()) {
        return ok("pressure", "the kernel tells how much berths wait (PSI)");
    }
    warning("pressure", "no pressure stall information: berth top shows none", "boot with psi=1")
}

/// Values of ours are shown with what they were.
fn tuned(host: &Host) -> Check {
    let seen = match host.tuned() {
        Ok(seen) => seen,
        Err(error) => return warning("host limits", chain(&error), "look at /run/berth-tuning"),
    };
    let low: Vec<_> = seen.iter().filter(|s| s.now.is_some_and(|now| now < s.least)).collect();
    let told = |s: &berth_runtime::tuning::Seen| {
        let now = s.now.map_or_else(|| "not in this kernel".to_owned(), |now| now.to_string());
        match s.former {
            Some(former) => format!("{} {now} (raised from {former})", s.name),
            None => format!("{} {now}", s.name),
        }
    };
    if low.is_empty() {
        return ok("host limits", seen.iter().map(told).collect::<Vec<_>>().join(", "));
    }
    let detail = low.iter().map(|s| format!("{}, {} are better for a host of this size", told(s), s.least)).collect::<Vec<_>>().join("; ");
    let set = low.iter().map(|s| format!("{}={}", s.name, s.least)).collect::<Vec<_>>().join(" ");
    warning("host limits", detail, format!("sysctl -w {set} (and in /etc/sysctl.d for the next boot); or tune_host = true in node.toml"))
}

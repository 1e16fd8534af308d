use std::{fs, os::unix::fs::chown, path::Path};

use super::{Limits, Usage, read_number, write};
use crate::error::{Result, Step};

const PERIOD_USEC: u64 = 100_000;

pub(super) fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).step("make", dir.display())
}

/// Enables all controllers of the host on the way from the root down to `path`, for its children.
pub(super) fn enable(root: &Path, path: &Path) -> Result<()> {
    let mut dir = root.to_path_buf();
    enable_controllers(&dir)?;
    for name in path.components() {
        dir.push(name);
        enable_controllers(&dir)?;
    }
    Ok(())
}

fn enable_controllers(dir: &Path) -> Result<()> {
    let have = fs::read_to_string(dir.join("cgroup.controllers")).step("read", dir.display())?;
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).step("read", dir.display())?;
    for controller in have.split_whitespace() {
        // One write each: a controller that cannot be delegated (rdma, misc) must not take the others down.
        if !enabled.split_whitespace().any(|e| e == controller) {
            let done = write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"));
            if ["cpu", "memory", "pids"].contains(&controller) {
                done?;
            }
        }
    }
    Ok(())
}

pub(super) fn apply(dir: &Path, limits: &Limits) -> Result<()> {
    write(&dir.join("cpu.max"), &format!("{} {PERIOD_USEC}", u64::from(limits.cpu_millis) * PERIOD_USEC / 1000))?;
    write(&dir.join("memory.max"), &limits.memory_bytes.to_string())?;
    // Without this a berth on a host with swap would have its memory twice.
    if dir.join("memory.swap.max").exists() {
        write(&dir.join("memory.swap.max"), "0")?;
    }
    write(&dir.join("pids.max"), &limits.pids.to_string())
}

/// cgroups(7), "Cgroups delegation": the directory and these files, never the limits.
pub(super) fn delegate(dir: &Path, owner: u32) -> Result<()> {
    chown(dir, Some(owner), Some(owner)).step("hand over", dir.display())?;
    for name in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        let file = dir.join(name);
        if file.exists() {
            chown(&file, Some(owner), Some(owner)).step("hand over", file.display())?;
        }
    }
    Ok(())
}

pub(super) fn usage(dir: &Path) -> Result<Usage> {
    let stat = dir.join("cpu.stat");
    let text = fs::read_to_string(&stat).step("read", stat.display())?;
    let cpu_usec = text.lines().find_map(|l| l.strip_prefix("usage_usec ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    Ok(Usage { memory_bytes: read_number(&dir.join("memory.current"))?, pids: read_number(&dir.join("pids.current"))?, cpu_usec })
}

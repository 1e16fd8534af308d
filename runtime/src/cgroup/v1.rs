use std::{fs, io::ErrorKind, os::unix::fs::chown, path::Path};

use super::{Group, Limits, Part, Usage, V1, read_number, write};
use crate::error::{Result, Step};

const PERIOD_USEC: u64 = 100_000;

/// Makes the directory of one half in one hierarchy; a cpuset must be given its cpus and memory nodes before it takes a process.
pub(super) fn make(hierarchy: &V1, path: &Path, part: Part) -> Result<()> {
    let mut dir = hierarchy.mount.clone();
    for name in path.join(part.name()).components() {
        let parent = dir.clone();
        dir.push(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            done => done.step("make", dir.display())?,
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if parent.join(file).exists() && fs::read_to_string(dir.join(file)).is_ok_and(|t| t.trim().is_empty()) {
                let text = fs::read_to_string(parent.join(file)).step("read", parent.join(file).display())?;
                write(&dir.join(file), text.trim())?;
            }
        }
        if dir.join("cgroup.clone_children").exists() {
            write(&dir.join("cgroup.clone_children"), "1")?;
        }
    }
    Ok(())
}

pub(super) fn apply(group: &Group, limits: &Limits) -> Result<()> {
    apply_part(group, Part::Payload, limits)
}

pub(super) fn apply_part(group: &Group, part: Part, limits: &Limits) -> Result<()> {
    let file = |name: &str| {
        group
            .hierarchy
            .v1
            .iter()
            .map(|h| group.below(h, part).join(name))
            .find(|f| f.exists())
            .ok_or_else(|| crate::Error::Invalid(format!("no cgroup hierarchy of this host has {name}: its controller is not mounted")))
    };
    write(&file("cpu.cfs_period_us")?, &PERIOD_USEC.to_string())?;
    write(&file("cpu.cfs_quota_us")?, &(u64::from(limits.cpu_millis) * PERIOD_USEC / 1000).to_string())?;
    set_memory(&file("memory.limit_in_bytes")?, file("memory.memsw.limit_in_bytes").ok().as_deref(), limits.memory_bytes)?;
    write(&file("pids.max")?, &limits.pids.to_string())
}

/// The limit with swap may never be below the one without: the order depends on the direction.
fn set_memory(memory: &Path, with_swap: Option<&Path>, bytes: u64) -> Result<()> {
    let text = bytes.to_string();
    let Some(with_swap) = with_swap else { return write(memory, &text) };
    let order = if bytes > read_number(with_swap)? { [with_swap, memory] } else { [memory, with_swap] };
    order.into_iter().try_for_each(|file| write(file, &text))
}

/// The directory and the membership files, never the limits.
pub(super) fn delegate(dir: &Path, owner: u32) -> Result<()> {
    for file in [dir.to_path_buf(), dir.join("cgroup.procs"), dir.join("tasks")] {
        chown(&file, Some(owner), Some(owner)).step("hand over", file.display())?;
    }
    Ok(())
}

pub(super) fn usage(group: &Group) -> Result<Usage> {
    let read = |name: &str| {
        let found = group.hierarchy.v1.iter().map(|h| group.below(h, Part::Payload).join(name)).find(|f| f.exists());
        found.map_or(Ok(0), |f| read_number(&f))
    };
    Ok(Usage { memory_bytes: read("memory.usage_in_bytes")?, pids: read("pids.current")?, cpu_usec: read("cpuacct.usage")? / 1000 })
}

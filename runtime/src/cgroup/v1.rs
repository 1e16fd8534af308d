//! Version 1 hierarchies of hybrid hosts: limits only.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use super::{
    Group, Part, V1,
    devices::Device,
    limits::{For, Io, Limits, device_gone, reason, refused},
    usage::{IoUsage, Usage, keyed, moved, read, read_number, read_number_if_there},
    write,
};
use crate::error::{Error, Refused, Result, Step};

const PERIOD_USEC: u64 = 100_000;
/// Groups of a tenant that are looked at, whatever he makes.
const MOST_GROUPS: usize = 4096;
/// What `memory.soft_limit_in_bytes` takes for "none".
const NO_LIMIT: &str = "-1";
/// The figure of one limit, and its file.
type Throttle = (&'static str, &'static str, fn(&Io) -> Option<u64>);
const THROTTLES: [Throttle; 4] = [
    ("io_read_bps", "blkio.throttle.read_bps_device", |io| io.read_bps),
    ("io_write_bps", "blkio.throttle.write_bps_device", |io| io.write_bps),
    ("io_read_iops", "blkio.throttle.read_iops_device", |io| io.read_iops),
    ("io_write_iops", "blkio.throttle.write_iops_device", |io| io.write_iops),
];

/// Makes the directory of one half in one hierarchy; a cpuset must be given its cpus and memory nodes before it takes a process.
pub(super) fn make(hierarchy: &V1, path: &Path, part: Part) -> Result<()> {
    let leaf = hierarchy.mount.join(path).join(part.name());
    if !hierarchy.options.split(',').any(|option| option == "cpuset") {
        return fs::create_dir_all(&leaf).step("make", leaf.display());
    }
    let mut dir = hierarchy.mount.clone();
    for name in path.join(part.name()).components() {
        let parent = dir.clone();
        dir.push(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            done => done.step("make", dir.display())?,
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(file)).is_ok_and(|t| t.trim().is_empty()) {
                let text = fs::read_to_string(parent.join(file)).step("read", parent.join(file).display())?;
                write(&dir.join(file), text.trim())?;
            }
        }
        // Groups that the tenant makes have the same; no other controller knows this.
        write(&dir.join("cgroup.clone_children"), "1")?;
    }
    Ok(())
}

pub(super) fn apply(group: &Group, limits: &Limits) -> Result<(), Refused> {
    apply_part(group, Part::Payload, limits)?;
    // Between berths, so at the group that holds both halves.
    let shares = u64::from(limits.cpu_weight) * 1024 / 100;
    let file = group.hierarchy.v1.iter().map(|h| h.mount.join(&group.path).join("cpu.shares")).find(|f| f.exists());
    file.map_or(Ok(()), |file| write(&file, &shares.clamp(2, 262_144).to_string())).limit("cpu_weight", limits.cpu_weight)?;
    high(group, limits.memory_high_bytes)
}

pub(super) fn apply_part(group: &Group, part: Part, limits: &Limits) -> Result<(), Refused> {
    let file = |name: &str| there(group, part, name);
    let quota = u64::from(limits.cpu_millis) * PERIOD_USEC / 1000;
    file("cpu.cfs_period_us").and_then(|f| write(&f, &PERIOD_USEC.to_string())).limit("cpu_millis", limits.cpu_millis)?;
    file("cpu.cfs_quota_us").and_then(|f| write(&f, &quota.to_string())).limit("cpu_millis", limits.cpu_millis).map_err(|why| {
        // A group below has more: the kernel wants every quota to hold in the one above.
        let used = (reason(&why.source) == Some(ErrorKind::InvalidInput)).then(|| largest_quota(group)).flatten();
        Refused { used: used.map(|usec| usec * 1000 / PERIOD_USEC), ..why }
    })?;
    let memory = file("memory.limit_in_bytes").limit("memory_bytes", limits.memory_bytes)?;
    set_memory(&memory, file("memory.memsw.limit_in_bytes").ok().as_deref(), limits)?;
    file("pids.max").and_then(|f| write(&f, &limits.pids.to_string())).limit("pids", limits.pids)
}

fn there(group: &Group, part: Part, name: &str) -> Result<PathBuf> {
    let found = group.hierarchy.v1.iter().map(|h| group.below(h, part).join(name)).find(|f| f.exists());
    found.ok_or_else(|| Error::Invalid(format!("no cgroup hierarchy of this host has {name}: its controller is not mounted")))
}

/// The limit with swap may never be below the one without: the order depends on the direction. What cannot be taken back is EBUSY.
fn set_memory(memory: &Path, with_swap: Option<&Path>, limits: &Limits) -> Result<(), Refused> {
    let bytes = limits.memory_bytes;
    let set = |file: &Path, bytes: u64| write(file, &bytes.to_string());
    let figure = |why: Refused| {
        let busy = reason(&why.source) == Some(ErrorKind::ResourceBusy);
        let used = busy.then(|| read_number_if_there(&memory.with_file_name("memory.usage_in_bytes")));
        Refused { used, ..why }
    };
    let Some(with_swap) = with_swap else { return set(memory, bytes).limit("memory_bytes", bytes).map_err(figure) };
    let both = bytes.saturating_add(limits.swap_bytes);
    let raise = bytes > read_number(with_swap).limit("swap_bytes", limits.swap_bytes)?;
    if raise {
        set(with_swap, both).limit("swap_bytes", limits.swap_bytes)?;
    }
    set(memory, bytes).limit("memory_bytes", bytes).map_err(figure)?;
    // What the memory alone allows may be too much together with what is swapped out already.
    if raise { Ok(()) } else { set(with_swap, both).limit("memory_bytes", bytes).map_err(figure) }
}

/// Written only where it says something: the kernel warns of its use.
fn high(group: &Group, bytes: Option<u64>) -> Result<(), Refused> {
    let Ok(file) = there(group, Part::Payload, "memory.soft_limit_in_bytes") else { return Ok(()) };
    let set = read_number_if_there(&file) < i64::MAX as u64 / 2;
    match bytes {
        Some(bytes) => write(&file, &bytes.to_string()).limit("memory_high_bytes", bytes),
        None if set => write(&file, NO_LIMIT).limit("memory_high_bytes", 0_u64),
        None => Ok(()),
    }
}

/// Every group of the payload in the hierarchy that has `name`, the payload first. What a tenant makes meanwhile is not in it.
fn groups(group: &Group, name: &str) -> Vec<PathBuf> {
    let Ok(file) = there(group, Part::Payload, name) else { return Vec::new() };
    let mut found: Vec<PathBuf> = file.parent().map(Path::to_path_buf).into_iter().collect();
    let mut next = 0;
    while next < found.len() && found.len() < MOST_GROUPS {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        found.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        next += 1;
    }
    found.truncate(MOST_GROUPS);
    found
}

fn largest_quota(group: &Group) -> Option<u64> {
    let below = groups(group, "cpu.cfs_quota_us").into_iter().skip(1);
    let scaled = below.filter_map(|dir| {
        let quota = read_number(&dir.join("cpu.cfs_quota_us")).ok()?;
        let period = read_number(&dir.join("cpu.cfs_period_us")).ok().filter(|&p| p > 0)?;
        Some(quota.saturating_mul(PERIOD_USEC) / period)
    });
    scaled.max()
}

/// Each group of version 1 has its rates by itself, wherever it stands. So a berth with I/O limits is not given this hierarchy: all its
/// processes stay in the payload's group. One that was started without limits has it, and its groups are given the same rates each.
pub(super) fn set_io(group: &Group, io: &Io, devices: &[Device]) -> Result<(), Refused> {
    let first = THROTTLES.iter().find_map(|(field, _, figure)| figure(io).map(|value| (*field, value)));
    let dirs = groups(group, THROTTLES[0].1);
    if let (true, Some((field, value))) = (dirs.is_empty(), first) {
        let why = "no cgroup hierarchy of this host has blkio.throttle: the kernel needs CONFIG_BLK_DEV_THROTTLING, and blkio mounted";
        return Err(refused(field, value, Error::Invalid(why.into())));
    }
    for (field, name, figure) in THROTTLES {
        let value = figure(io).unwrap_or(0);
        for (number, dir) in dirs.iter().enumerate() {
            for device in devices {
                match write(&dir.join(name), &format!("{device} {value}")) {
                    Err(error) if device_gone(&error) => {}
                    // A group of the tenant's that went meanwhile.
                    Err(error) if number > 0 && reason(&error) == Some(ErrorKind::NotFound) => {}
                    done => done.limit(field, value)?,
                }
            }
        }
    }
    Ok(())
}

/// The hierarchy in which I/O is limited.
pub(super) fn is_blkio(hierarchy: &V1) -> bool {
    hierarchy.options.split(',').any(|option| option == "blkio")
}

/// Whether the container's root may make groups there.
pub(super) fn io_delegated(group: &Group) -> bool {
    let dirs = group.hierarchy.v1.iter().filter(|h| is_blkio(h)).map(|h| group.below(h, Part::Payload));
    dirs.into_iter().any(|dir| fs::metadata(dir).is_ok_and(|m| m.uid() != 0))
}

/// The directory and the membership files, never the limits.
pub(super) fn delegate(dir: &Path, owner: u32) -> Result<()> {
    for file in [dir.to_path_buf(), dir.join("cgroup.procs"), dir.join("tasks")] {
        chown(&file, Some(owner), Some(owner)).step("hand over", file.display())?;
    }
    Ok(())
}

pub(super) fn usage(group: &Group) -> Result<Usage> {
    let text = |name: &str| there(group, Part::Payload, name).and_then(|f| read(&f)).unwrap_or_default();
    let number = |name: &str| there(group, Part::Payload, name).map_or(0, |f| read_number_if_there(&f));
    let memory_bytes = number("memory.usage_in_bytes");
    let bytes = figures(&text("blkio.throttle.io_service_bytes_recursive"));
    let ops = figures(&text("blkio.throttle.io_serviced_recursive"));
    let of = |list: &[(Device, u64, u64)], device| list.iter().find(|(d, ..)| *d == device).map_or((0, 0), |(_, r, w)| (*r, *w));
    let io: Vec<(Device, IoUsage)> = bytes
        .iter()
        .map(|&(device, read_bytes, write_bytes)| {
            let (read_ops, write_ops) = of(&ops, device);
            (device, IoUsage { read_bytes, write_bytes, read_ops, write_ops })
        })
        .collect();
    // Version 1 counts a kill only at the group of the killed.
    let oom_kills = groups(group, "memory.oom_control").into_iter().map(|d| read(&d.join("memory.oom_control")).unwrap_or_default());
    Ok(Usage {
        memory_bytes,
        swap_bytes: number("memory.memsw.usage_in_bytes").saturating_sub(memory_bytes),
        pids: number("pids.current"),
        cpu_usec: number("cpuacct.usage") / 1000,
        throttled_usec: keyed(&text("cpu.stat"), "throttled_time") / 1000,
        oom_kills: oom_kills.map(|text| keyed(&text, "oom_kill")).sum(),
        io: moved(&io),
        pressure: None,
    })
}

/// `8:0 Read 17`, `8:0 Write 4`, …: device, read, written.
fn figures(text: &str) -> Vec<(Device, u64, u64)> {
    let mut found: Vec<(Device, u64, u64)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(kind), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
        let (Ok(device), Ok(value)) = (device.parse::<Device>(), value.parse::<u64>()) else { continue };
        if found.last().is_none_or(|(last, ..)| *last != device) {
            found.push((device, 0, 0));
        }
        let Some((_, read, written)) = found.last_mut() else { continue };
        match kind {
            "Read" => *read = value,
            "Write" => *written = value,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_devices_are_kept_apart() {
        let text = "254:0 Read 126976\n254:0 Write 570327040\n254:0 Sync 3\n254:0 Total 5\n7:0 Read 1\n7:0 Write 2\nTotal 1140805632\n";
        let device = |major| Device { major, minor: 0 };
        assert_eq!(figures(text), [(device(254), 126_976, 570_327_040), (device(7), 1, 2)]);
    }
}

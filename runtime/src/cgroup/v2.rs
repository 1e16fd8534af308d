//! The cgroup2 hierarchy where it has the controllers.

use std::{fs, os::unix::fs::chown, path::Path};

use super::{
    Group, Part, SWAP,
    devices::Device,
    limits::{For, Io, Limits, device_gone, refused},
    usage::{IoUsage, Usage, keyed, moved, read, read_number, read_number_if_there},
    write,
};
use crate::error::{Error, Refused, Result, Step};

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

pub(super) fn apply(group: &Group, limits: &Limits) -> Result<(), Refused> {
    apply_part(&group.unified(Part::Payload), limits)?;
    // Between berths, so at the group that holds both halves.
    write(&group.hierarchy.unified.join(&group.path).join("cpu.weight"), &limits.cpu_weight.to_string())
        .limit("cpu_weight", limits.cpu_weight)
}

pub(super) fn apply_part(dir: &Path, limits: &Limits) -> Result<(), Refused> {
    let quota = u64::from(limits.cpu_millis) * PERIOD_USEC / 1000;
    write(&dir.join("cpu.max"), &format!("{quota} {PERIOD_USEC}")).limit("cpu_millis", limits.cpu_millis)?;
    set_memory(dir, limits)?;
    write(&dir.join("pids.max"), &limits.pids.to_string()).limit("pids", limits.pids)?;
    // One process is killed, not the berth: its containers decide for themselves what that means.
    write(&dir.join("memory.oom.group"), "0").limit("memory_bytes", limits.memory_bytes)
}

fn set_memory(dir: &Path, limits: &Limits) -> Result<(), Refused> {
    let (bytes, high) = (limits.memory_bytes, limits.memory_high_bytes);
    let (max, throttle, current) = (dir.join("memory.max"), dir.join("memory.high"), dir.join("memory.current"));
    let swap = dir.join("memory.swap.max");
    let set_swap = || {
        // A kernel without swap accounting has none to give.
        if !swap.exists() {
            return Ok(());
        }
        // The other writer is the reclaim of a sleeping berth.
        let _turn = SWAP.lock();
        write(&swap, &limits.swap_bytes.to_string()).limit("swap_bytes", limits.swap_bytes)
    };
    let in_force = read(&max).limit("memory_bytes", bytes)?;
    let lowered = in_force.trim().parse::<u64>().map_or(true, |now| bytes < now);
    if read_number_if_there(&swap) < limits.swap_bytes {
        // Room for what has to go.
        set_swap()?;
    }
    if lowered {
        // memory.c: takes back until nothing more comes, and kills nobody.
        write(&throttle, &high.unwrap_or(bytes).min(bytes).to_string()).limit("memory_bytes", bytes)?;
        let used = read_number(&current).limit("memory_bytes", bytes)?;
        if used > bytes {
            let why = Error::Invalid(format!("{used} bytes are in use and cannot be taken back"));
            return Err(Refused { used: Some(used), ..refused("memory_bytes", bytes, why) });
        }
    }
    write(&max, &bytes.to_string()).limit("memory_bytes", bytes)?;
    let high = high.map_or_else(|| "max".to_owned(), |high| high.to_string());
    write(&throttle, &high).limit("memory_high_bytes", limits.memory_high_bytes.unwrap_or(0))?;
    set_swap()
}

pub(super) fn set_io(dir: &Path, io: &Io, devices: &[Device]) -> Result<(), Refused> {
    let (file, figures) = (dir.join("io.max"), io_figures(io));
    let (field, value) = figures.iter().find_map(|(field, _, value)| Some((*field, (*value)?))).unwrap_or((figures[0].0, 0));
    if !file.exists() {
        let why = "this host has no io controller for berths: the kernel needs CONFIG_BLK_DEV_THROTTLING, and io in cgroup.controllers";
        return if io.any() { Err(refused(field, value, Error::Invalid(why.into()))) } else { Ok(()) };
    }
    let words = figures.map(|(_, key, value)| format!("{key}={}", value.map_or_else(|| "max".to_owned(), |v| v.to_string())));
    // What goes through a loop device is charged to the same group at the disk below it (loop.c); with the limit at both, a request larger
    // than a slice of blk-throttle waits twice, and gets half the rate.
    for device in devices.iter().filter(|device| !device.is_loop()) {
        match write(&file, &format!("{device} {}", words.join(" "))) {
            Err(error) if device_gone(&error) => {}
            done => done.limit(field, value)?,
        }
    }
    Ok(())
}

fn io_figures(io: &Io) -> [(&'static str, &'static str, Option<u64>); 4] {
    [
        ("io_read_bps", "rbps", io.read_bps),
        ("io_write_bps", "wbps", io.write_bps),
        ("io_read_iops", "riops", io.read_iops),
        ("io_write_iops", "wiops", io.write_iops),
    ]
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
    let cpu = read(&dir.join("cpu.stat"))?;
    Ok(Usage {
        memory_bytes: read_number(&dir.join("memory.current"))?,
        swap_bytes: read_number_if_there(&dir.join("memory.swap.current")),
        pids: read_number(&dir.join("pids.current"))?,
        cpu_usec: keyed(&cpu, "usage_usec"),
        throttled_usec: keyed(&cpu, "throttled_usec"),
        oom_kills: keyed(&read(&dir.join("memory.events"))?, "oom_kill"),
        io: moved(&figures(&read(&dir.join("io.stat")).unwrap_or_default())),
        pressure: None,
    })
}

/// `8:0 rbytes=17 wbytes=4 rios=1 wios=1 dbytes=0 dios=0`
fn figures(text: &str) -> Vec<(Device, IoUsage)> {
    let line = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let of = |key: &str| rest.split(' ').find_map(|w| w.strip_prefix(key)?.strip_prefix('=')?.parse().ok()).unwrap_or(0);
        let io = IoUsage { read_bytes: of("rbytes"), write_bytes: of("wbytes"), read_ops: of("rios"), write_ops: of("wios") };
        Some((device.parse().ok()?, io))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_read_by_device_and_written_with_all_four() {
        let text = "7:3 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n8:0 \n";
        let io = IoUsage { read_bytes: 8192, write_bytes: 4096, read_ops: 2, write_ops: 1 };
        assert_eq!(figures(text), [(Device { major: 7, minor: 3 }, io), (Device { major: 8, minor: 0 }, IoUsage::default())]);

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("io.max"), "").unwrap();
        let limits = Io { read_bps: Some(1 << 20), write_iops: Some(100), ..Io::default() };
        set_io(dir.path(), &limits, &[Device { major: 7, minor: 3 }, Device { major: 8, minor: 0 }]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("io.max")).unwrap(), "8:0 rbps=1048576 wbps=max riops=max wiops=100");
    }

    #[test]
    fn a_host_without_the_io_controller_refuses_what_is_wanted_and_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        set_io(dir.path(), &Io::default(), &[Device { major: 7, minor: 3 }]).unwrap();
        let wanted = Io { write_iops: Some(100), ..Io::default() };
        let refused = set_io(dir.path(), &wanted, &[Device { major: 7, minor: 3 }]).unwrap_err();
        assert_eq!((refused.field, refused.wanted), ("io_write_iops", 100));
    }
}

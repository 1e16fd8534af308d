//! A berth's control groups as the kernel keeps them, read on the host: the figures that quotas are measured by, whatever else runs there.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::berth::Berth;

/// Names of one figure: in cgroup v2, in v1.
pub type Names<'n> = &'n [&'n str];

pub const CPU_QUOTA: Names<'_> = &["cpu.max", "cpu.cfs_quota_us"];
pub const CPU_WEIGHT: Names<'_> = &["cpu.weight", "cpu.shares"];
pub const MEMORY: Names<'_> = &["memory.max", "memory.limit_in_bytes"];
pub const PIDS: Names<'_> = &["pids.max"];

/// What a group has used of the CPUs since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub usage_usec: u64,
    /// Periods of the quota in which it ran, and those in which it used it up.
    pub periods: u64,
    pub throttled: u64,
}

impl Berth<'_> {
    /// The group of one part, `shim` or `payload` or both (empty), in each hierarchy.
    #[track_caller]
    pub fn group_dirs(&self, part: &str) -> Vec<PathBuf> {
        let id = self.id();
        let groups = self.host.slot.groups();
        let named = groups.iter().flat_map(|group| [id.clone(), format!("berth-{id}.scope")].map(|name| group.join(name).join(part)));
        named.filter(|dir| dir.is_dir()).collect()
    }

    /// The first file of one of these names, and what it holds.
    #[track_caller]
    pub fn group_file(&self, part: &str, names: Names<'_>) -> (PathBuf, String) {
        file(&self.group_dirs(part), names)
    }

    /// The first number in such a file.
    #[track_caller]
    pub fn group_number(&self, part: &str, names: Names<'_>) -> u64 {
        let (path, text) = self.group_file(part, names);
        first_number(&text).unwrap_or_else(|| panic!("{} holds no number: {text:?}", path.display()))
    }

    /// The groups below the payload whose name holds `name`, as inner containers have them.
    #[track_caller]
    pub fn inner_group(&self, name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.group_dirs("payload").iter().for_each(|dir| below(dir, name, &mut found));
        found
    }

    /// CPU time of the whole payload.
    #[track_caller]
    pub fn cpu(&self) -> Cpu {
        cpu(&self.group_dirs("payload"))
    }
}

/// The first file of one of these names in one of these groups, and what it holds.
#[track_caller]
pub fn file(dirs: &[PathBuf], names: Names<'_>) -> (PathBuf, String) {
    let files = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    let mut texts = files.filter_map(|file| Some((file.clone(), fs::read_to_string(&file).ok()?.trim().to_owned())));
    texts.next().unwrap_or_else(|| panic!("none of {names:?} in {dirs:?}"))
}

pub fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[track_caller]
pub fn cpu(dirs: &[PathBuf]) -> Cpu {
    let keyed = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no {key} in {text:?}"))
    };
    // On hybrid hosts there is a cpu.stat in the group of cgroup2 too, which knows no quota.
    let stats = dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("cpu.stat")).ok());
    let stat = stats.into_iter().find(|text| text.contains("nr_periods")).unwrap_or_else(|| panic!("no cpu.stat with a quota in {dirs:?}"));
    let usage_usec = match dirs.iter().find_map(|dir| fs::read_to_string(dir.join("cpuacct.usage")).ok()) {
        Some(nanoseconds) => first_number(&nanoseconds).expect("a number") / 1000,
        None => keyed(&stat, "usage_usec"),
    };
    Cpu { usage_usec, periods: keyed(&stat, "nr_periods"), throttled: keyed(&stat, "nr_throttled") }
}

/// CPUs that a group used in a window in which it always wanted more than its quota; `None` when the host was too busy to give it that
/// much for so long. Whether it got more than `most` is looked at in every window.
#[track_caller]
pub fn cpus_at_quota(dirs: &[PathBuf], window: Duration, windows: usize, most: f64) -> Option<f64> {
    for _ in 0..windows {
        let (before, begun) = (cpu(dirs), Instant::now());
        thread::sleep(window);
        let (after, passed) = (cpu(dirs), begun.elapsed());
        let cpus = (after.usage_usec - before.usage_usec) as f64 / passed.as_micros() as f64;
        assert!(cpus <= most, "{cpus:.3} CPUs were used in {passed:?}, at most {most:.3} are allowed");
        let periods = (after.periods - before.periods).max(1);
        if (after.throttled - before.throttled) * 100 >= periods * 97 {
            return Some(cpus);
        }
    }
    None
}

fn below(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        if entry.file_name().to_string_lossy().contains(name) {
            found.push(entry.path());
        }
        below(&entry.path(), name, found);
    }
}

/// What a group and those below it have read and written: at the device with most of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Io {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
}

#[track_caller]
pub fn io(dirs: &[PathBuf]) -> Io {
    let v1 = |name: &str, kind: &str| {
        let text = dirs.iter().find_map(|dir| fs::read_to_string(dir.join(name)).ok())?;
        let values = text.lines().filter_map(|line| line.split_once(' ')?.1.strip_prefix(kind)?.trim().parse::<u64>().ok());
        Some(values.max().unwrap_or(0))
    };
    let (bytes, ops) = ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive");
    if let Some(read_bytes) = v1(bytes, "Read ") {
        let of = |name, kind| v1(name, kind).unwrap_or(0);
        return Io { read_bytes, write_bytes: of(bytes, "Write "), read_ops: of(ops, "Read "), write_ops: of(ops, "Write ") };
    }
    let (_, text) = file(dirs, &["io.stat"]);
    let of = |key: &str| text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).max().unwrap_or(0);
    Io { read_bytes: of("rbytes="), write_bytes: of("wbytes="), read_ops: of("rios="), write_ops: of("wios=") }
}

/// How much of something is done in a second, once `begun` of it is done: less may be what starts it.
#[track_caller]
pub fn per_second(window: Duration, begun: u64, figure: impl Fn() -> u64) -> f64 {
    let start = figure();
    crate::until("it has begun", Duration::from_secs(30), || (figure() > start + begun).then_some(()));
    let (before, begun) = (figure(), Instant::now());
    thread::sleep(window);
    let (after, passed) = (figure(), begun.elapsed());
    (after - before) as f64 / passed.as_secs_f64()
}

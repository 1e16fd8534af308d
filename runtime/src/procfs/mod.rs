//! What `/proc` and `/sys` say of a berth: texts of the host with the figures of the berth's control group in them.
//!
//! Each text has a renderer, from data to data; what it does not know of the host's text passes through. [`Source`] reads the figures: of
//! the whole berth, or of the group of the process that asks, where that has a limit of its own. All of it is for comfort: a tenant can
//! take the emulated files off and then sees the host's own, as he would without them.
//!
//! - **CPUs** shown are the quota rounded up, at most those of the cpuset and of the host.
//! - **`stat`** divides the group's time evenly among the CPUs shown. Time that the group wanted and the quota denied is `steal`; the
//!   rest since the berth's start is idle. Processes made are told by the newest pid inside.
//! - **`loadavg`** is kept without looking at the clock: see [`load`].
//! - **`meminfo`**'s `MemAvailable` is what is free below the limit, and file pages and slab that can be taken back.

mod cpuinfo;
mod cpus;
mod diskstats;
mod figures;
mod load;
mod loadavg;
mod meminfo;
mod source;
mod stat;
mod swaps;
mod sysinfo;
mod tasks;

pub use source::Source;
pub use sysinfo::Words;

/// An emulated file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    Meminfo,
    Cpuinfo,
    Stat,
    Loadavg,
    Swaps,
    Diskstats,
    CpusOnline,
    CpusPossible,
    CpusPresent,
}

impl File {
    pub const ALL: [File; 9] = [
        File::Meminfo,
        File::Cpuinfo,
        File::Stat,
        File::Loadavg,
        File::Swaps,
        File::Diskstats,
        File::CpusOnline,
        File::CpusPossible,
        File::CpusPresent,
    ];

    /// Where it is on the host, and what it covers inside.
    pub fn path(self) -> &'static str {
        match self {
            File::Meminfo => "/proc/meminfo",
            File::Cpuinfo => "/proc/cpuinfo",
            File::Stat => "/proc/stat",
            File::Loadavg => "/proc/loadavg",
            File::Swaps => "/proc/swaps",
            File::Diskstats => "/proc/diskstats",
            File::CpusOnline => "/sys/devices/system/cpu/online",
            File::CpusPossible => "/sys/devices/system/cpu/possible",
            File::CpusPresent => "/sys/devices/system/cpu/present",
        }
    }

    /// Its name among the emulated files: the last part of its path.
    pub fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

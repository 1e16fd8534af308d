//! What a berth uses, read from its payload's control groups in one pass.

use std::{fs, path::Path};

use super::{Group, Part, devices::Device, v1, v2};
use crate::error::{Error, Result, Step};

/// Use of the payload, from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    pub pids: u64,
    pub cpu_usec: u64,
    /// Held back by the quota of CPU.
    pub throttled_usec: u64,
    pub oom_kills: u64,
    pub io: IoUsage,
    /// `None` where the kernel keeps none.
    pub pressure: Option<Pressure>,
}

/// Since the start of the berth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoUsage {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub read_ops: u64,
    pub write_ops: u64,
}

/// Pressure stall information, psi.rst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub cpu: Stall,
    pub memory: Stall,
    pub io: Stall,
}

/// Hundredths of a percent of the last ten and sixty seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    pub some_avg10: u32,
    pub some_avg60: u32,
    pub full_avg10: u32,
    pub full_avg60: u32,
}

impl Group {
    /// Present use of the payload.
    pub fn usage(&self) -> Result<Usage> {
        let payload = self.unified(Part::Payload);
        let usage = match self.hierarchy.hybrid() {
            true => v1::usage(self)?,
            false => v2::usage(&payload)?,
        };
        // Kept for every group of the cgroup2 hierarchy, whoever has the controllers.
        Ok(Usage { pressure: pressure(&payload), ..usage })
    }
}

fn pressure(dir: &Path) -> Option<Pressure> {
    let read = |name: &str| Some(stall(&fs::read_to_string(dir.join(name)).ok()?));
    Some(Pressure { cpu: read("cpu.pressure")?, memory: read("memory.pressure")?, io: read("io.pressure")? })
}

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=7`, and the same for `full`.
fn stall(text: &str) -> Stall {
    let of = |kind: &str, key: &str| {
        let line = text.lines().find(|l| l.split(' ').next() == Some(kind)).unwrap_or_default();
        let value = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        let (whole, rest) = value.split_once('.').unwrap_or((value, "0"));
        let digits = format!("{rest}00");
        whole.parse::<u32>().unwrap_or(0) * 100 + digits.get(..2).and_then(|d| d.parse().ok()).unwrap_or(0)
    };
    Stall {
        some_avg10: of("some", "avg10"),
        some_avg60: of("some", "avg60"),
        full_avg10: of("full", "avg10"),
        full_avg60: of("full", "avg60"),
    }
}

/// One figure of each device. A byte that goes through the berth's loop device is counted there and again at the disk below it (where the
/// loop device reaches that directly), one that goes to the home at the disk only: so the larger of the two sums is what was moved.
pub(super) fn moved(figures: &[(Device, IoUsage)]) -> IoUsage {
    let sum = |wanted: &dyn Fn(Device) -> bool| {
        figures.iter().filter(|(device, _)| wanted(*device)).fold(IoUsage::default(), |all, (_, one)| IoUsage {
            read_bytes: all.read_bytes + one.read_bytes,
            write_bytes: all.write_bytes + one.write_bytes,
            read_ops: all.read_ops + one.read_ops,
            write_ops: all.write_ops + one.write_ops,
        })
    };
    let (own, below) = (sum(&|device| device.is_loop()), sum(&|device| device.is_physical()));
    IoUsage {
        read_bytes: own.read_bytes.max(below.read_bytes),
        write_bytes: own.write_bytes.max(below.write_bytes),
        read_ops: own.read_ops.max(below.read_ops),
        write_ops: own.write_ops.max(below.write_ops),
    }
}

/// `key value` in a flat keyed file; 0 when it is not there.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).step("read", file.display())
}

pub(super) fn read_number(file: &Path) -> Result<u64> {
    let text = read(file)?;
    text.trim().parse().map_err(|_| Error::Invalid(format!("{} holds no number: {text:?}", file.display())))
}

/// The same of a file that a kernel may lack.
pub(super) fn read_number_if_there(file: &Path) -> u64 {
    read_number(file).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_in_hundredths_of_a_percent() {
        let text = "some avg10=12.34 avg60=0.05 avg300=0.00 total=19\nfull avg10=100.00 avg60=7.00 avg300=0.00 total=0\n";
        assert_eq!(stall(text), Stall { some_avg10: 1234, some_avg60: 5, full_avg10: 10_000, full_avg60: 700 });
        // Before 5.13 there was no full line for the CPU.
        assert_eq!(stall("some avg10=1.50 avg60=0.00 avg300=0.00 total=3\n"), Stall { some_avg10: 150, ..Stall::default() });
        assert_eq!(stall(""), Stall::default());
    }

    #[test]
    fn keys_are_whole_words() {
        let text = "usage_usec 17\nnr_throttled 2\nthrottled_usec 9\n";
        assert_eq!((keyed(text, "usage_usec"), keyed(text, "throttled_usec"), keyed(text, "throttled")), (17, 9, 0));
    }
}

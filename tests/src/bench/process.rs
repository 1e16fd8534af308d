//! What the kernel knows of a process.

use std::fs;

/// USER_HZ, which proc(5) counts in on x86-64 and aarch64, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process in seconds, its children that ended (and were waited for) included.
#[track_caller]
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|e| panic!("process {pid} is gone: {e}"));
    let ticks = ticks(&stat).unwrap_or_else(|| panic!("no times in {stat:?}"));
    ticks as f64 / TICKS_PER_SECOND
}

/// What a process has run in seconds, to the nanosecond, its children not included: for processes that hardly run.
#[track_caller]
pub(super) fn run_seconds(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap_or_else(|e| panic!("process {pid} is gone: {e}"));
    let of_thread = |stat: String| stat.split(' ').next()?.parse::<f64>().ok();
    threads.flatten().filter_map(|thread| of_thread(fs::read_to_string(thread.path().join("schedstat")).ok()?)).sum::<f64>() / 1e9
}

/// Fields 14 to 17 of proc_pid_stat(5): utime, stime, cutime, cstime.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

pub(super) fn children(pid: u32) -> usize {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default().split_whitespace().count()
}

/// A line of `/proc/PID/status` in KiB: `VmHWM`, `RssAnon`, …
#[track_caller]
pub(super) fn memory_kib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|e| panic!("process {pid} is gone: {e}"));
    let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no {field} in {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "12 (a b) c) S 1 12 12 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 99 0";
        assert_eq!(ticks(stat), Some(127));
        assert_eq!(ticks("12 (a) S 1"), None);
        assert!(cpu_seconds(std::process::id()) >= 0.0);
        assert!(run_seconds(std::process::id()) > 0.0);
        assert!(memory_kib(std::process::id(), "VmHWM") > 0.0);
    }
}

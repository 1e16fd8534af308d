//! What a group may use and uses, read from its control groups, of version 1 and 2.

use std::path::{Path, PathBuf};

use crate::cgroup::{Place, View};

/// All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) swap_limit: u64,
    pub(super) swap_used: u64,
    pub(super) swap_cached: u64,
    pub(super) anon: u64,
    /// Page cache, shared memory and tmpfs included.
    pub(super) file: u64,
    pub(super) shared: u64,
    pub(super) mapped: u64,
    pub(super) dirty: u64,
    pub(super) writeback: u64,
    pub(super) active_anon: u64,
    pub(super) inactive_anon: u64,
    pub(super) active_file: u64,
    pub(super) inactive_file: u64,
    pub(super) unevictable: u64,
    pub(super) slab_reclaimable: u64,
    pub(super) slab_unreclaimable: u64,
    pub(super) kernel_stack: u64,
    pub(super) page_tables: u64,
    pub(super) secondary_page_tables: u64,
    pub(super) per_cpu: u64,
    pub(super) huge_anon: u64,
    pub(super) huge_file: u64,
    pub(super) huge_shared: u64,
    pub(super) zswap: u64,
    pub(super) zswapped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    /// At least one.
    pub(super) shown: u32,
    pub(super) user_usec: u64,
    pub(super) system_usec: u64,
    /// Time for which the quota stopped what wanted to run, summed over CPUs.
    pub(super) throttled_usec: u64,
    /// Periods in which it did.
    pub(super) throttled_periods: u64,
    pub(super) period_usec: u64,
}

/// What went to and from one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
}

/// Of the group between the payload and `place` whose limit is least: that is the one which binds. Without any limit: all of the host.
pub(super) fn memory(view: &View, place: &Place) -> Memory {
    let levels = view.levels("memory", place);
    let file = if view.hybrid() { "memory.limit_in_bytes" } else { "memory.max" };
    let (limit, level) = least(&levels, |level| number(view, level, file)).unwrap_or((u64::MAX, &levels[0]));
    let memory = if view.hybrid() { memory_v1(view, level, limit) } else { memory_v2(view, level, limit) };
    Memory { swap_limit: least(&levels, |level| swap_limit(view, level)).map_or(u64::MAX, |(limit, _)| limit), ..memory }
}

/// On version 1 there is a limit of both together.
fn swap_limit(view: &View, level: &Path) -> Option<u64> {
    if !view.hybrid() {
        return number(view, level, "memory.swap.max");
    }
    let both = number(view, level, "memory.memsw.limit_in_bytes")?;
    Some(both.saturating_sub(number(view, level, "memory.limit_in_bytes")?))
}

fn memory_v2(view: &View, level: &Path, limit: u64) -> Memory {
    let text = view.read(level, "memory.stat").unwrap_or_default();
    let stat = |key: &str| keyed(&text, key).unwrap_or(0);
    let read = |file: &str| number(view, level, file);
    Memory {
        limit,
        used: read("memory.current").unwrap_or(0),
        swap_used: read("memory.swap.current").unwrap_or(0),
        swap_cached: stat("swapcached"),
        anon: stat("anon"),
        file: stat("file"),
        shared: stat("shmem"),
        mapped: stat("file_mapped"),
        dirty: stat("file_dirty"),
        writeback: stat("file_writeback"),
        active_anon: stat("active_anon"),
        inactive_anon: stat("inactive_anon"),
        active_file: stat("active_file"),
        inactive_file: stat("inactive_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        kernel_stack: stat("kernel_stack"),
        page_tables: stat("pagetables"),
        secondary_page_tables: stat("sec_pagetables"),
        per_cpu: stat("percpu"),
        huge_anon: stat("anon_thp"),
        huge_file: stat("file_thp"),
        huge_shared: stat("shmem_thp"),
        zswap: stat("zswap"),
        zswapped: stat("zswapped"),
        ..Memory::default()
    }
}

/// memory.txt: `total_` counts the groups below too. Of the kernel's own memory there is only the sum.
fn memory_v1(view: &View, level: &Path, limit: u64) -> Memory {
    let text = view.read(level, "memory.stat").unwrap_or_default();
    let stat = |key: &str| keyed(&text, &format!("total_{key}")).unwrap_or(0);
    let read = |file: &str| number(view, level, file);
    Memory {
        limit,
        used: read("memory.usage_in_bytes").unwrap_or(0),
        swap_used: stat("swap"),
        swap_cached: stat("swapcached"),
        anon: stat("rss"),
        file: stat("cache"),
        shared: stat("shmem"),
        mapped: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        active_anon: stat("active_anon"),
        inactive_anon: stat("inactive_anon"),
        active_file: stat("active_file"),
        inactive_file: stat("inactive_file"),
        unevictable: stat("unevictable"),
        slab_unreclaimable: read("memory.kmem.usage_in_bytes").unwrap_or(0),
        huge_anon: stat("rss_huge"),
        ..Memory::default()
    }
}

/// Of the group between the payload and `place` whose quota is least. `host` is the number of CPUs online.
pub(super) fn cpu(view: &View, place: &Place, host: u32) -> Cpu {
    let levels = view.levels("cpu", place);
    let quota_of = |level: &Path| quota(view, level);
    // In millionths of a CPU.
    let found = least(&levels, |level| quota_of(level).map(|(quota, period)| quota.saturating_mul(1_000_000) / period.max(1)));
    let (millionths, level) = found.unwrap_or((u64::MAX, &levels[0]));
    let by_quota = millionths.div_ceil(1_000_000).max(1);
    let by_set = set_size(view, place).unwrap_or(u32::MAX).max(1);
    let (_, period_usec) = quota_of(level).unwrap_or((0, 100_000));
    let text = view.read(level, "cpu.stat").unwrap_or_default();
    let stat = |key: &str| keyed(&text, key).unwrap_or(0);
    let (user_usec, system_usec, throttled_usec) = if view.hybrid() {
        // It may be on another hierarchy, where groups are made side by side with these.
        let times = view.read(level, "cpuacct.stat").unwrap_or_default();
        let usec = |key: &str| keyed(&times, key).unwrap_or(0).saturating_mul(super::stat::TICK_USEC);
        (usec("user"), usec("system"), stat("throttled_time") / 1000)
    } else {
        (stat("user_usec"), stat("system_usec"), stat("throttled_usec"))
    };
    let shown = u32::try_from(by_quota).unwrap_or(u32::MAX).min(by_set).min(host.max(1));
    Cpu { shown, user_usec, system_usec, throttled_usec, throttled_periods: stat("nr_throttled"), period_usec }
}

/// Quota and period in microseconds; `None`: no limit.
fn quota(view: &View, level: &Path) -> Option<(u64, u64)> {
    let (quota, period) = if view.hybrid() {
        (view.read(level, "cpu.cfs_quota_us")?, view.read(level, "cpu.cfs_period_us")?)
    } else {
        let both = view.read(level, "cpu.max")?;
        let (quota, period) = both.trim().split_once(' ')?;
        (quota.to_owned(), period.to_owned())
    };
    Some((quota.trim().parse().ok()?, period.trim().parse().ok()?))
}

/// CPUs that the group may run on at all; `None`: not known.
fn set_size(view: &View, place: &Place) -> Option<u32> {
    let file = if view.hybrid() { "cpuset.effective_cpus" } else { "cpuset.cpus.effective" };
    // The deepest group that has the controller.
    let text = view.levels("cpuset", place).iter().rev().find_map(|level| view.read(level, file))?;
    super::cpus::count(&text).filter(|&count| count > 0)
}

/// What the payload read and wrote of one device.
pub(super) fn io(view: &View, (major, minor): (u32, u32)) -> Io {
    let device = format!("{major}:{minor}");
    let payload = Path::new("");
    if !view.hybrid() {
        let text = view.read(payload, "io.stat").unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix(&device)?.strip_prefix(' ')).unwrap_or_default();
        let value = |key: &str| line.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok()).unwrap_or(0);
        return Io { reads: value("rios"), read_bytes: value("rbytes"), writes: value("wios"), written_bytes: value("wbytes") };
    }
    let of = |file: &str, what: &str| {
        let text = view.read(payload, file).unwrap_or_default();
        let found = text.lines().find_map(|l| l.strip_prefix(&device)?.strip_prefix(' ')?.strip_prefix(what)?.trim().parse().ok());
        found.unwrap_or(0)
    };
    let (count, bytes) = ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_service_bytes_recursive");
    Io { reads: of(count, "Read"), read_bytes: of(bytes, "Read"), writes: of(count, "Write"), written_bytes: of(bytes, "Write") }
}

/// The least value and the level that has it; the one nearest to the payload of several.
fn least(levels: &[PathBuf], value: impl Fn(&Path) -> Option<u64>) -> Option<(u64, &PathBuf)> {
    levels.iter().filter_map(|level| Some((value(level)?, level))).min_by_key(|(value, _)| *value)
}

/// `None` also for `max`.
fn number(view: &View, level: &Path, file: &str) -> Option<u64> {
    view.read(level, file)?.trim().parse().ok()
}

/// The value of a line `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::view::tests::payload;

    #[test]
    fn p03_the_least_limit_on_the_way_down_is_the_one_that_binds() {
        let files = [
            ("memory.max", "1073741824\n"),
            ("memory.current", "500\n"),
            ("memory.swap.max", "0\n"),
            ("memory.stat", "anon 10\nfile 20\nfile_mapped 5\nslab_reclaimable 7\n"),
            ("docker/memory.max", "max\n"),
            ("docker/small/memory.max", "67108864\n"),
            ("docker/small/memory.current", "300\n"),
            ("docker/small/memory.stat", "anon 3\n"),
            ("docker/large/memory.max", "2147483648\n"),
            ("docker/large/memory.current", "1\n"),
        ];
        let (_dir, view) = payload(&files, &[]);
        let at = |path: &str| memory(&view, &view.place(&format!("0::/berth/x/payload{path}\n")));
        let berth = at("");
        assert_eq!((berth.limit, berth.used, berth.anon, berth.file, berth.slab_reclaimable), (1 << 30, 500, 10, 20, 7));
        assert_eq!((berth.swap_limit, berth.mapped), (0, 5));
        let small = at("/docker/small");
        assert_eq!((small.limit, small.used, small.anon, small.swap_limit), (64 << 20, 300, 3, 0));
        // A limit above the berth's is none; nor is one of a group that is gone.
        assert_eq!((at("/docker/large"), at("/docker/gone/deep")), (berth, berth));
    }

    #[test]
    fn p03_version_1_has_its_own_files() {
        let files = [
            ("memory:memory.limit_in_bytes", "1073741824\n"),
            ("memory:memory.usage_in_bytes", "700\n"),
            ("memory:memory.memsw.limit_in_bytes", "1073745920\n"),
            ("memory:memory.kmem.usage_in_bytes", "9\n"),
            ("memory:memory.stat", "cache 1\nrss 2\ntotal_cache 30\ntotal_rss 40\ntotal_swap 5\n"),
            ("cpu:cpu.cfs_quota_us", "50000\n"),
            ("cpu:cpu.cfs_period_us", "100000\n"),
            ("cpu:cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 2000000\n"),
            ("cpuacct:cpuacct.stat", "user 100\nsystem 50\n"),
            ("cpu:docker/c/cpu.cfs_quota_us", "-1\n"),
            ("cpu:docker/c/cpu.cfs_period_us", "100000\n"),
            ("blkio:blkio.throttle.io_serviced_recursive", "7:1 Read 3\n7:1 Write 4\n7:1 Total 7\nTotal 7\n"),
            ("blkio:blkio.throttle.io_service_bytes_recursive", "7:1 Read 4096\n7:1 Write 8192\n"),
        ];
        let (_dir, view) = payload(&files, &["memory", "cpu", "cpuacct", "blkio", "cpuset"]);
        let place = view.place("3:cpu:/berth/x/payload/docker/c\n");
        let memory = memory(&view, &place);
        assert_eq!((memory.limit, memory.used, memory.file, memory.anon), (1 << 30, 700, 30, 40));
        assert_eq!((memory.swap_limit, memory.swap_used, memory.slab_unreclaimable), (4096, 5, 9));
        let expected =
            Cpu { shown: 1, user_usec: 1_000_000, system_usec: 500_000, throttled_usec: 2000, throttled_periods: 4, period_usec: 100_000 };
        assert_eq!(cpu(&view, &place, 2), expected);
        assert_eq!(io(&view, (7, 1)), Io { reads: 3, read_bytes: 4096, writes: 4, written_bytes: 8192 });
        assert_eq!(io(&view, (7, 11)), Io::default());
    }

    #[test]
    fn p02_as_many_cpus_as_the_quota_rounded_up_but_no_more_than_there_are() {
        let shown = |max: &str, set: Option<&str>, host: u32| {
            let mut files = vec![("cpu.max", max)];
            files.extend(set.map(|set| ("c/cpuset.cpus.effective", set)));
            let (_dir, view) = payload(&files, &[]);
            cpu(&view, &view.place("0::/berth/x/payload/c\n"), host).shown
        };
        assert_eq!(shown("50000 100000\n", None, 2), 1);
        assert_eq!(shown("100000 100000\n", None, 2), 1);
        assert_eq!(shown("100001 100000\n", None, 8), 2);
        assert_eq!(shown("350000 100000\n", None, 64), 4);
        assert_eq!(shown("350000 100000\n", None, 2), 2);
        assert_eq!(shown("max 100000\n", None, 2), 2);
        assert_eq!(shown("350000 100000\n", Some("0-1,7\n"), 64), 3);
        assert_eq!((shown("0 0\n", None, 2), shown("nonsense\n", Some("\n"), 0)), (1, 1));
    }

    #[test]
    fn io_of_one_device_by_its_whole_number() {
        let text = "17:1 rbytes=9 wbytes=9 rios=9 wios=9\n7:1 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n";
        let (_dir, view) = payload(&[("io.stat", text)], &[]);
        assert_eq!(io(&view, (7, 1)), Io { reads: 1, read_bytes: 4096, writes: 2, written_bytes: 8192 });
    }
}

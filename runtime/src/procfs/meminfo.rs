//! `/proc/meminfo`, proc_meminfo(5).

use std::fmt::Write;

use super::{figures::Memory, sysinfo::Totals};

pub(super) fn render(host: &str, memory: &Memory) -> String {
    let Totals { total, free, swap, swap_free } = totals(host, memory);
    let value = |key: &str| {
        Some(match key {
            "MemTotal" => total,
            "MemFree" => free,
            "MemAvailable" => (free + memory.active_file + memory.inactive_file + memory.slab_reclaimable).min(total),
            "Buffers" => 0,
            "Cached" => memory.file,
            "SwapCached" => memory.swap_cached,
            "Active" => memory.active_anon + memory.active_file,
            "Inactive" => memory.inactive_anon + memory.inactive_file,
            "Active(anon)" => memory.active_anon,
            "Inactive(anon)" => memory.inactive_anon,
            "Active(file)" => memory.active_file,
            "Inactive(file)" => memory.inactive_file,
            "Unevictable" | "Mlocked" => memory.unevictable,
            "SwapTotal" => swap,
            "SwapFree" => swap_free,
            "Zswap" => memory.zswap,
            "Zswapped" => memory.zswapped,
            "Dirty" => memory.dirty,
            "Writeback" => memory.writeback,
            "AnonPages" => memory.anon,
            "Mapped" => memory.mapped,
            "Shmem" => memory.shared,
            "KReclaimable" | "SReclaimable" => memory.slab_reclaimable,
            "Slab" => memory.slab_reclaimable + memory.slab_unreclaimable,
            "SUnreclaim" => memory.slab_unreclaimable,
            "KernelStack" => memory.kernel_stack,
            "PageTables" => memory.page_tables,
            "SecPageTables" => memory.secondary_page_tables,
            "Percpu" => memory.per_cpu,
            "AnonHugePages" => memory.huge_anon,
            "ShmemHugePages" => memory.huge_shared,
            "FileHugePages" => memory.huge_file,
            _ => return None,
        })
    };
    let mut text = String::with_capacity(host.len());
    for line in host.lines() {
        let _ = match split(line).and_then(|(key, _)| Some((key, value(key)?))) {
            Some((key, bytes)) => writeln!(text, "{:<16}{:>8} kB", format!("{key}:"), bytes / 1024),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

/// As [`render`] shows them.
pub(super) fn totals(host: &str, memory: &Memory) -> Totals {
    let of_host = |key: &str| host.lines().find_map(|line| split(line).filter(|(k, _)| *k == key)).map_or(0, |(_, value)| value);
    Totals::new((of_host("MemTotal"), of_host("SwapTotal")), memory)
}

/// Key and bytes of a line `Key:   n kB`.
fn split(line: &str) -> Option<(&str, u64)> {
    let (key, rest) = line.split_once(':')?;
    let kib: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((key, kib.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = include_str!("recorded/meminfo.txt");

    fn shown(text: &str, key: &str) -> u64 {
        text.lines().find_map(|line| split(line).filter(|(k, _)| *k == key)).map(|(_, value)| value).unwrap()
    }

    #[test]
    fn p02_the_quota_stands_in_the_place_of_the_hosts_memory() {
        let memory =
            Memory { limit: 1 << 30, used: 300 << 20, file: 200 << 20, inactive_file: 150 << 20, anon: 90 << 20, ..Memory::default() };
        let text = render(HOST, &memory);
        assert_eq!(text.lines().count(), HOST.lines().count());
        for (key, mib) in
            [("MemTotal", 1024), ("MemFree", 724), ("MemAvailable", 874), ("Cached", 200), ("AnonPages", 90), ("SwapTotal", 0)]
        {
            assert_eq!(shown(&text, key), mib << 20, "{key}");
        }
        assert!(text.starts_with("MemTotal:        1048576 kB\nMemFree:          741376 kB\n"), "{text}");
        for passed in ["VmallocTotal:   34359738367 kB", "HugePages_Total:       0", "DirectMap2M:     2064384 kB"] {
            assert!(text.lines().any(|line| line == passed), "{passed}\n{text}");
        }
    }

    #[test]
    fn odd_figures_never_show_more_than_there_is() {
        let memory =
            Memory { limit: u64::MAX, used: 1 << 50, active_file: 1 << 40, swap_used: 5, swap_limit: u64::MAX, ..Memory::default() };
        let text = render(HOST, &memory);
        assert_eq!(shown(&text, "MemTotal"), shown(HOST, "MemTotal"));
        assert_eq!((shown(&text, "MemFree"), shown(&text, "MemAvailable")), (0, shown(HOST, "MemTotal")));
        assert_eq!(shown(&text, "SwapTotal"), 0, "the host has none");
        let own = "A line of tomorrow: 7\nMemTotal: lots\n";
        assert_eq!(render(own, &memory), own);
    }

    #[test]
    fn p01_swap_is_what_the_quota_and_the_host_leave() {
        let host = HOST.replace("SwapTotal:             0 kB", "SwapTotal:       2097152 kB");
        let memory = Memory { limit: 1 << 30, swap_limit: 512 << 20, swap_used: 100 << 20, ..Memory::default() };
        let text = render(&host, &memory);
        assert_eq!((shown(&text, "SwapTotal"), shown(&text, "SwapFree")), (512 << 20, 412 << 20));
        assert_eq!(totals(&host, &memory).swap_free, 412 << 20);
        // Put there while it slept: its limit is none.
        let slept = Memory { swap_limit: 0, ..memory };
        let text = render(&host, &slept);
        assert_eq!((shown(&text, "SwapTotal"), shown(&text, "SwapFree")), (100 << 20, 0));
    }
}

//! What a berth uses, as the node tells it: read from the kernel when asked for, in one pass over its control groups and its link.

use std::{fs, path::Path};

use berth_protocol::{IoUsage, NetworkUsage, Pressure, Stall, Usage};
use berth_runtime::cgroup::{self, Group};

/// Of a berth that is up; the disk's figures are another's. What cannot be read is 0: it may just be ending. Blocking.
pub(super) fn of(group: &Group, link: &str) -> Usage {
    let cgroup::Usage { memory_bytes, swap_bytes, pids, cpu_usec, throttled_usec, oom_kills, io, pressure } =
        group.usage().unwrap_or_default();
    let cgroup::IoUsage { read_bytes, write_bytes, read_ops, write_ops } = io;
    Usage {
        memory_bytes,
        swap_bytes,
        pids,
        cpu_usec,
        throttled_usec,
        oom_kills,
        io: IoUsage { read_bytes, write_bytes, read_ops, write_ops },
        network: network(link),
        pressure: pressure.map(|p| Pressure { cpu: stall(p.cpu), memory: stall(p.memory), io: stall(p.io) }),
        ..Usage::default()
    }
}

fn stall(stall: cgroup::Stall) -> Stall {
    let cgroup::Stall { some_avg10, some_avg60, full_avg10, full_avg60 } = stall;
    Stall { some_avg10, some_avg60, full_avg10, full_avg60 }
}

/// The host's end of the link counts what comes out of the berth as received.
fn network(link: &str) -> NetworkUsage {
    let dir = Path::new("/sys/class/net").join(link).join("statistics");
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    NetworkUsage { egress_bytes: read("rx_bytes"), ingress_bytes: read("tx_bytes") }
}

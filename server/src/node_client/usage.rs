//! What berths use, between the node's wire types and the domain.

use berth_protocol as wire;

use crate::domain::{BerthId, DiskUsage, IoUsage, NetworkUsage, Pressure, Sample, Stall, Usage, Waits};

impl From<wire::BerthUsage> for Sample {
    fn from(told: wire::BerthUsage) -> Self {
        Self { user: told.user, id: BerthId(told.id.0), state: told.state.into(), at: told.at, usage: told.usage.into() }
    }
}

impl From<wire::Usage> for Usage {
    fn from(usage: wire::Usage) -> Self {
        let wire::Usage { memory_bytes, swap_bytes, pids, cpu_usec, throttled_usec, oom_kills, disk_bytes, .. } = usage;
        let (io, network) = (usage.io, usage.network);
        Self {
            memory_bytes,
            swap_bytes,
            pids,
            cpu_usec,
            throttled_usec,
            oom_kills,
            disk_bytes,
            disk: usage.disk.map(|disk| DiskUsage {
                used_bytes: disk.used_bytes,
                limit_bytes: disk.limit_bytes,
                used_inodes: disk.used_inodes,
                limit_inodes: disk.limit_inodes,
            }),
            io: IoUsage { read_bytes: io.read_bytes, write_bytes: io.write_bytes, read_ops: io.read_ops, write_ops: io.write_ops },
            network: NetworkUsage { egress_bytes: network.egress_bytes, ingress_bytes: network.ingress_bytes },
            pressure: usage.pressure.map(|pressure| Pressure {
                cpu: stall(pressure.cpu),
                memory: stall(pressure.memory),
                io: stall(pressure.io),
            }),
        }
    }
}

fn stall(stall: wire::Stall) -> Stall {
    let wire::Stall { some_avg10, some_avg60, full_avg10, full_avg60 } = stall;
    Stall { some_avg10, some_avg60, full_avg10, full_avg60 }
}

impl From<wire::Waits> for Waits {
    fn from(waits: wire::Waits) -> Self {
        Self { field: waits.field, reason: waits.reason }
    }
}

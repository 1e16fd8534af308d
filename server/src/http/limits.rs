//! Limits between what clients say and the domain.

use berth_api as api;

use super::policy;
use crate::{
    domain::{Expected, InvalidEgress, LimitChange, Limits},
    service::ChangeBerth,
};

/// The limits that a request names; all kinds of requests name them alike.
macro_rules! named {
    ($kind:ident, $from:ident) => {
        $kind {
            cpu_millis: $from.cpu_millis,
            cpu_weight: $from.cpu_weight,
            memory_bytes: $from.memory_bytes,
            swap_bytes: $from.swap_bytes,
            pids: $from.pids,
            disk_bytes: $from.disk_bytes,
            memory_high_bytes: $from.memory_high_bytes,
            inodes: $from.inodes,
            io_read_bps: $from.io_read_bps,
            io_write_bps: $from.io_write_bps,
            io_read_iops: $from.io_read_iops,
            io_write_iops: $from.io_write_iops,
            network_egress_bits: $from.network_egress_bits,
            network_ingress_bits: $from.network_ingress_bits,
        }
    };
}

pub(super) use named;

pub(super) fn shown(from: Limits) -> api::Limits {
    use api::Limits;
    named!(Limits, from)
}

/// Absent keeps, `null` goes back to the profile.
pub(super) fn changed(from: api::BerthChange) -> Result<ChangeBerth, InvalidEgress> {
    let limits = named!(LimitChange, from);
    let egress = from.egress.map(|egress| egress.map(policy::egress).transpose()).transpose()?;
    Ok(ChangeBerth { profile: from.profile, limits, egress, expected: Expected::Whatever })
}

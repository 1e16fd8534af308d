//! Limits between what clients say and the domain.

use berth_api as api;

use super::policy;
use crate::{
    domain::{Expected, InvalidEgress, LimitChange, Limits, Own, OwnLimits},
    service::{AssignBerth, ChangeBerth},
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
    Ok(ChangeBerth { profile: from.profile, limits, egress, until: from.until, by_rule: false, expected: Expected::Whatever })
}

/// A new berth; what is absent is the profile's.
pub(super) fn new_berth(new: api::NewBerth) -> Result<AssignBerth, InvalidEgress> {
    Ok(AssignBerth {
        user: new.user,
        profile: new.profile,
        image: new.image,
        own: Own { limits: named!(OwnLimits, new), egress: new.egress.map(policy::egress).transpose()? },
        allow_system: new.allow_system,
        start: new.start,
        until: new.until,
    })
}

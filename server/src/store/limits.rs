//! Columns of limits: a profile's, and those in which a berth differs from it. Statements that write them bind them from $3 on, in the
//! order of [`columns`]; what else they bind comes before and after.

use sqlx::FromRow;

use super::{Error, Query, from_json, signed, to_json, unsigned};
use crate::domain::{Limits, Own, OwnLimits};

/// The columns, as profiles and berths name them.
macro_rules! columns {
    () => {
        "cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids, disk_bytes, memory_high_bytes, inodes, io_read_bps, io_write_bps,
             io_read_iops, io_write_iops, network_egress_bits, network_ingress_bits"
    };
}

/// Their places in a list of values: $3 to $16.
macro_rules! values {
    () => {
        "$3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16"
    };
}

/// Their places in an update: $3 to $16.
macro_rules! assignments {
    () => {
        "cpu_millis = $3, cpu_weight = $4, memory_bytes = $5, swap_bytes = $6, pids = $7, disk_bytes = $8, memory_high_bytes = $9,
             inodes = $10, io_read_bps = $11, io_write_bps = $12, io_read_iops = $13, io_write_iops = $14, network_egress_bits = $15,
             network_ingress_bits = $16"
    };
}

/// What [`ProfileRow`] is read from; `p` is the profile.
macro_rules! of_profile {
    () => {
        "p.cpu_millis AS profile_cpu_millis, p.cpu_weight AS profile_cpu_weight, p.memory_bytes AS profile_memory_bytes,
             p.swap_bytes AS profile_swap_bytes, p.pids AS profile_pids, p.disk_bytes AS profile_disk_bytes,
             p.memory_high_bytes AS profile_memory_high_bytes, p.inodes AS profile_inodes, p.io_read_bps AS profile_io_read_bps,
             p.io_write_bps AS profile_io_write_bps, p.io_read_iops AS profile_io_read_iops, p.io_write_iops AS profile_io_write_iops,
             p.network_egress_bits AS profile_network_egress_bits, p.network_ingress_bits AS profile_network_ingress_bits"
    };
}

/// What [`OwnRow`] is read from; `b` is the berth.
macro_rules! of_berth {
    () => {
        "b.cpu_millis AS own_cpu_millis, b.cpu_weight AS own_cpu_weight, b.memory_bytes AS own_memory_bytes,
             b.swap_bytes AS own_swap_bytes, b.pids AS own_pids, b.disk_bytes AS own_disk_bytes,
             b.memory_high_bytes AS own_memory_high_bytes, b.inodes AS own_inodes, b.io_read_bps AS own_io_read_bps,
             b.io_write_bps AS own_io_write_bps, b.io_read_iops AS own_io_read_iops, b.io_write_iops AS own_io_write_iops,
             b.network_egress_bits AS own_network_egress_bits, b.network_ingress_bits AS own_network_ingress_bits, b.egress AS own_egress"
    };
}

pub(super) use {assignments, columns, of_berth, of_profile, values};

#[derive(FromRow)]
pub(super) struct ProfileRow {
    profile_cpu_millis: i64,
    profile_cpu_weight: i64,
    profile_memory_bytes: i64,
    profile_swap_bytes: i64,
    profile_pids: i64,
    profile_disk_bytes: i64,
    profile_memory_high_bytes: Option<i64>,
    profile_inodes: Option<i64>,
    profile_io_read_bps: Option<i64>,
    profile_io_write_bps: Option<i64>,
    profile_io_read_iops: Option<i64>,
    profile_io_write_iops: Option<i64>,
    profile_network_egress_bits: Option<i64>,
    profile_network_ingress_bits: Option<i64>,
}

#[derive(FromRow)]
pub(super) struct OwnRow {
    own_cpu_millis: Option<i64>,
    own_cpu_weight: Option<i64>,
    own_memory_bytes: Option<i64>,
    own_swap_bytes: Option<i64>,
    own_pids: Option<i64>,
    own_disk_bytes: Option<i64>,
    own_memory_high_bytes: Option<i64>,
    own_inodes: Option<i64>,
    own_io_read_bps: Option<i64>,
    own_io_write_bps: Option<i64>,
    own_io_read_iops: Option<i64>,
    own_io_write_iops: Option<i64>,
    own_network_egress_bits: Option<i64>,
    own_network_ingress_bits: Option<i64>,
    own_egress: Option<String>,
}

impl TryFrom<ProfileRow> for Limits {
    type Error = Error;

    fn try_from(row: ProfileRow) -> Result<Self, Error> {
        Ok(Self {
            cpu_millis: unsigned("profiles", "cpu_millis", row.profile_cpu_millis)?,
            cpu_weight: unsigned("profiles", "cpu_weight", row.profile_cpu_weight)?,
            memory_bytes: unsigned("profiles", "memory_bytes", row.profile_memory_bytes)?,
            swap_bytes: unsigned("profiles", "swap_bytes", row.profile_swap_bytes)?,
            pids: unsigned("profiles", "pids", row.profile_pids)?,
            disk_bytes: unsigned("profiles", "disk_bytes", row.profile_disk_bytes)?,
            memory_high_bytes: optional("profiles", "memory_high_bytes", row.profile_memory_high_bytes)?,
            inodes: optional("profiles", "inodes", row.profile_inodes)?,
            io_read_bps: optional("profiles", "io_read_bps", row.profile_io_read_bps)?,
            io_write_bps: optional("profiles", "io_write_bps", row.profile_io_write_bps)?,
            io_read_iops: optional("profiles", "io_read_iops", row.profile_io_read_iops)?,
            io_write_iops: optional("profiles", "io_write_iops", row.profile_io_write_iops)?,
            network_egress_bits: optional("profiles", "network_egress_bits", row.profile_network_egress_bits)?,
            network_ingress_bits: optional("profiles", "network_ingress_bits", row.profile_network_ingress_bits)?,
        })
    }
}

impl TryFrom<OwnRow> for Own {
    type Error = Error;

    fn try_from(row: OwnRow) -> Result<Self, Error> {
        Ok(Self {
            limits: OwnLimits {
                cpu_millis: optional("berths", "cpu_millis", row.own_cpu_millis)?,
                cpu_weight: optional("berths", "cpu_weight", row.own_cpu_weight)?,
                memory_bytes: optional("berths", "memory_bytes", row.own_memory_bytes)?,
                swap_bytes: optional("berths", "swap_bytes", row.own_swap_bytes)?,
                pids: optional("berths", "pids", row.own_pids)?,
                disk_bytes: optional("berths", "disk_bytes", row.own_disk_bytes)?,
                memory_high_bytes: optional("berths", "memory_high_bytes", row.own_memory_high_bytes)?,
                inodes: optional("berths", "inodes", row.own_inodes)?,
                io_read_bps: optional("berths", "io_read_bps", row.own_io_read_bps)?,
                io_write_bps: optional("berths", "io_write_bps", row.own_io_write_bps)?,
                io_read_iops: optional("berths", "io_read_iops", row.own_io_read_iops)?,
                io_write_iops: optional("berths", "io_write_iops", row.own_io_write_iops)?,
                network_egress_bits: optional("berths", "network_egress_bits", row.own_network_egress_bits)?,
                network_ingress_bits: optional("berths", "network_ingress_bits", row.own_network_ingress_bits)?,
            },
            egress: row.own_egress.map(|text| from_json("berths", "egress", text)).transpose()?,
        })
    }
}

/// Binds a profile's limits: $3 to $16.
pub(super) fn bind(query: Query, limits: &Limits) -> Query {
    query
        .bind(i64::from(limits.cpu_millis))
        .bind(i64::from(limits.cpu_weight))
        .bind(signed(limits.memory_bytes))
        .bind(signed(limits.swap_bytes))
        .bind(i64::from(limits.pids))
        .bind(signed(limits.disk_bytes))
        .bind(limits.memory_high_bytes.map(signed))
        .bind(limits.inodes.map(signed))
        .bind(limits.io_read_bps.map(signed))
        .bind(limits.io_write_bps.map(signed))
        .bind(limits.io_read_iops.map(signed))
        .bind(limits.io_write_iops.map(signed))
        .bind(limits.network_egress_bits.map(signed))
        .bind(limits.network_ingress_bits.map(signed))
}

/// Binds what is a berth's own: $3 to $16, and the egress after them.
pub(super) fn bind_own(query: Query, own: &Own) -> Query {
    let limits = &own.limits;
    query
        .bind(limits.cpu_millis.map(i64::from))
        .bind(limits.cpu_weight.map(i64::from))
        .bind(limits.memory_bytes.map(signed))
        .bind(limits.swap_bytes.map(signed))
        .bind(limits.pids.map(i64::from))
        .bind(limits.disk_bytes.map(signed))
        .bind(limits.memory_high_bytes.map(signed))
        .bind(limits.inodes.map(signed))
        .bind(limits.io_read_bps.map(signed))
        .bind(limits.io_write_bps.map(signed))
        .bind(limits.io_read_iops.map(signed))
        .bind(limits.io_write_iops.map(signed))
        .bind(limits.network_egress_bits.map(signed))
        .bind(limits.network_ingress_bits.map(signed))
        .bind(own.egress.as_ref().map(to_json))
}

fn optional<T: TryFrom<i64>>(table: &'static str, column: &'static str, value: Option<i64>) -> Result<Option<T>, Error> {
    value.map(|value| unsigned(table, column, value)).transpose()
}

//! What the host can promise.

use super::Error;
use crate::{
    config::Policy,
    domain::{InvalidLimits, Limits, NodeInfo, Problem, Refusal, Warning},
    store::{Connection, berths},
};

pub(super) fn check_limits(limits: Limits) -> Result<(), Error> {
    limits.validate().map_err(|error| {
        let code = match error {
            InvalidLimits::TooLow { .. } => "limit_too_low",
            InvalidLimits::TooHigh { .. } | InvalidLimits::HighAboveMemory { .. } => "limit_too_high",
        };
        let (detail, hint) = readable(error);
        Problem::new(Refusal::Limit, code, detail).hint(hint).into()
    })
}

/// Refuses disks that the file system cannot hold, and warns of more cpu and memory than the host has. To be called after the change,
/// in the same transaction; `before` are the sums before it, so that a change which lowers them is never refused.
pub(super) async fn check_host(
    connection: &mut Connection,
    before: berths::Sums,
    node: &NodeInfo,
    policy: &Policy,
) -> Result<Vec<Warning>, Error> {
    let sums = berths::sums(connection).await?;
    let capacity = (node.disk_bytes as f64 * policy.disk_overcommit) as u64;
    if sums.disk_bytes > capacity && sums.disk_bytes > before.disk_bytes {
        let detail = format!(
            "the disks of all berths would add up to {}, the file system has {} (allowed: {} times that)",
            bytes(sums.disk_bytes),
            bytes(node.disk_bytes),
            policy.disk_overcommit
        );
        let free = capacity.saturating_sub(before.disk_bytes);
        let hint = format!("at most {} more can be promised; or raise policy.disk_overcommit in server.toml", bytes(free));
        return Err(Problem::new(Refusal::Limit, "disk_overcommitted", detail).hint(hint).into());
    }
    let mut warnings = Vec::new();
    let cpus = u64::from(node.cpus) * 1000;
    if sums.cpu_millis > cpus && sums.cpu_millis > before.cpu_millis {
        let detail = format!("all berths together may use {} CPUs, the host has {}", thousandths(sums.cpu_millis), node.cpus);
        warnings.push(Warning { code: "cpu_overcommitted", detail });
    }
    if sums.memory_bytes > node.memory_bytes && sums.memory_bytes > before.memory_bytes {
        let detail =
            format!("all berths together may use {} of memory, the host has {}", bytes(sums.memory_bytes), bytes(node.memory_bytes));
        warnings.push(Warning { code: "memory_overcommitted", detail });
    }
    Ok(warnings)
}

/// What is wrong, and what to ask for instead.
fn readable(error: InvalidLimits) -> (String, String) {
    match error {
        InvalidLimits::TooLow { field, value, bound } => {
            let (value, bound) = (figure(field, value), figure(field, bound));
            (format!("{field} is {value}, the least is {bound}"), format!("ask for {bound} or more"))
        }
        InvalidLimits::TooHigh { field, value, bound } => {
            let (value, bound) = (figure(field, value), figure(field, bound));
            (format!("{field} is {value}, the most is {bound}"), format!("ask for {bound} or less"))
        }
        InvalidLimits::HighAboveMemory { high, memory } => {
            let (high, memory) = (bytes(high), bytes(memory));
            let detail = format!("memory_high_bytes is {high}, the most is the memory of the berth, {memory}");
            (detail, format!("ask for {memory} or less, for none, or for more memory"))
        }
    }
}

/// A limit in units that people read.
fn figure(field: &str, value: u64) -> String {
    match field.rsplit('_').next() {
        Some("bytes") => bytes(value),
        Some("bps") => format!("{}/s", bytes(value)),
        Some("iops") => format!("{value} operations/s"),
        Some("bits") => bits(value),
        _ => value.to_string(),
    }
}

/// Bits per second in 1000-based units.
fn bits(count: u64) -> String {
    let (mut value, mut units) = (count as f64, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"].iter().peekable());
    loop {
        match units.next() {
            Some(_) if value >= 1000.0 && units.peek().is_some() => value /= 1000.0,
            unit => return format!("{value} {}", unit.unwrap_or(&"Tbit/s")),
        }
    }
}

/// Bytes in the 1024-based units of Docker.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value.fract() == 0.0 || unit == 0 {
        true => format!("{value:.0} {}", UNITS[unit]),
        false => format!("{value:.1} {}", UNITS[unit]),
    }
}

fn thousandths(count: u64) -> String {
    format!("{}", count as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_units_that_people_read() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1 << 30, "1 GiB"), ((1 << 30) + (1 << 29), "1.5 GiB"), (u64::MAX, "16384 PiB")]
        {
            assert_eq!(bytes(count), text);
        }
        let error = Limits { memory_bytes: 100 << 20, ..Limits::LEAST }.validate().unwrap_err();
        assert_eq!(readable(error).0, "memory_bytes is 100 MiB, the least is 256 MiB");
        for (field, value, text) in [
            ("io_read_bps", 1 << 20, "1 MiB/s"),
            ("io_read_iops", 49, "49 operations/s"),
            ("network_egress_bits", 999, "999 bit/s"),
            ("network_egress_bits", 12_500_000, "12.5 Mbit/s"),
            ("network_egress_bits", 5_000_000_000_000_000, "5000 Tbit/s"),
            ("pids", 3, "3"),
        ] {
            assert_eq!(figure(field, value), text);
        }
        assert_eq!(thousandths(2500), "2.5");
    }
}

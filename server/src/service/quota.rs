//! What the host can promise.

use super::Error;
use crate::{
    config::Policy,
    domain::{InvalidLimits, Limits, NodeInfo, Problem, Refusal, Warning},
    store::berths::Sums,
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

/// What of one resource is promised, and may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// `cpu_millis`, `memory_bytes` or `disk_bytes`.
    pub resource: &'static str,
    /// What the host has.
    pub capacity: u64,
    /// What may be promised of it by the policy; nothing: whatever is asked for, with a warning above the capacity.
    pub allowed: Option<u64>,
    /// What all berths together were promised before the change, and after it.
    pub promised: u64,
    pub after: u64,
}

pub(super) fn headroom(before: Sums, after: Sums, node: &NodeInfo, policy: &Policy) -> [Headroom; 3] {
    let one = |resource, capacity: u64, ratio: Option<f64>, of: fn(&Sums) -> u64| Headroom {
        resource,
        capacity,
        allowed: ratio.map(|ratio| (capacity as f64 * ratio) as u64),
        promised: of(&before),
        after: of(&after),
    };
    [
        one("cpu_millis", u64::from(node.cpus) * 1000, policy.cpu_overcommit, |sums| sums.cpu_millis),
        one("memory_bytes", node.memory_bytes, policy.memory_overcommit, |sums| sums.memory_bytes),
        one("disk_bytes", node.disk_bytes, Some(policy.disk_overcommit), |sums| sums.disk_bytes),
    ]
}

/// Refuses promises beyond the policy, and warns of more CPU and memory than the host has. `before` and `after` are the sums of both sides of
/// the change: one that lowers them is never refused.
pub(super) fn check_host(before: Sums, after: Sums, node: &NodeInfo, policy: &Policy) -> Result<Vec<Warning>, Error> {
    let mut warnings = Vec::new();
    for Headroom { resource, capacity, allowed, promised, after } in headroom(before, after, node, policy) {
        if after <= promised {
            continue;
        }
        let (what, code, shown): (_, _, fn(u64) -> String) = match resource {
            "cpu_millis" => ("CPU", "cpu_overcommitted", |count| format!("{} CPUs", thousandths(count))),
            "memory_bytes" => ("memory", "memory_overcommitted", bytes),
            _ => ("disk", "disk_overcommitted", bytes),
        };
        let sum = match resource {
            "disk_bytes" => format!("the disks of all berths would add up to {}, the file system has {}", shown(after), shown(capacity)),
            _ => format!("all berths together could use {} of {what}, the host has {}", shown(after), shown(capacity)),
        };
        match allowed {
            Some(allowed) if after > allowed => {
                let ratio = allowed as f64 / capacity.max(1) as f64;
                let detail = format!("{sum} (allowed: {} times that)", (ratio * 100.0).round() / 100.0);
                let free = shown(allowed.saturating_sub(promised));
                let key = code.replace("overcommitted", "overcommit");
                let hint = format!("at most {free} more can be promised; or raise policy.{key} in server.toml");
                return Err(Problem::new(Refusal::Limit, code, detail).hint(hint).into());
            }
            _ if after > capacity && resource != "disk_bytes" => {
                let told = match resource {
                    "cpu_millis" => format!("all berths together may use {}, the host has {}", shown(after), thousandths(capacity)),
                    _ => format!("all berths together may use {} of memory, the host has {}", shown(after), shown(capacity)),
                };
                warnings.push(Warning { code, detail: told });
            }
            _ => {}
        }
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

    const GIB: u64 = 1 << 30;

    fn host() -> NodeInfo {
        NodeInfo {
            version: String::new(),
            hostname: String::new(),
            kernel: String::new(),
            cgroup: String::new(),
            cpus: 4,
            memory_bytes: 8 * GIB,
            disk_bytes: 100 * GIB,
            disk_free_bytes: 0,
        }
    }

    fn sums(cpus: u64, memory: u64, disk: u64) -> Sums {
        Sums { cpu_millis: cpus * 1000, memory_bytes: memory * GIB, disk_bytes: disk * GIB, berths: 1 }
    }

    fn refused(before: Sums, after: Sums, policy: &Policy) -> Problem {
        match check_host(before, after, &host(), policy) {
            Err(Error::Refused(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_resource_has_a_ratio_of_its_own_and_a_refusal_names_figure_limit_and_next_step() {
        let policy = Policy { cpu_overcommit: Some(4.0), memory_overcommit: Some(1.5), disk_overcommit: 2.0 };
        let problem = refused(sums(4, 8, 10), sums(4, 13, 10), &policy);
        assert_eq!(problem.code, "memory_overcommitted");
        assert_eq!(problem.detail, "all berths together could use 13 GiB of memory, the host has 8 GiB (allowed: 1.5 times that)");
        assert_eq!(problem.hint.unwrap(), "at most 4 GiB more can be promised; or raise policy.memory_overcommit in server.toml");
        assert_eq!(refused(sums(15, 1, 1), sums(17, 1, 1), &policy).hint.unwrap().split(" more").next(), Some("at most 1 CPUs"));
        assert_eq!(refused(sums(1, 1, 190), sums(1, 1, 201), &policy).code, "disk_overcommitted");
        // Within the policy it is allowed, and above the host it is told.
        let warned = check_host(sums(4, 8, 10), sums(16, 12, 200), &host(), &policy).unwrap();
        assert_eq!(warned.iter().map(|warning| warning.code).collect::<Vec<_>>(), ["cpu_overcommitted", "memory_overcommitted"]);
        // What lowers a sum is never refused, however high it is.
        assert_eq!(check_host(sums(100, 100, 1000), sums(100, 99, 999), &host(), &policy).unwrap(), []);
    }

    #[test]
    fn without_a_ratio_more_than_the_host_has_is_only_told() {
        let policy = Policy::default();
        let warned = check_host(sums(1, 1, 1), sums(500, 900, 1), &host(), &policy).unwrap();
        assert_eq!(warned.len(), 2, "{warned:?}");
        let [cpu, memory, disk] = headroom(sums(1, 2, 3), sums(4, 5, 6), &host(), &policy);
        assert_eq!((cpu.resource, cpu.capacity, cpu.allowed, cpu.promised, cpu.after), ("cpu_millis", 4000, None, 1000, 4000));
        assert_eq!((memory.allowed, memory.after), (None, 5 * GIB));
        assert_eq!((disk.allowed, disk.promised, disk.after), (Some(100 * GIB), 3 * GIB, 6 * GIB));
    }
}

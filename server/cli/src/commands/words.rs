//! Limits, use and differences in words: the same for `show`, `status`, `set` and profiles.

use berth_api::{Egress, FieldChange, Limits, Policy, Restart, Usage};
use serde_json::Value;

use crate::{
    dates,
    output::printable,
    units::{self, Span},
};

/// What is asked for of a berth in one line: the four limits that each berth has, and those beyond what is usual.
pub(super) fn quota(limits: Limits) -> String {
    let cpus = units::cpus(limits.cpu_millis.into());
    let mut words = vec![
        format!("{cpus} {}", if cpus == "1" { "CPU" } else { "CPUs" }),
        format!("{} memory", units::bytes(limits.memory_bytes)),
        format!("{} processes", limits.pids),
        format!("{} disk", units::bytes(limits.disk_bytes)),
    ];
    words.extend((limits.swap_bytes > 0).then(|| format!("{} swap", units::bytes(limits.swap_bytes))));
    words.extend((limits.cpu_weight != 100).then(|| format!("weight {}", limits.cpu_weight)));
    words.extend(limits.memory_high_bytes.map(|high| format!("slowed from {} memory", units::bytes(high))));
    words.extend(limits.inodes.map(|inodes| format!("{inodes} files")));
    let rest = [
        (limits.io_read_bps.map(per_second), "read"),
        (limits.io_write_bps.map(per_second), "written"),
        (limits.io_read_iops.map(operations), "reading"),
        (limits.io_write_iops.map(operations), "writing"),
        (limits.network_egress_bits.map(units::bits), "out"),
        (limits.network_ingress_bits.map(units::bits), "in"),
    ];
    words.extend(rest.into_iter().filter_map(|(limit, word)| limit.map(|limit| format!("{limit} {word}"))));
    words.join(", ")
}

/// Each kind of limit on a line of its own; `own` marks what is a berth's own.
pub(super) fn limits(limits: Limits, own: &[String]) -> Vec<(&'static str, String)> {
    let mark = |name: &str, text: String| if own.iter().any(|own| own == name) { format!("{text} (own)") } else { text };
    let join = |parts: Vec<Option<String>>| parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let weight = (limits.cpu_weight != 100 || own.iter().any(|own| own == "cpu_weight"))
        .then(|| mark("cpu_weight", format!("weight {}", limits.cpu_weight)));
    let high = limits.memory_high_bytes.map(|high| mark("memory_high_bytes", format!("slowed from {}", units::bytes(high))));
    let swap = match limits.swap_bytes {
        0 => mark("swap_bytes", "no swap".to_owned()),
        swap => mark("swap_bytes", format!("swap {}", units::bytes(swap))),
    };
    let inodes = limits.inodes.map(|inodes| mark("inodes", format!("{inodes} files")));
    let mut lines = vec![
        ("cpus", join(vec![Some(mark("cpu_millis", units::cpus(limits.cpu_millis.into()))), weight])),
        ("memory", join(vec![Some(mark("memory_bytes", units::bytes(limits.memory_bytes))), high, Some(swap)])),
        ("pids", mark("pids", limits.pids.to_string())),
        ("disk", join(vec![Some(mark("disk_bytes", units::bytes(limits.disk_bytes))), inodes])),
    ];
    let named = |name: &'static str, limit: Option<String>, word: &str| match limit {
        Some(limit) => Some(mark(name, format!("{word} {limit}"))),
        None => own.iter().any(|own| own == name).then(|| mark(name, format!("{word} without limit"))),
    };
    let io = join(vec![
        named("io_read_bps", limits.io_read_bps.map(per_second), "read"),
        named("io_read_iops", limits.io_read_iops.map(operations), "read"),
        named("io_write_bps", limits.io_write_bps.map(per_second), "write"),
        named("io_write_iops", limits.io_write_iops.map(operations), "write"),
    ]);
    let network = join(vec![
        named("network_egress_bits", limits.network_egress_bits.map(units::bits), "out"),
        named("network_ingress_bits", limits.network_ingress_bits.map(units::bits), "in"),
    ]);
    lines.extend([("io", io), ("network", network)].into_iter().filter(|(_, text)| !text.is_empty()));
    lines
}

/// What a berth uses, on as many lines as there is something to say.
pub(super) fn usage(usage: &Usage, up: bool) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let disk = match usage.disk {
        Some(disk) => format!(
            "{} disk of {} ({} on the host)",
            units::bytes(disk.used_bytes),
            units::bytes(disk.limit_bytes),
            units::bytes(usage.disk_bytes)
        ),
        None => format!("{} disk", units::bytes(usage.disk_bytes)),
    };
    if !up {
        return vec![("used", disk)];
    }
    let mut used = vec![format!("{} memory", units::bytes(usage.memory_bytes))];
    used.extend((usage.swap_bytes > 0).then(|| format!("{} swap", units::bytes(usage.swap_bytes))));
    used.extend([disk, format!("{} processes", usage.pids), format!("{} CPU", seconds(usage.cpu_usec))]);
    used.extend((usage.throttled_usec > 0).then(|| format!("held back {} by the CPU limit", seconds(usage.throttled_usec))));
    used.extend(usage.disk.map(|disk| format!("{} of {} files", disk.used_inodes, disk.limit_inodes)));
    lines.push(("used", used.join(", ")));
    let (io, network) = (usage.io, usage.network);
    lines.push((
        "passed",
        format!(
            "{} read, {} written; {} out, {} in",
            units::bytes(io.read_bytes),
            units::bytes(io.write_bytes),
            units::bytes(network.egress_bytes),
            units::bytes(network.ingress_bytes)
        ),
    ));
    if let Some(pressure) = usage.pressure {
        let parts = [("CPU", pressure.cpu), ("memory", pressure.memory), ("disk", pressure.io)];
        let parts: Vec<_> = parts.iter().map(|(word, stall)| format!("{} % for {word}", hundredths(stall.some_avg10))).collect();
        lines.push(("waited", format!("{} (of the last 10 s)", parts.join(", "))));
    }
    if usage.oom_kills > 0 {
        lines.push(("killed", format!("{} processes since the start, for want of memory", usage.oom_kills)));
    }
    lines
}

pub(super) fn egress(egress: &Egress) -> String {
    match egress {
        Egress::All => "everything that the host reaches".to_owned(),
        Egress::Internet => "the internet; no private networks, nothing of the host".to_owned(),
        Egress::None => "nothing".to_owned(),
        Egress::List(cidrs) => format!("only {}", printable(&cidrs.join(", "))),
    }
}

/// What a change replaces: name, before, after.
pub(super) fn difference(change: &FieldChange) -> [String; 3] {
    [change.field.clone(), value(&change.field, &change.before), value(&change.field, &change.after)]
}

fn value(field: &str, value: &Value) -> String {
    let (Some(number), unit) = (value.as_u64(), field.rsplit('_').next().unwrap_or_default()) else {
        return match (field, value) {
            ("freeze_after" | "stop_after" | "until", Value::Null) => "never".to_owned(),
            (_, Value::Null) => "none".to_owned(),
            (_, Value::String(text)) => printable(text),
            ("egress", Value::Object(list)) => printable(&list.get("list").unwrap_or(value).to_string()),
            _ => printable(&value.to_string()),
        };
    };
    match (field, unit) {
        ("cpu_millis", _) => units::cpus(number),
        ("until", _) => i64::try_from(number).map_or_else(|_| number.to_string(), dates::shown),
        (_, "bytes") => units::bytes(number),
        (_, "bps") => per_second(number),
        (_, "iops") => operations(number),
        (_, "bits") => units::bits(number),
        ("freeze_after" | "stop_after", _) => {
            u32::try_from(number).map_or_else(|_| number.to_string(), |span| Span(Some(span)).to_string())
        }
        _ => number.to_string(),
    }
}

/// The policy of a profile in words, also shown with a berth.
pub(super) fn idle(policy: &Policy) -> String {
    format!("frozen after {}, stopped after {}", Span(policy.freeze_after), Span(policy.stop_after))
}

pub(super) fn restart(policy: &Policy) -> String {
    match policy.restart {
        Restart::OnFailure => "started again when it ends unasked",
        Restart::Never => "not started again before the next connection when it ends unasked",
    }
    .to_owned()
}

pub(super) fn per_second(bytes: u64) -> String {
    format!("{}/s", units::bytes(bytes))
}

fn operations(count: u64) -> String {
    format!("{count} operations/s")
}

fn seconds(usec: u64) -> String {
    format!("{:.1} s", usec as f64 / 1e6)
}

/// Hundredths of a percent, without a fraction that says nothing.
pub(super) fn hundredths(value: u32) -> String {
    match value % 100 {
        0 => (value / 100).to_string(),
        _ => format!("{:.1}", f64::from(value) / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits {
        cpu_millis: 1500,
        cpu_weight: 100,
        memory_bytes: 4 << 30,
        memory_high_bytes: None,
        swap_bytes: 0,
        pids: 512,
        disk_bytes: 20 << 30,
        inodes: None,
        io_read_bps: None,
        io_write_bps: None,
        io_read_iops: None,
        io_write_iops: None,
        network_egress_bits: None,
        network_ingress_bits: None,
    };

    #[test]
    fn only_what_is_beyond_the_usual_is_said() {
        assert_eq!(quota(LIMITS), "1.5 CPUs, 4 GiB memory, 512 processes, 20 GiB disk");
        let more =
            Limits { swap_bytes: 1 << 30, cpu_weight: 50, io_read_bps: Some(1 << 20), network_egress_bits: Some(1_000_000), ..LIMITS };
        assert!(quota(more).ends_with("20 GiB disk, 1 GiB swap, weight 50, 1 MiB/s read, 1 Mbit/s out"), "{}", quota(more));
        let shown = limits(more, &["cpu_millis".to_owned(), "io_write_iops".to_owned()]);
        assert_eq!(shown[0], ("cpus", "1.5 (own), weight 50".to_owned()));
        assert_eq!(shown[1], ("memory", "4 GiB, swap 1 GiB".to_owned()));
        assert_eq!(shown[4], ("io", "read 1 MiB/s, write without limit (own)".to_owned()));
        assert_eq!(limits(LIMITS, &[]).len(), 4);
    }

    #[test]
    fn differences_are_in_the_units_of_their_fields() {
        let of =
            |field: &str, before: Value, after: Value| difference(&FieldChange { field: field.to_owned(), before, after, waits: None });
        for (field, before, after, shown) in [
            ("cpu_millis", json!(1500), json!(2000), ["1.5", "2"]),
            ("memory_bytes", json!(1 << 30), json!(2_u64 << 30), ["1 GiB", "2 GiB"]),
            ("io_read_bps", json!(null), json!(1 << 20), ["none", "1 MiB/s"]),
            ("network_egress_bits", json!(1_000_000), json!(null), ["1 Mbit/s", "none"]),
            ("io_write_iops", json!(50), json!(60), ["50 operations/s", "60 operations/s"]),
            ("egress", json!("internet"), json!({ "list": ["10.0.0.0/8"] }), ["internet", "[\"10.0.0.0/8\"]"]),
            ("freeze_after", json!(900), json!(null), ["15m", "never"]),
            ("profile", json!("default"), json!("lab"), ["default", "lab"]),
        ] {
            assert_eq!(of(field, before, after), [field, shown[0], shown[1]]);
        }
    }

    #[test]
    fn pressure_and_killed_processes_are_said_where_there_are_any() {
        let usage = Usage { oom_kills: 2, ..Usage::default() };
        let words = |usage: &Usage| super::usage(usage, true).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(words(&usage), ["used", "passed", "killed"]);
        assert_eq!(words(&Usage { pressure: Some(Default::default()), ..usage }), ["used", "passed", "waited", "killed"]);
        assert_eq!(super::usage(&usage, false), [("used", "0 B disk".to_owned())]);
        assert_eq!((hundredths(0), hundredths(150), hundredths(10_000)), ("0".to_owned(), "1.5".to_owned(), "100".to_owned()));
    }
}

//! The ranges of host ids: how many are in use, in quarantine, held, free; and whether one overlaps ids that others are named for.

use std::fs;

use berth_protocol::Check;
use berth_runtime::{
    error::chain,
    idmap::{COUNT, Held},
};

use super::{failed, ok, warning};
use crate::daemon::{host::now_ms, node::Node};

/// Free ranges, in percent of the pool, below which that is a warning.
const FEW: usize = 10;

pub(super) fn ranges(node: &Node) -> Check {
    const NAME: &str = "id ranges";
    const WIDEN: &str = "widen [ids] in node.toml, or shorten quarantine_days, or end quarantines early: berth-node ids purge";
    let allocator = node.host.ranges();
    let held = match allocator.held(now_ms()) {
        Ok(held) => held,
        Err(error) => return failed(NAME, chain(&error), "/proc must be mounted and readable for root"),
    };
    let (mut used, mut ends, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (range, why) in &held {
        match why {
            Held::InUse => used.push((range.base, range.owner.clone())),
            Held::Quarantined(until) => ends.push(*until),
            Held::Files(files) => {
                let places: Vec<String> = files.directories.iter().map(|(path, _)| path.display().to_string()).collect();
                kept.push(format!("{} by files in {} that could not be given back yet", range.base, places.join(", ")));
            }
            Held::Process(pid) => kept.push(format!("{} by process {pid}, which has its ids", range.base)),
        }
    }
    let capacity = allocator.capacity() as usize;
    let (in_use, quarantined, foreign) = (used.len(), ends.len(), ids_of_others(&allocator.span(), &foreign()));
    drop(held);
    drop(allocator);
    let free = capacity.saturating_sub(in_use + quarantined + kept.len() + foreign);
    let ids = &node.host.config.ids;
    let mut detail = format!(
        "{in_use} in use, {quarantined} in quarantine, {} held, {free} free, of {capacity} of {COUNT} ids in {}–{}",
        kept.len(),
        ids.first,
        ids.last
    );
    if let Some(next) = ends.iter().min().and_then(|at| jiff::Timestamp::from_millisecond(*at).ok()) {
        detail = format!("{detail}; the first quarantine ends {next:.0}");
    }
    if !kept.is_empty() {
        detail = format!("{detail}; held: {}", kept.join(", "));
    }
    let overlaps = overlaps(&used, &self::foreign());
    match () {
        () if !overlaps.is_empty() => {
            let detail = format!("{detail}; overlaps: {}", overlaps.join("; "));
            failed(NAME, detail, "give those accounts and subordinate ranges other ids")
        }
        () if free == 0 => failed(NAME, format!("{detail}: no further berth can be made"), WIDEN),
        () if free * 100 < capacity * FEW => warning(NAME, format!("{detail}: few are left"), WIDEN),
        () if !kept.is_empty() => {
            warning(NAME, detail, "end those processes; files are tried again every hour, the node's log says what stands in the way")
        }
        () => ok(NAME, detail),
    }
}

/// Ranges of the pool, given as its first and last id, that somebody else is named for.
fn ids_of_others((first, last): &(u32, u32), foreign: &[Span]) -> usize {
    let taken = |base: u64| foreign.iter().any(|(start, many, _)| *start < base + u64::from(COUNT) && base < start + many);
    (0..(last - first + 1) / COUNT).filter(|n| taken(u64::from(*first) + u64::from(n * COUNT))).count()
}

/// A span of ids that somebody else has: first, how many, and where that is said.
pub(super) type Span = (u64, u64, String);

/// `/etc/subuid`, `/etc/subgid`, `/etc/passwd` and `/etc/group`.
pub(super) fn foreign() -> Vec<Span> {
    let read = |file: &str| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let mut spans = Vec::new();
    for file in ["/etc/subuid", "/etc/subgid"] {
        spans.extend(subordinate(&read(file), file));
    }
    for file in ["/etc/passwd", "/etc/group"] {
        spans.extend(accounts(&read(file), file));
    }
    spans
}

fn subordinate(text: &str, file: &str) -> Vec<Span> {
    let span = |line: &str| {
        let mut fields = line.split(':');
        let (name, first, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        Some((first, count, format!("{name} in {file}")))
    };
    text.lines().filter_map(span).collect()
}

fn accounts(text: &str, file: &str) -> Vec<Span> {
    let span = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?)).map(|(name, id)| (id, 1, format!("{name} in {file}")))
    };
    text.lines().filter_map(span).collect()
}

/// One sentence for each overlap of a range in use with another, or with somebody else's ids.
pub(super) fn overlaps(used: &[(u32, String)], foreign: &[Span]) -> Vec<String> {
    let count = u64::from(COUNT);
    let mut found = Vec::new();
    for (index, (base, owner)) in used.iter().enumerate() {
        let base = u64::from(*base);
        for (first, many, name) in foreign {
            if *first < base + count && base < first + many {
                found.push(format!("{base} of berth {owner} with {name}"));
            }
        }
        for (other, other_owner) in &used[index + 1..] {
            if u64::from(*other).abs_diff(base) < count {
                found.push(format!("{base} of berth {owner} with {other} of berth {other_owner}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i02_overlaps_are_named() {
        let foreign =
            [subordinate("bob:100000:65536\nx\n", "/etc/subuid"), accounts("eve:x:300000:1::/:/bin/sh\n", "/etc/passwd")].concat();
        assert_eq!(foreign.len(), 2);
        let used = |bases: &[u32]| bases.iter().map(|b| (*b, format!("b{b}"))).collect::<Vec<_>>();
        assert_eq!(overlaps(&used(&[165_536, 400_000]), &foreign), Vec::<String>::new());
        assert_eq!(overlaps(&used(&[165_535]), &foreign), ["165535 of berth b165535 with bob in /etc/subuid"]);
        assert_eq!(overlaps(&used(&[299_999]), &foreign), ["299999 of berth b299999 with eve in /etc/passwd"]);
        assert_eq!(overlaps(&used(&[500_000, 500_001]), &[]).len(), 1);
    }
}

//! Do ranges of berths overlap ids that others are named for?

use std::fs;

use berth_runtime::idmap::COUNT;

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

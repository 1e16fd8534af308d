//! Lists of CPUs as `/sys/devices/system/cpu/online` has them: `0-3,7`.

/// The first `shown` CPUs.
pub(super) fn render(shown: u32) -> String {
    match shown {
        0 | 1 => "0\n".into(),
        more => format!("0-{}\n", more - 1),
    }
}

/// How many a list has; `None` when it is none.
pub(super) fn count(list: &str) -> Option<u32> {
    let list = list.trim();
    if list.is_empty() {
        return Some(0);
    }
    list.split(',').try_fold(0_u32, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p02_lists_are_counted_and_made() {
        assert_eq!((render(0), render(1), render(2), render(64)), ("0\n".into(), "0\n".into(), "0-1\n".into(), "0-63\n".into()));
        let counted = ["0\n", "0-1\n", "0-3,7,9-10\n", "\n", "x", "3-1", "0-4294967295"].map(count);
        assert_eq!(counted, [Some(1), Some(2), Some(7), Some(0), None, None, None]);
    }
}

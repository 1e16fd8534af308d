//! `/proc/swaps`, proc_swaps(5): one nameless area for the quota's swap, none without.

use super::sysinfo::Totals;

pub(super) fn render(host: &str, totals: Totals) -> String {
    let (total, used) = (totals.swap, totals.swap - totals.swap_free);
    let mut text = host.lines().next().map(|head| format!("{head}\n")).unwrap_or_default();
    if total > 0 {
        text.push_str(&format!("{:<40}{}\t{}\t{}\t{}\n", "none", "virtual", total / 1024, used / 1024, 0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p01_the_hosts_swap_is_not_shown() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let host = format!("{head}/dev/sda2 partition 8388604 1024 -2\n/swapfile file 2048 0 -3\n");
        assert_eq!(render(&host, Totals::default()), head);
        let shown = render(&host, Totals { swap: 512 << 20, swap_free: 412 << 20, ..Totals::default() });
        let words: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((shown.lines().count(), words), (2, vec!["none", "virtual", "524288", "102400", "0"]));
        assert_eq!(render("", Totals::default()), "");
    }
}

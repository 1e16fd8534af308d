//! `/proc/loadavg`, proc_loadavg(5).

/// `newest` is the newest pid inside.
pub(super) fn render(loads: [f64; 3], running: u64, threads: u64, newest: u64) -> String {
    let [one, five, fifteen] = loads;
    // Whoever reads it runs.
    let running = running.max(1);
    format!("{one:.2} {five:.2} {fifteen:.2} {running}/{} {newest}\n", threads.max(running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p02_five_words_as_the_kernel_writes_them() {
        assert_eq!(render([0.456, 10.0, 0.0], 3, 45, 1234), "0.46 10.00 0.00 3/45 1234\n");
        assert_eq!(render([0.0; 3], 0, 0, 0), "0.00 0.00 0.00 1/1 0\n");
    }
}

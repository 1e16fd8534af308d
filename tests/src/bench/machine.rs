//! Where figures were taken: what a reader needs to judge them.

use std::{fs, thread};

use crate::{Run, programs};

/// One line of Markdown: processor, memory, kernel, file system of the disks, date.
#[track_caller]
pub fn describe() -> String {
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (cpus, memory) = (text("/proc/cpuinfo"), text("/proc/meminfo"));
    let gib = value(&memory, "MemTotal").and_then(|v| v.split(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) / f64::from(1 << 20);
    let root = programs::root();
    let file_system = Run::new("findmnt").args(["-no", "FSTYPE", "-T"]).arg(root.parent().unwrap_or(&root)).ok();
    let date = Run::new("date").args(["-u", "+%Y-%m-%d"]).ok();
    format!(
        "Measured on {date}: {}, {} cores, {gib:.0} GiB, Linux {}, {file_system}.",
        value(&cpus, "model name").unwrap_or("an unnamed CPU"),
        thread::available_parallelism().map_or(1, usize::from),
        // Without what the packager or the provider of the machine added.
        text("/proc/sys/kernel/osrelease").trim().split('-').next().unwrap_or_default(),
    )
}

/// What the first line with this key holds.
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_behind_its_whole_key() {
        let text = "model\t\t: 1\nmodel name\t: A CPU: fast\nMemTotal:  12 kB\n";
        assert_eq!([value(text, "model name"), value(text, "MemTotal"), value(text, "name")], [Some("A CPU: fast"), Some("12 kB"), None]);
    }
}

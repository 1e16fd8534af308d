//! `/proc/cpuinfo`, proc_cpuinfo(5): the blocks of the first CPUs.

/// The first `shown` blocks that begin with `processor : n`, with all that stands outside of such blocks. Formats without them pass as
/// they are.
pub(super) fn render(host: &str, shown: u32) -> String {
    let mut text = String::new();
    let mut processors = 0;
    for block in host.split_inclusive("\n\n") {
        let is_processor = block.lines().next().is_some_and(|line| key(line) == Some("processor"));
        if !is_processor {
            text.push_str(block);
            continue;
        }
        processors += 1;
        if processors > shown {
            continue;
        }
        for line in block.split_inclusive('\n') {
            match key(line) {
                // As many as are left beside it.
                Some("siblings" | "cpu cores") => text.push_str(&at_most(line, shown)),
                _ => text.push_str(line),
            }
        }
    }
    text
}

fn key(line: &str) -> Option<&str> {
    line.split_once(':').map(|(key, _)| key.trim())
}

fn at_most(line: &str, most: u32) -> String {
    let Some((key, value)) = line.split_once(':') else { return line.to_owned() };
    match value.trim().parse::<u32>() {
        Ok(number) if number > most => format!("{key}: {most}\n"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = include_str!("recorded/cpuinfo.txt");

    #[test]
    fn p02_as_many_processors_as_are_shown() {
        let one = render(HOST, 1);
        assert_eq!(one.matches("processor\t: ").count(), 1);
        assert!(one.starts_with("processor\t: 0\n") && one.ends_with("power management:\n\n"), "{one}");
        assert!(one.contains("siblings\t: 1\n") && one.contains("cpu cores\t: 1\n") && one.contains("model name\t: AMD EPYC\n"), "{one}");
        assert_eq!((render(HOST, 2), render(HOST, 64)), (HOST.to_owned(), HOST.to_owned()));
    }

    #[test]
    fn what_is_no_processor_passes() {
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\nBogoMIPS\t: 50.00\n\nHardware\t: x\nSerial\t\t: 0\n";
        assert_eq!(render(arm, 1), "processor\t: 0\nBogoMIPS\t: 50.00\n\nHardware\t: x\nSerial\t\t: 0\n");
        let other = "vendor_id       : IBM/S390\n# processors    : 2\nprocessor 0: version = FF\nprocessor 1: version = FF\n";
        assert_eq!(render(other, 1), other);
    }
}
